//! Writes ONNX models: as much of onnx.proto3 as the tests need.

pub(crate) const FLOAT: u64 = 1;
pub(crate) const UINT16: u64 = 4;
pub(crate) const INT64: u64 = 7;
pub(crate) const STRING: u64 = 8;
pub(crate) const BOOL: u64 = 9;
pub(crate) const FLOAT16: u64 = 10;
pub(crate) const DOUBLE: u64 = 11;

/// The value of an attribute.
#[derive(Debug, Clone)]
pub(crate) enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Text(&'static str),
    Texts(Vec<&'static str>),
}

/// A ModelProto in the making.
#[derive(Default)]
pub(crate) struct OnnxModel {
    graph: Vec<u8>,
    domains: Vec<String>,
}

impl OnnxModel {
    pub(crate) fn node(mut self, op: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        self.push_node("", op, inputs, outputs, &[]);
        self
    }

    /// With an attribute of type INT.
    pub(crate) fn node_with(mut self, op: &str, inputs: &[&str], outputs: &[&str], attribute: (&str, u64)) -> Self {
        let mut proto = Vec::new();
        bytes(&mut proto, 1, attribute.0.as_bytes());
        varint(&mut proto, 3, attribute.1);
        varint(&mut proto, 20, 2);
        self.push_node("", op, inputs, outputs, &proto);
        self
    }

    pub(crate) fn foreign_node(mut self, domain: &str, op: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        self.push_node(domain, op, inputs, outputs, &[]);
        self.domains.push(domain.to_owned());
        self
    }

    /// Of `ai.onnx.ml`.
    pub(crate) fn ml_node(
        mut self,
        op: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) -> Self {
        let mut node = Vec::new();
        inputs.iter().for_each(|name| bytes(&mut node, 1, name.as_bytes()));
        outputs.iter().for_each(|name| bytes(&mut node, 2, name.as_bytes()));
        bytes(&mut node, 3, format!("the {op}").as_bytes());
        bytes(&mut node, 4, op.as_bytes());
        for (name, value) in attributes {
            bytes(&mut node, 5, &attribute(name, value));
        }
        bytes(&mut node, 7, b"ai.onnx.ml");
        bytes(&mut self.graph, 1, &node);
        if !self.domains.iter().any(|domain| domain == "ai.onnx.ml") {
            self.domains.push("ai.onnx.ml".into());
        }
        self
    }

    fn push_node(&mut self, domain: &str, op: &str, inputs: &[&str], outputs: &[&str], attribute: &[u8]) {
        let mut node = Vec::new();
        inputs.iter().for_each(|name| bytes(&mut node, 1, name.as_bytes()));
        outputs.iter().for_each(|name| bytes(&mut node, 2, name.as_bytes()));
        bytes(&mut node, 4, op.as_bytes());
        if !attribute.is_empty() {
            bytes(&mut node, 5, attribute);
        }
        if !domain.is_empty() {
            bytes(&mut node, 7, domain.as_bytes());
        }
        bytes(&mut self.graph, 1, &node);
    }

    pub(crate) fn constant(mut self, name: &str, shape: &[u64], values: &[f32]) -> Self {
        let mut tensor = Vec::new();
        shape.iter().for_each(|d| varint(&mut tensor, 1, *d));
        varint(&mut tensor, 2, FLOAT);
        bytes(&mut tensor, 8, name.as_bytes());
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        bytes(&mut tensor, 9, &raw);
        bytes(&mut self.graph, 5, &tensor);
        self
    }

    /// A constant whose data is in another file.
    pub(crate) fn external_constant(mut self, name: &str, shape: &[u64], file: &str) -> Self {
        let mut tensor = Vec::new();
        shape.iter().for_each(|d| varint(&mut tensor, 1, *d));
        varint(&mut tensor, 2, FLOAT);
        bytes(&mut tensor, 8, name.as_bytes());
        let mut entry = Vec::new();
        bytes(&mut entry, 1, b"location");
        bytes(&mut entry, 2, file.as_bytes());
        bytes(&mut tensor, 13, &entry);
        varint(&mut tensor, 14, 1);
        bytes(&mut self.graph, 5, &tensor);
        self
    }

    pub(crate) fn input(self, name: &str, datatype: u64, shape: &[i64]) -> Self {
        self.value(11, name, &tensor_type(datatype, shape))
    }

    pub(crate) fn output(self, name: &str, datatype: u64, shape: &[i64]) -> Self {
        self.value(12, name, &tensor_type(datatype, shape))
    }

    /// An output that is a sequence of maps, as classifiers of scikit-learn have.
    pub(crate) fn sequence_output(self, name: &str) -> Self {
        let mut sequence = Vec::new();
        bytes(&mut sequence, 4, &[]);
        self.value(12, name, &sequence)
    }

    fn value(mut self, field: u64, name: &str, value_type: &[u8]) -> Self {
        let mut value = Vec::new();
        bytes(&mut value, 1, name.as_bytes());
        bytes(&mut value, 2, value_type);
        bytes(&mut self.graph, field, &value);
        self
    }

    /// The bytes of the model, of opset 13 and version 1 of other domains.
    pub(crate) fn write(mut self, name: &str) -> Vec<u8> {
        bytes(&mut self.graph, 2, name.as_bytes());
        let mut model = Vec::new();
        varint(&mut model, 1, 8);
        bytes(&mut model, 2, b"modelyard");
        bytes(&mut model, 7, &self.graph);
        for (domain, version) in std::iter::once(("", 13)).chain(self.domains.iter().map(|d| (d.as_str(), 1))) {
            let mut opset = Vec::new();
            bytes(&mut opset, 1, domain.as_bytes());
            varint(&mut opset, 2, version);
            bytes(&mut model, 8, &opset);
        }
        model
    }
}

/// An AttributeProto.
fn attribute(name: &str, value: &Attribute) -> Vec<u8> {
    let mut proto = Vec::new();
    bytes(&mut proto, 1, name.as_bytes());
    let kind = match value {
        Attribute::Int(int) => {
            varint(&mut proto, 3, int.cast_unsigned());
            2
        }
        Attribute::Ints(ints) => {
            ints.iter().for_each(|int| varint(&mut proto, 8, int.cast_unsigned()));
            7
        }
        Attribute::Floats(floats) => {
            let packed: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
            bytes(&mut proto, 7, &packed);
            6
        }
        Attribute::Text(text) => {
            bytes(&mut proto, 4, text.as_bytes());
            3
        }
        Attribute::Texts(texts) => {
            texts.iter().for_each(|text| bytes(&mut proto, 9, text.as_bytes()));
            8
        }
    };
    varint(&mut proto, 20, kind);
    proto
}

/// A TypeProto; a dimension of -1 is left open.
fn tensor_type(datatype: u64, shape: &[i64]) -> Vec<u8> {
    let mut dims = Vec::new();
    for dim in shape {
        let mut proto = Vec::new();
        match u64::try_from(*dim) {
            Ok(dim) => varint(&mut proto, 1, dim),
            Err(_) => bytes(&mut proto, 2, b"batch"),
        }
        bytes(&mut dims, 1, &proto);
    }
    let mut tensor = Vec::new();
    varint(&mut tensor, 1, datatype);
    bytes(&mut tensor, 2, &dims);
    let mut proto = Vec::new();
    bytes(&mut proto, 1, &tensor);
    proto
}

fn raw_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}

fn varint(out: &mut Vec<u8>, field: u64, value: u64) {
    raw_varint(out, field << 3);
    raw_varint(out, value);
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    raw_varint(out, field << 3 | 2);
    raw_varint(out, u64::try_from(value.len()).unwrap());
    out.extend_from_slice(value);
}
