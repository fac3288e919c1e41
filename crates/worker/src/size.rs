//! Numbers of bytes as Kubernetes writes them, and as people read them.

use std::fmt;
use std::str::FromStr;

use modelyard_core::Quantity;

/// To show them in.
const UNITS: [(&str, u64); 4] = [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("Ti", 1 << 40)];

/// `20Gi`, `1.5G`, `1048576`: read as Kubernetes reads it, in whole bytes, and shown in binary units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ByteSize(pub(crate) u64);

impl ByteSize {
    /// As a size of memory.
    pub(crate) fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a size: use a number of bytes, or one with a unit: 500Mi, 20Gi, 1.5T")]
pub(crate) struct SizeError(String);

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(s: &str) -> Result<Self, SizeError> {
        let quantity: Quantity = s.parse().map_err(|_| SizeError(s.to_owned()))?;
        Ok(Self(quantity.units()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = UNITS.into_iter().rev().find(|(_, factor)| self.0 >= *factor);
        match binary {
            // In tenths, rounded down: 1023.9 MiB is not yet 1 GiB.
            Some((unit, factor)) => {
                let tenths = u128::from(self.0) * 10 / u128::from(factor);
                write!(f, "{}.{} {unit}B", tenths / 10, tenths % 10)
            }
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_kubernetes_writes_them() {
        let cases = [
            ("0", 0),
            ("1048576", 1 << 20),
            ("20Gi", 20 << 30),
            ("500Mi", 500 << 20),
            ("1.5Gi", 3 << 29),
            ("2G", 2_000_000_000),
            ("7k", 7_000),
            ("1Ti", 1 << 40),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse::<ByteSize>().unwrap(), ByteSize(bytes), "{text}");
        }
        for bad in ["", "Gi", "-1", "1 Gi", "1gi", "1KB", "1.2.3Gi", "99999999999999Ti"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_that_they_fill() {
        assert_eq!(ByteSize(1023).to_string(), "1023 bytes");
        assert_eq!(ByteSize(1536).to_string(), "1.5 KiB");
        assert_eq!(ByteSize(20 << 30).to_string(), "20.0 GiB");
        assert_eq!(ByteSize((1 << 30) - 1).to_string(), "1023.9 MiB");
    }
}
