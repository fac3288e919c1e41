//! Writes GraphDefs: as much of TensorFlow's protos as the tests need.

pub(crate) const FLOAT: u64 = 1;
pub(crate) const INT32: u64 = 3;
pub(crate) const STRING: u64 = 7;
pub(crate) const INT64: u64 = 9;
pub(crate) const BOOL: u64 = 10;

/// The value of an attribute.
pub(crate) enum Attribute<'a> {
    Int(i64),
    Bool(bool),
    Float(f32),
    Type(u64),
    Text(&'a str),
    Ints(&'a [i64]),
    /// -1 is free; `None`: not even the rank is known.
    Shape(Option<&'a [i64]>),
    /// Datatype and shape, and then a field of TensorProto with its bytes, which are packed values or raw.
    Tensor(u64, &'a [i64], u64, Vec<u8>),
}

/// A GraphDef in the making.
#[derive(Default)]
pub(crate) struct Graph(Vec<u8>);

impl Graph {
    pub(crate) fn node(mut self, name: &str, op: &str, inputs: &[&str], attributes: &[(&str, Attribute<'_>)]) -> Self {
        let mut node = Vec::new();
        bytes(&mut node, 1, name.as_bytes());
        bytes(&mut node, 2, op.as_bytes());
        inputs.iter().for_each(|input| bytes(&mut node, 3, input.as_bytes()));
        for (key, value) in attributes {
            let mut entry = Vec::new();
            bytes(&mut entry, 1, key.as_bytes());
            bytes(&mut entry, 2, &attribute(value));
            bytes(&mut node, 5, &entry);
        }
        bytes(&mut self.0, 1, &node);
        self
    }

    pub(crate) fn placeholder(self, name: &str, datatype: u64, dims: Option<&[i64]>) -> Self {
        let attributes = [("dtype", Attribute::Type(datatype)), ("shape", Attribute::Shape(dims))];
        self.node(name, "Placeholder", &[], &attributes)
    }

    /// Its values in `float_val`.
    pub(crate) fn floats(self, name: &str, dims: &[i64], values: &[f32]) -> Self {
        let packed = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, FLOAT, dims, 5, packed)
    }

    /// Its values in `tensor_content`.
    pub(crate) fn raw_int32s(self, name: &str, dims: &[i64], values: &[i32]) -> Self {
        self.constant(name, INT32, dims, 4, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    pub(crate) fn constant(self, name: &str, datatype: u64, dims: &[i64], field: u64, values: Vec<u8>) -> Self {
        let value = Attribute::Tensor(datatype, dims, field, values);
        self.node(name, "Const", &[], &[("dtype", Attribute::Type(datatype)), ("value", value)])
    }

    /// With the attribute T, which is FP32.
    pub(crate) fn op(self, name: &str, op: &str, inputs: &[&str]) -> Self {
        self.node(name, op, inputs, &[("T", Attribute::Type(FLOAT))])
    }

    pub(crate) fn write(mut self) -> Vec<u8> {
        let mut versions = Vec::new();
        varint(&mut versions, 1, 1395);
        bytes(&mut self.0, 4, &versions);
        self.0
    }
}

fn attribute(value: &Attribute<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        Attribute::Text(text) => bytes(&mut out, 2, text.as_bytes()),
        Attribute::Int(int) => varint(&mut out, 3, int.cast_unsigned()),
        Attribute::Float(float) => {
            raw_varint(&mut out, 4 << 3 | 5);
            out.extend(float.to_le_bytes());
        }
        Attribute::Bool(bool) => varint(&mut out, 5, u64::from(*bool)),
        Attribute::Type(datatype) => varint(&mut out, 6, *datatype),
        Attribute::Shape(dims) => bytes(&mut out, 7, &shape(*dims)),
        Attribute::Ints(ints) => {
            let mut packed = Vec::new();
            ints.iter().for_each(|int| raw_varint(&mut packed, int.cast_unsigned()));
            let mut list = Vec::new();
            bytes(&mut list, 3, &packed);
            bytes(&mut out, 1, &list);
        }
        Attribute::Tensor(datatype, dims, field, values) => {
            let mut tensor = Vec::new();
            varint(&mut tensor, 1, *datatype);
            bytes(&mut tensor, 2, &shape(Some(dims)));
            bytes(&mut tensor, *field, values);
            bytes(&mut out, 8, &tensor);
        }
    }
    out
}

fn shape(dims: Option<&[i64]>) -> Vec<u8> {
    let mut out = Vec::new();
    match dims {
        None => varint(&mut out, 3, 1),
        Some(dims) => {
            for dim in dims {
                let mut proto = Vec::new();
                varint(&mut proto, 1, dim.cast_unsigned());
                bytes(&mut out, 2, &proto);
            }
        }
    }
    out
}

fn raw_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}

pub(crate) fn varint(out: &mut Vec<u8>, field: u64, value: u64) {
    raw_varint(out, field << 3);
    raw_varint(out, value);
}

pub(crate) fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    raw_varint(out, field << 3 | 2);
    raw_varint(out, u64::try_from(value.len()).unwrap());
    out.extend_from_slice(value);
}
