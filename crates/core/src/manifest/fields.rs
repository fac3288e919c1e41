//! Reads the fields of a YAML mapping into typed values and collects every problem on the way.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde_yaml::{Mapping, Value};

/// A path within a document: `spec.steps[0].weight`.
#[derive(Debug, Clone, Default)]
pub(super) struct Path(String);

impl Path {
    pub(super) fn key(&self, key: &str) -> Self {
        // Keys with dots or brackets (labels) are quoted, so that a path can be read back.
        let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        let key = if plain && !key.is_empty() { key.to_owned() } else { format!("{key:?}") };
        Self(if self.0.is_empty() { key } else { format!("{}.{key}", self.0) })
    }

    pub(super) fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The problems of a document so far.
#[derive(Default)]
pub(super) struct Problems(RefCell<Vec<(Path, String)>>);

impl Problems {
    pub(super) fn add(&self, path: &Path, message: impl fmt::Display) {
        self.0.borrow_mut().push((path.clone(), message.to_string()));
    }

    pub(super) fn into_vec(self) -> Vec<(Path, String)> {
        self.0.into_inner()
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(b) => format!("the boolean {b}"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) => format!("the string {s:?}"),
        Value::Sequence(_) => "a list".into(),
        Value::Mapping(_) => "a mapping".into(),
        Value::Tagged(t) => format!("the tag {}", t.tag),
    }
}

/// A mapping under reading. `finish` reports the fields that nothing asked for.
pub(super) struct Fields<'a> {
    map: &'a Mapping,
    pub(super) path: Path,
    problems: &'a Problems,
    asked: BTreeSet<&'static str>,
}

impl<'a> Fields<'a> {
    pub(super) fn of(value: &'a Value, path: Path, problems: &'a Problems) -> Option<Self> {
        match value {
            Value::Mapping(map) => Some(Self { map, path, problems, asked: BTreeSet::new() }),
            other => {
                problems.add(&path, format_args!("must be a mapping, not {}", describe(other)));
                None
            }
        }
    }

    pub(super) fn problem(&self, key: &str, message: impl fmt::Display) {
        self.problems.add(&self.path.key(key), message);
    }

    /// A problem of the mapping itself.
    pub(super) fn problem_here(&self, message: impl fmt::Display) {
        self.problems.add(&self.path, message);
    }

