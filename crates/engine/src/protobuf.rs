//! Protocol Buffers by hand, straight from a file: seeks over what nobody asks for, so that a model's weights are
//! never read. Knows the encoding, not what is encoded.

use std::fs::File;
use std::io::{self, BufReader, Read as _};

use crate::error::LoadError;

/// The longest string that is read, in bytes: names are short.
const LONGEST_STRING: u64 = 1 << 16;

/// How a field's value is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Varint,
    Fixed64,
    Bytes,
    Fixed32,
}

/// A field whose value is yet to be read or skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) number: u64,
    pub(crate) wire: Wire,
}

pub(crate) struct Reader {
    file: BufReader<File>,
    at: u64,
    length: u64,
    /// What a file is not, whose encoding is broken.
    broken: fn(String) -> LoadError,
}

impl Reader {
    /// `broken` makes the error for a file with a broken encoding.
    pub(crate) fn new(file: File, broken: fn(String) -> LoadError) -> Result<Self, LoadError> {
        let length = file.metadata().map_err(LoadError::Io)?.len();
        Ok(Self { file: BufReader::new(file), at: 0, length, broken })
    }

    /// The length of the file in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The next field of a message that ends at `end`; `None` if that is here.
    pub(crate) fn field(&mut self, end: u64) -> Result<Option<Field>, LoadError> {
        if self.at >= end {
            return if self.at == end { Ok(None) } else { Err(self.malformed("a field overruns its message")) };
        }
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Bytes,
            5 => Wire::Fixed32,
            _ => return Err(self.malformed("no such encoding of a field")),
        };
        match tag >> 3 {
            0 => Err(self.malformed("no field has number 0")),
            number => Ok(Some(Field { number, wire })),
        }
    }

    pub(crate) fn varint(&mut self) -> Result<u64, LoadError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.file.read_exact(&mut byte).map_err(|error| self.io(error))?;
            self.at += 1;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(value);
            }
        }
        Err(self.malformed("a number of more than 64 bits"))
    }

    /// Where the message that starts here ends.
    pub(crate) fn message(&mut self) -> Result<u64, LoadError> {
        let length = self.varint()?;
        let end = self.at.checked_add(length).ok_or_else(|| self.malformed("an absurd length"))?;
        if end > self.length {
            return Err(LoadError::Truncated(format!(
                "a part of it reaches from byte {} to byte {end}, but it has {} bytes",
                self.at, self.length
            )));
        }
        Ok(end)
    }

    pub(crate) fn string(&mut self) -> Result<String, LoadError> {
        let end = self.message()?;
        let length = end - self.at;
        if length > LONGEST_STRING {
            return Err(self.malformed("a name of absurd length"));
        }
        let mut bytes = Vec::new();
        self.file.by_ref().take(length).read_to_end(&mut bytes).map_err(LoadError::Io)?;
        self.at = end;
        String::from_utf8(bytes).map_err(|_| self.malformed("a name that is not UTF-8"))
    }

    /// A field of raw bytes, which cannot be longer than the file.
    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, LoadError> {
        let end = self.message()?;
        let mut bytes = Vec::new();
        self.file.by_ref().take(end - self.at).read_to_end(&mut bytes).map_err(LoadError::Io)?;
        self.at = end;
        Ok(bytes)
    }

    pub(crate) fn fixed32(&mut self) -> Result<[u8; 4], LoadError> {
        let mut bytes = [0; 4];
        self.file.read_exact(&mut bytes).map_err(|error| self.io(error))?;
        self.at += 4;
        Ok(bytes)
    }

    pub(crate) fn fixed64(&mut self) -> Result<[u8; 8], LoadError> {
        let mut bytes = [0; 8];
        self.file.read_exact(&mut bytes).map_err(|error| self.io(error))?;
        self.at += 8;
        Ok(bytes)
    }

    /// How far it has read, in bytes.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    pub(crate) fn skip(&mut self, wire: Wire) -> Result<(), LoadError> {
        match wire {
            Wire::Varint => self.varint().map(drop),
            Wire::Fixed64 => self.skip_to(self.at + 8),
            Wire::Fixed32 => self.skip_to(self.at + 4),
            Wire::Bytes => {
                let end = self.message()?;
                self.skip_to(end)
            }
        }
    }

    pub(crate) fn skip_to(&mut self, end: u64) -> Result<(), LoadError> {
        if end > self.length {
            return Err(LoadError::Truncated(format!("it ends in the middle of a number, at byte {}", self.length)));
        }
        // Files are shorter than i64::MAX bytes.
        self.file.seek_relative((end - self.at).cast_signed()).map_err(LoadError::Io)?;
        self.at = end;
        Ok(())
    }

    pub(crate) fn malformed(&self, problem: &str) -> LoadError {
        (self.broken)(format!("its Protocol Buffers encoding is broken before byte {} ({problem})", self.at))
    }

    fn io(&self, error: io::Error) -> LoadError {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            LoadError::Truncated(format!("it ends in the middle of a number, at byte {}", self.length))
        } else {
            LoadError::Io(error)
        }
    }
}
