//! What the headers of a message say of its body: where its JSON ends, and how it is compressed. Knows no HTTP types.

use std::borrow::Cow;
use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

/// How much of a body, before compression, is JSON; tensors as bytes follow.
pub const JSON_LENGTH: &str = "inference-header-content-length";
/// What the server's metadata calls that.
pub const BINARY_EXTENSION: &str = "binary_tensor_data";

/// Shorter answers are not worth the time, whoever says that they would take them compressed: many clients always do.
const WORTH_COMPRESSING: usize = 1 << 10;

/// Of a compressed body: what numbers as text or as bytes do not exceed. A few bytes may hold gigabytes, and a request so
/// short would be asked of one worker after the other.
const PLAUSIBLE_RATIO: usize = 32;
/// What any body may hold, however well it is compressed: tensors of zeros.
const ALWAYS_ALLOWED: usize = 8 << 20;

/// A content coding of HTTP (RFC 9110 §8.4.1); `deflate` is zlib's form, as there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Coding {
    #[default]
    Identity,
    Gzip,
    Deflate,
}

/// How a body is to be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Framing {
    pub json_length: Option<usize>,
    pub coding: Coding,
}

#[derive(Debug, thiserror::Error)]
pub enum FramingError {
    #[error("Inference-Header-Content-Length must be a number of bytes")]
    JsonLength,
    #[error("a body encoded as `{0}` is not taken: use gzip, deflate, or none")]
    Coding(String),
    #[error("the body is not valid {0}")]
    Broken(&'static str),
    #[error("the body is larger than {0} bytes when it is decompressed")]
    TooLarge(usize),
}

impl Coding {
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Deflate => Some("deflate"),
        }
    }

    /// Of a value of `Content-Encoding`.
    ///
    /// # Errors
    /// If it is none that is known.
    pub fn parse(text: &str) -> Result<Self, FramingError> {
        match text.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            other => Err(FramingError::Coding(other.chars().take(40).collect())),
        }
    }

    /// The first that a value of `Accept-Encoding` names and does not refuse (`q=0`).
    pub fn accepted(text: &str) -> Self {
        let offers = text.split(',').filter_map(|offer| {
            let (name, parameters) = offer.split_once(';').unwrap_or((offer, ""));
            let weight = parameters.trim().to_ascii_lowercase();
            let weight = weight.strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok());
            (weight != Some(0.0)).then(|| Self::parse(name).ok()).flatten()
        });
        offers.into_iter().find(|coding| *coding != Self::Identity).unwrap_or_default()
    }

    /// The body as it was, if that is at most `limit` bytes, and no more than such a body plausibly holds.
    ///
    /// # Errors
    /// If it is not of this coding, or longer.
    pub fn decode(self, body: &[u8], limit: usize) -> Result<Cow<'_, [u8]>, FramingError> {
        let limit = limit.min(body.len().saturating_mul(PLAUSIBLE_RATIO).max(ALWAYS_ALLOWED));
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        let mut plain = Vec::new();
        let (read, name) = match self {
            Self::Identity => return Ok(Cow::Borrowed(body)),
            Self::Gzip => (MultiGzDecoder::new(body).take(most).read_to_end(&mut plain), "gzip"),
            Self::Deflate => (ZlibDecoder::new(body).take(most).read_to_end(&mut plain), "deflate"),
        };
        read.map_err(|_| FramingError::Broken(name))?;
        if plain.len() > limit {
            return Err(FramingError::TooLarge(limit));
        }
        Ok(Cow::Owned(plain))
    }

    /// The body, and the coding that it has: an answer that is short stays as it is.
    pub fn encode(self, body: Vec<u8>) -> (Vec<u8>, Self) {
        if self == Self::Identity || body.len() < WORTH_COMPRESSING {
            return (body, Self::Identity);
        }
        let room = Vec::with_capacity(body.len() / 2);
        let compressed = match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(room, Compression::fast());
                encoder.write_all(&body).and_then(|()| encoder.finish())
            }
            _ => {
                let mut encoder = ZlibEncoder::new(room, Compression::fast());
                encoder.write_all(&body).and_then(|()| encoder.finish())
            }
        };
        // Writing to memory does not fail.
        compressed.map_or((body, Self::Identity), |compressed| (compressed, self))
    }
}

impl Framing {
    /// From the values of `Inference-Header-Content-Length` and `Content-Encoding`.
    ///
    /// # Errors
    /// If one of them is not understood.
    pub fn read(json_length: Option<&str>, coding: Option<&str>) -> Result<Self, FramingError> {
        let number = |text: &str| text.trim().parse().map_err(|_| FramingError::JsonLength);
        Ok(Self {
            json_length: json_length.map(number).transpose()?,
            coding: coding.map_or(Ok(Coding::Identity), Coding::parse)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_comes_back_as_it_was() {
        let body: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        for coding in [Coding::Gzip, Coding::Deflate] {
            let (compressed, made) = coding.encode(body.clone());
            assert_eq!(made, coding);
            assert!(compressed.len() < body.len());
            assert_eq!(coding.decode(&compressed, body.len()).unwrap(), body);
        }
        assert_eq!(Coding::Gzip.encode(vec![1; 10]), (vec![1; 10], Coding::Identity));
    }

    #[test]
    fn a_body_that_grows_beyond_the_limit_or_is_damaged_is_refused() {
        let (bomb, _) = Coding::Gzip.encode(vec![0; 20 << 20]);
        assert!(bomb.len() < 200_000);
        let beyond = Coding::Gzip.decode(&bomb, usize::MAX).unwrap_err().to_string();
        assert_eq!(beyond, "the body is larger than 8388608 bytes when it is decompressed");
        let refused = |body: &[u8]| Coding::Gzip.decode(body, 1 << 20).unwrap_err().to_string();
        assert_eq!(refused(&bomb), "the body is larger than 1048576 bytes when it is decompressed");
        assert_eq!(refused(b"not at all"), "the body is not valid gzip");
        assert_eq!(refused(&bomb[..50]), "the body is not valid gzip");
    }

    #[test]
    fn headers_are_read_as_http_has_them() {
        assert_eq!(Coding::accepted("gzip, deflate, br"), Coding::Gzip);
        assert_eq!(Coding::accepted("br;q=1.0, deflate;q=0.5"), Coding::Deflate);
        assert_eq!(Coding::accepted("gzip;q=0, identity"), Coding::Identity);
        let framing = Framing::read(Some("17"), Some("GZIP")).unwrap();
        assert_eq!(framing, Framing { json_length: Some(17), coding: Coding::Gzip });
        assert!(Framing::read(Some("-1"), None).is_err());
        assert_eq!(
            Framing::read(None, Some("br")).unwrap_err().to_string(),
            "a body encoded as `br` is not taken: use gzip, deflate, or none"
        );
    }
}