    /// Whether the field is there, be it null (`rolling:`).
    pub(super) fn has_key(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|v| !v.is_null())
    }

    /// Whether a field that is a mapping has one of that name.
    pub(super) fn has_within(&self, key: &str, inner: &str) -> bool {
        self.map.get(key).is_some_and(|value| value.get(inner).is_some())
    }

    /// Whether the field is this text.
    pub(super) fn is_text(&mut self, key: &'static str, text: &str) -> bool {
        self.get(key).is_some_and(|value| value.as_str() == Some(text))
    }

    pub(super) fn is_mapping(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_mapping)
    }

    /// The value of a field, if it is there and not null.
    fn get(&mut self, key: &'static str) -> Option<&'a Value> {
        self.asked.insert(key);
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn require(&mut self, key: &'static str) -> Option<&'a Value> {
        let value = self.get(key);
        if value.is_none() {
            self.problems.add(&self.path, format_args!("`{key}` is missing"));
        }
        value
    }

    fn text(&self, key: &str, value: &'a Value) -> Option<&'a str> {
        match value {
            Value::String(s) => Some(s),
            Value::Number(_) | Value::Bool(_) => {
                let shown = serde_yaml::to_string(value).unwrap_or_default();
                let shown = shown.trim();
                self.problem(key, format_args!("must be a string: quote it, \"{shown}\""));
                None
            }
            other => {
                self.problem(key, format_args!("must be a string, not {}", describe(other)));
                None
            }
        }
    }

    fn parsed<T: FromStr<Err: fmt::Display>>(&self, key: &str, value: &'a Value) -> Option<T> {
        match self.text(key, value)?.parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.problem(key, error);
                None
            }
        }
    }

    pub(super) fn required<T: FromStr<Err: fmt::Display>>(&mut self, key: &'static str) -> Option<T> {
        self.require(key).and_then(|value| self.parsed(key, value))
    }

    pub(super) fn optional<T: FromStr<Err: fmt::Display>>(&mut self, key: &'static str) -> Option<T> {
        self.get(key).and_then(|value| self.parsed(key, value))
    }

    pub(super) fn optional_u64(&mut self, key: &'static str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let value = self.get(key)?;
        match value.as_u64().filter(|n| range.contains(n)) {
            Some(n) => Some(n),
            None => {
                let (low, high) = (range.start(), range.end());
                self.problem(key, format_args!("must be a whole number from {low} to {high}, not {}", describe(value)));
                None
            }
        }
    }

    pub(super) fn optional_bool(&mut self, key: &'static str) -> Option<bool> {
        let value = self.get(key)?;
        let boolean = value.as_bool();
        if boolean.is_none() {
            self.problem(key, format_args!("must be true or false, not {}", describe(value)));
        }
        boolean
    }

    /// A number, turned into its type by `make`.
    pub(super) fn optional_number<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        make: impl FnOnce(f64) -> Result<T, E>,
    ) -> Option<T> {
        let value = self.get(key)?;
        let Some(number) = value.as_f64() else {
            self.problem(key, format_args!("must be a number, not {}", describe(value)));
            return None;
        };
        make(number).map_err(|error| self.problem(key, error)).ok()
    }

    pub(super) fn required_number<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        make: impl FnOnce(f64) -> Result<T, E>,
    ) -> Option<T> {
        self.require(key)?;
        self.optional_number(key, make)
    }

    /// A mapping of strings to strings; empty if it is not there.
    pub(super) fn strings(&mut self, key: &'static str) -> BTreeMap<String, String> {
        let Some(value) = self.get(key) else { return BTreeMap::new() };
        let Some(fields) = Fields::of(value, self.path.key(key), self.problems) else { return BTreeMap::new() };
        let mut strings = BTreeMap::new();
        for (name, value) in fields.map {
            match name.as_str() {
                Some(name) => {
                    if let Some(text) = fields.text(name, value) {
                        strings.insert(name.to_owned(), text.to_owned());
                    }
                }
                None => self.problem(key, format_args!("its keys must be strings, not {}", describe(name))),
            }
        }
        strings
    }

    pub(super) fn required_fields(&mut self, key: &'static str) -> Option<Self> {
        let value = self.require(key)?;
        Self::of(value, self.path.key(key), self.problems)
    }

    pub(super) fn optional_fields(&mut self, key: &'static str) -> Option<Self> {
        let value = self.get(key)?;
        Self::of(value, self.path.key(key), self.problems)
    }

    /// The elements of a list of mappings.
    pub(super) fn required_list(&mut self, key: &'static str) -> Option<Vec<Self>> {
        self.require(key)?;
        self.optional_list(key)
    }

    pub(super) fn optional_list(&mut self, key: &'static str) -> Option<Vec<Self>> {
        let value = self.get(key)?;
        let Value::Sequence(items) = value else {
            self.problem(key, format_args!("must be a list, not {}", describe(value)));
            return None;
        };
        let path = self.path.key(key);
        let each = |(i, item)| Self::of(item, path.index(i), self.problems);
        Some(items.iter().enumerate().filter_map(each).collect())
    }

    /// The elements of a list of texts, each turned into its type; empty if it is not there.
    pub(super) fn optional_texts<T: FromStr<Err: fmt::Display>>(&mut self, key: &'static str) -> Vec<T> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let Value::Sequence(items) = value else {
            self.problem(key, format_args!("must be a list, not {}", describe(value)));
            return Vec::new();
        };
        let path = self.path.key(key);
        let mut parsed = Vec::new();
        for (at, item) in items.iter().enumerate() {
            match item.as_str().map(str::parse) {
                Some(Ok(value)) => parsed.push(value),
                Some(Err(error)) => self.problems.add(&path.index(at), error),
                None => self.problems.add(&path.index(at), format_args!("must be a string, not {}", describe(item))),
            }
        }
        parsed
    }

    /// Marks a field as known without reading it.
    pub(super) fn ignore(&mut self, key: &'static str) {
        self.asked.insert(key);
    }

    /// Reports every field that was not asked for.
    pub(super) fn finish(self) {
        for key in self.map.keys() {
            let known = || self.asked.iter().copied().collect::<Vec<_>>().join(", ");
            match key.as_str() {
                Some(key) if self.asked.contains(key) => {}
                Some(key) => self.problem(key, format_args!("unknown field; this mapping may have: {}", known())),
                None => self.problems.add(&self.path, format_args!("keys must be strings, not {}", describe(key))),
            }
        }
    }
}
