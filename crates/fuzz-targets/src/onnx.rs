//! Writes ONNX models: as much of onnx.proto3 (github.com/onnx/onnx) as the generated graphs need.

/// A tensor, as initializers and attributes have it.
pub(crate) struct Tensor {
    /// TensorProto.DataType
    pub(crate) datatype: u64,
    pub(crate) dims: Vec<u64>,
    /// By the field that data of this type is in; see [`Elements`].
    pub(crate) elements: Elements,
}

pub(crate) enum Elements {
    Floats(Vec<f32>),
    Doubles(Vec<f64>),
    Integers(Vec<i64>),
    Strings(Vec<Vec<u8>>),
}

pub(crate) enum Attribute {
    Float(f32),
    Int(i64),
    Text(Vec<u8>),
    Tensor(Tensor),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Texts(Vec<Vec<u8>>),
}

pub(crate) struct Node<'n> {
    pub(crate) op: &'n str,
    pub(crate) domain: &'n str,
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    pub(crate) attributes: Vec<(String, Attribute)>,
}

#[derive(Default)]
pub(crate) struct Graph(Vec<u8>);

impl Graph {
    pub(crate) fn node(&mut self, node: &Node<'_>) {
        let mut proto = Vec::new();
        node.inputs.iter().for_each(|name| bytes(&mut proto, 1, name.as_bytes()));
        node.outputs.iter().for_each(|name| bytes(&mut proto, 2, name.as_bytes()));
        bytes(&mut proto, 4, node.op.as_bytes());
        for (name, value) in &node.attributes {
            bytes(&mut proto, 5, &attribute(name, value));
        }
        bytes(&mut proto, 7, node.domain.as_bytes());
        bytes(&mut self.0, 1, &proto);
    }

    pub(crate) fn initializer(&mut self, name: &str, value: &Tensor) {
        bytes(&mut self.0, 5, &tensor(Some(name), value));
    }

    pub(crate) fn input(&mut self, name: &str, datatype: u64, shape: &[i64]) {
        self.value(11, name, datatype, shape);
    }

    pub(crate) fn output(&mut self, name: &str, datatype: u64, shape: &[i64]) {
        self.value(12, name, datatype, shape);
    }

    fn value(&mut self, field: u64, name: &str, datatype: u64, shape: &[i64]) {
        let mut dims = Vec::new();
        for dim in shape {
            let mut proto = Vec::new();
            if let Ok(dim) = u64::try_from(*dim) {
                varint(&mut proto, 1, dim);
            }
            bytes(&mut dims, 1, &proto);
        }
        let (mut kind, mut value_type, mut value) = (Vec::new(), Vec::new(), Vec::new());
        varint(&mut kind, 1, datatype);
        bytes(&mut kind, 2, &dims);
        bytes(&mut value_type, 1, &kind);
        bytes(&mut value, 1, name.as_bytes());
        bytes(&mut value, 2, &value_type);
        bytes(&mut self.0, field, &value);
    }

    /// A ModelProto of it, with this version of ONNX's own operators.
    pub(crate) fn model(&self, opset: u64) -> Vec<u8> {
        let mut model = Vec::new();
        varint(&mut model, 1, 8);
        bytes(&mut model, 7, &self.0);
        for (domain, version) in [("", opset), ("ai.onnx.ml", 3)] {
            let mut proto = Vec::new();
            bytes(&mut proto, 1, domain.as_bytes());
            varint(&mut proto, 2, version);
            bytes(&mut model, 8, &proto);
        }
        model
    }
}

fn attribute(name: &str, value: &Attribute) -> Vec<u8> {
    let mut proto = Vec::new();
    bytes(&mut proto, 1, name.as_bytes());
    match value {
        Attribute::Float(float) => {
            number(&mut proto, (2 << 3) | 5);
            proto.extend_from_slice(&float.to_le_bytes());
        }
        Attribute::Int(int) => varint(&mut proto, 3, int.cast_unsigned()),
        Attribute::Text(text) => bytes(&mut proto, 4, text),
        Attribute::Tensor(value) => bytes(&mut proto, 5, &tensor(None, value)),
        Attribute::Floats(floats) => bytes(&mut proto, 7, &packed(floats, |f| f.to_le_bytes())),
        Attribute::Ints(ints) => ints.iter().for_each(|int| varint(&mut proto, 8, int.cast_unsigned())),
        Attribute::Texts(texts) => texts.iter().for_each(|text| bytes(&mut proto, 9, text)),
    }
    proto
}

fn tensor(name: Option<&str>, value: &Tensor) -> Vec<u8> {
    let mut proto = Vec::new();
    value.dims.iter().for_each(|dim| varint(&mut proto, 1, *dim));
    varint(&mut proto, 2, value.datatype);
    match &value.elements {
        Elements::Floats(floats) => bytes(&mut proto, 4, &packed(floats, |f| f.to_le_bytes())),
        Elements::Doubles(doubles) => bytes(&mut proto, 10, &packed(doubles, |f| f.to_le_bytes())),
        Elements::Integers(integers) => integers.iter().for_each(|int| varint(&mut proto, 7, int.cast_unsigned())),
        Elements::Strings(strings) => strings.iter().for_each(|string| bytes(&mut proto, 6, string)),
    }
    if let Some(name) = name {
        bytes(&mut proto, 8, name.as_bytes());
    }
    proto
}

fn packed<T: Copy, const W: usize>(numbers: &[T], one: fn(T) -> [u8; W]) -> Vec<u8> {
    numbers.iter().flat_map(|number| one(*number)).collect()
}

fn number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn varint(out: &mut Vec<u8>, field: u64, value: u64) {
    number(out, field << 3);
    number(out, value);
}

fn bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    number(out, (field << 3) | 2);
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
