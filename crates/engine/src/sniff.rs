//! Tells by its first bytes what a file is, so that the wrong one is refused for what it is, and at once.
//!
//! Reads some kilobytes at most, and the list of files of a zip archive. Opens no archive, interprets no content.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use crate::error::LoadError;

const HEAD: u64 = 4096;
/// The longest list of files of an archive that is looked at, in bytes.
const LONGEST_LIST: u64 = 4 << 20;

/// What a file may yet be, once all that is surely no model is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Binary,
}

impl Kind {
    pub(crate) fn must_be_text(&self) -> Result<(), LoadError> {
        if *self == Self::Text { Ok(()) } else { Err(LoadError::NotJson) }
    }

    pub(crate) fn must_be_binary(&self) -> Result<(), LoadError> {
        if *self == Self::Binary { Ok(()) } else { Err(LoadError::Text) }
    }
}

/// # Errors
/// If it cannot be read, or is known to be something else than a model that is served.
pub(crate) fn look(path: &Path) -> Result<Kind, LoadError> {
    if path.is_dir() {
        let saved = path.join("saved_model.pb").is_file();
        return Err(if saved { LoadError::SavedModel } else { LoadError::Directory });
    }
    let mut file = crate::open(path)?;
    let mut head = Vec::new();
    file.by_ref().take(HEAD).read_to_end(&mut head).map_err(LoadError::Io)?;
    match head.as_slice() {
        [] => Err(LoadError::Empty),
        // The PROTO opcode and a protocol number, which every pickle since Python 2.3 starts with.
        [0x80, 0..=5, ..] => Err(LoadError::Pickle("")),
        [b'P', b'K', 3, 4, ..] => Err(archive(&mut file).unwrap_or(LoadError::Archive("zip"))),
        [0x89, b'H', b'D', b'F', ..] => Err(LoadError::Keras("an HDF5 file")),
        // A FlatBuffers file names its schema after the offset of its root.
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => Err(LoadError::TfLite),
        [0x1f, 0x8b, ..] => Err(LoadError::Archive("gzip")),
        _ if head.get(257..262) == Some(b"ustar") => Err(LoadError::Archive("tar")),
        _ => text(&head),
    }
}

fn text(head: &[u8]) -> Result<Kind, LoadError> {
    let printable = |b: &u8| matches!(b, b'\t' | b'\n' | b'\r' | 0x0c | 0x20..=0x7e | 0x80..);
    let valid = match std::str::from_utf8(head) {
        Ok(_) => true,
        // The head may end within a character.
        Err(error) => error.error_len().is_none() && error.valid_up_to() > 0,
    };
    if !valid || !head.iter().all(printable) {
        return Ok(Kind::Binary);
    }
    let start = head.trim_ascii_start().to_ascii_lowercase();
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&start);
    if start.starts_with(b"<!doctype") || start.starts_with(b"<html") {
        Err(LoadError::Html)
    } else if start.starts_with(b"version https://git-lfs") {
        Err(LoadError::LfsPointer)
    } else {
        Ok(Kind::Text)
    }
}

/// What a zip archive is, by the names in its central directory (APPNOTE.TXT 4.3.12 and 4.3.16).
fn archive(file: &mut File) -> Option<LoadError> {
    let length = file.seek(SeekFrom::End(0)).ok()?;
    let tail = read_at(file, length.saturating_sub(65_557), length.min(65_557))?;
    let end = tail.windows(4).rposition(|w| w == b"PK\x05\x06")?;
    let end = tail.get(end..end + 22)?;
    let number = |at: usize| Some(u64::from(u32::from_le_bytes(end.get(at..at + 4)?.try_into().ok()?)));
    let list = read_at(file, number(16)?, number(12)?.min(LONGEST_LIST))?;
    let names = names(&list);
    let any = |test: &dyn Fn(&str) -> bool| names.iter().any(|n| test(n));
    Some(if any(&|n| n.ends_with("/constants.pkl") || n.contains("/code/__torch__")) {
        LoadError::TorchScript
    } else if any(&|n| n == "data.pkl" || n.ends_with("/data.pkl")) {
        LoadError::Pickle(" (a PyTorch save)")
    } else if any(&|n| n == "saved_model.pb" || n.ends_with("/saved_model.pb")) {
        LoadError::SavedModel
    } else if any(&|n| n == "MAR-INF/MANIFEST.json") {
        LoadError::Archive("a TorchServe model archive")
    } else if any(&|n| n == "model.weights.h5") {
        LoadError::Keras("a .keras archive")
    } else if any(&|n| n.ends_with(".npy")) {
        LoadError::Archive("NumPy arrays")
    } else {
        LoadError::Archive("zip")
    })
}

fn names(mut list: &[u8]) -> Vec<&str> {
    let mut names = Vec::new();
    while let Some((header, rest)) = list.split_at_checked(46).filter(|(h, _)| h.starts_with(b"PK\x01\x02")) {
        let length = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
        let Some((name, rest)) = rest.split_at_checked(length(28)) else { break };
        names.extend(std::str::from_utf8(name));
        list = rest.get(length(30) + length(32)..).unwrap_or_default();
    }
    names
}

fn read_at(file: &mut File, at: u64, length: u64) -> Option<Vec<u8>> {
    file.seek(SeekFrom::Start(at)).ok()?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
