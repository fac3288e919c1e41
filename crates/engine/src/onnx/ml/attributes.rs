//! The attributes of a node, by name, as operators ask for them.

use std::collections::HashMap;

use super::limits::MOST_STRINGS;
use super::value::{Answer, Value};

/// An AttributeProto, whichever of its fields are set.
#[derive(Debug, Clone, Default)]
pub(super) struct Attribute {
    pub(super) float: Option<f32>,
    pub(super) int: Option<i64>,
    pub(super) string: Option<Vec<u8>>,
    pub(super) tensor: Option<Value>,
    pub(super) floats: Vec<f32>,
    pub(super) ints: Vec<i64>,
    pub(super) strings: Option<Strings>,
}

/// Many short strings in one piece: a forest says the mode of each of its nodes by one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Strings {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Strings {
    pub(super) fn push(&mut self, string: &[u8]) {
        self.bytes.extend_from_slice(string);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[*start..*end])
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Attributes(HashMap<String, Attribute>);

impl Attributes {
    pub(super) fn insert(&mut self, name: String, attribute: Attribute) {
        self.0.insert(name, attribute);
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn float(&self, name: &str) -> Option<f32> {
        self.0.get(name)?.float
    }

    pub(super) fn int(&self, name: &str) -> Option<i64> {
        self.0.get(name)?.int
    }

    /// As text; empty is as good as absent.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let string = self.0.get(name)?.string.as_deref()?;
        // What is no UTF-8 is none of the words that operators know, and is refused as such.
        Some(std::str::from_utf8(string).unwrap_or("?")).filter(|text| !text.is_empty())
    }

    pub(super) fn string(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name)?.string.as_deref()
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&Value> {
        self.0.get(name)?.tensor.as_ref()
    }

    /// Empty if absent.
    pub(super) fn floats(&self, name: &str) -> &[f32] {
        self.0.get(name).map_or(&[], |a| &a.floats)
    }

    /// Empty if absent.
    pub(super) fn ints(&self, name: &str) -> &[i64] {
        self.0.get(name).map_or(&[], |a| &a.ints)
    }

    /// One by one, for keys and labels. Empty if absent.
    ///
    /// # Errors
    /// If they are more than are kept so.
    pub(super) fn strings(&self, name: &str) -> Answer<Vec<Vec<u8>>> {
        let Some(strings) = self.packed_strings(name) else { return Ok(Vec::new()) };
        if strings.len() > MOST_STRINGS {
            return Err(format!(
                "attribute `{name}` has {} strings, and at most {MOST_STRINGS} are kept",
                strings.len()
            ));
        }
        Ok(strings.iter().map(<[u8]>::to_vec).collect())
    }

    pub(super) fn packed_strings(&self, name: &str) -> Option<&Strings> {
        self.0.get(name)?.strings.as_ref()
    }

    /// # Errors
    /// If it is absent.
    pub(super) fn need_floats(&self, name: &str) -> Answer<&[f32]> {
        Some(self.floats(name)).filter(|f| !f.is_empty()).ok_or_else(|| format!("attribute `{name}` is missing"))
    }
}
