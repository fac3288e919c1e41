//! Finds the line of a path in YAML text.
//!
//! serde_yaml gives no positions with its values, but it puts one on every error. So the path is walked once more by
//! a visitor that fails on purpose where it ends.

use std::fmt;

use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

const FOUND: &str = "this is the place";

#[derive(Debug, Clone, PartialEq)]
enum Segment {
    Key(String),
    Index(usize),
}

/// The line, from 1, of `path` in the document with that index. The nearest enclosing place if the path itself is not
/// in the text (a missing field).
pub fn line_of(text: &str, document: usize, path: &str) -> Option<usize> {
    let mut segments = segments(path);
    loop {
        let de = serde_yaml::Deserializer::from_str(text).nth(document)?;
        if let Err(error) = (Walk { rest: &segments }).deserialize(de)
            && error.to_string().contains(FOUND)
        {
            return error.location().map(|l| l.line());
        }
        segments.pop()?;
    }
}

/// Where a document of a text stands.
#[derive(Debug, Clone, Copy)]
pub struct Place<'t> {
    lines_before: usize,
    /// The text from there on.
    text: &'t str,
}

impl Place<'_> {
    /// The line, from 1, of a path in the document, as [`line_of`] finds it.
    pub fn line_of(&self, path: &str) -> Option<usize> {
        line_of(self.text, 0, path).map(|line| line + self.lines_before)
    }
}

/// The documents of a text, by index, found in one walk through it however many there are: [`line_of`] walks through all
/// that stands before a document. After a syntax error there are no more.
pub fn places(text: &str) -> Vec<Place<'_>> {
    let lines = line_starts(text);
    let place = |de: serde_yaml::Deserializer<'_>| {
        let location = (Walk { rest: &[] }).deserialize(de).err().and_then(|error| error.location());
        let lines_before = location.map_or(0, |l| l.line().saturating_sub(1));
        let text = lines.get(lines_before).and_then(|at| text.get(*at..)).unwrap_or_default();
        Place { lines_before, text }
    };
    // After an error serde_yaml gives what is left as documents that begin anywhere, or as empty ones without end: reading
    // those panics, or goes on for ever. A walk that stops at its place does not come to the error, so all is read first.
    let is_whole = serde_yaml::Deserializer::from_str(text).map(|de| IgnoredAny::deserialize(de).is_ok());
    let places = serde_yaml::Deserializer::from_str(text).map(place);
    is_whole.zip(places).map_while(|(is_whole, place)| is_whole.then_some(place)).collect()
}

/// Where lines begin, as YAML counts them (YAML 1.1, §4.1.4): not only after a line feed.
fn line_starts(text: &str) -> Vec<usize> {
    let mut starts = vec![0];
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        let is_end = match c {
            '\n' | '\u{85}' | '\u{2028}' | '\u{2029}' => true,
            '\r' => !text[end..].starts_with('\n'),
            _ => false,
        };
        if is_end {
            starts.push(end);
        }
    }
    starts
}

/// The number of the last line of a text, from 1.
pub(super) fn last_line(text: &str) -> usize {
    line_starts(text).into_iter().filter(|start| *start < text.len()).count().max(1)
}

fn segments(path: &str) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if let Some(inner) = rest.strip_prefix('[') {
            let Some((index, after)) = inner.split_once(']') else { break };
            let Ok(index) = index.parse() else { break };
            segments.push(Segment::Index(index));
            rest = after;
        } else if rest.starts_with('"') {
            let end = quoted_end(rest);
            let key = serde_json::from_str(&rest[..end]).unwrap_or_default();
            segments.push(Segment::Key(key));
            rest = &rest[end..];
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            segments.push(Segment::Key(rest[..end].to_owned()));
            rest = &rest[end..];
        }
    }
    segments
}

/// Where the quoted string that `s` starts with ends.
fn quoted_end(s: &str) -> usize {
    let mut escaped = false;
    for (i, c) in s.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    s.len()
}

/// Walks on to `rest`, or fails where it stands if that is empty.
struct Walk<'p> {
    rest: &'p [Segment],
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.rest.is_empty() { FOUND } else { "something to walk into" })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Segment::Key(key), rest)) = self.rest.split_first() else {
            // The start of a mapping is where its first key is.
            return match map.next_key_seed(Key { wanted: None, stop: true })? {
                Some(_) | None => Err(A::Error::custom(FOUND)),
            };
        };
        while let Some(found) = map.next_key_seed(Key { wanted: Some(key), stop: rest.is_empty() })? {
            if found {
                map.next_value_seed(Walk { rest })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((Segment::Index(index), rest)) = self.rest.split_first() else {
            return Err(A::Error::custom(FOUND));
        };
        for _ in 0..*index {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        seq.next_element_seed(Walk { rest })?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// Reads a key; says whether it is the wanted one, or fails at it if the walk ends there.
struct Key<'k> {
    wanted: Option<&'k str>,
    stop: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<bool, D::Error> {
        d.deserialize_any(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        match self.wanted {
            Some(wanted) if wanted != key => Ok(false),
            _ if self.stop => Err(E::custom(FOUND)),
            _ => Ok(true),
        }
    }
}
