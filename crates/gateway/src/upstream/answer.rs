//! Answers of backends: their heads, and bodies that are too long to be held.

use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http::response::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use http_body::{Frame, SizeHint};
use tokio_util::io::poll_read_buf;

use super::Connection;
use crate::answer::strip_hop_by_hop;

const MOST_HEADERS: usize = 100;
const LONGEST_HEAD: usize = 64 << 10;
/// Of a streamed body, passed on at a time.
const PIECE: usize = 64 << 10;

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Parsed {
    /// Without what concerns the connection only.
    pub(super) parts: Parts,
    pub(super) is_kept: bool,
    /// The request is not sent to its end.
    pub(super) is_early: bool,
    length: Option<u64>,
    is_chunked: bool,
}

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunks,
    Close,
}

impl Parsed {
    /// It came before the request had been sent.
    pub(super) fn early(self) -> Self {
        Self { is_early: true, ..self }
    }

    /// RFC 9112 §6.3.
    pub(super) fn framing(&self, method: &Method) -> Framing {
        let has_none = *method == Method::HEAD
            || self.parts.status == StatusCode::NO_CONTENT
            || self.parts.status == StatusCode::NOT_MODIFIED;
        match self.length {
            _ if has_none => Framing::Length(0),
            _ if self.is_chunked => Framing::Chunks,
            Some(length) => Framing::Length(length),
            None => Framing::Close,
        }
    }
}

fn invalid(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

/// Takes the head of an answer off `read`; `None` if it is not whole yet. Interim answers are passed over.
///
/// # Errors
/// If what is there does not begin an answer.
pub(super) fn parse(read: &mut BytesMut) -> Result<Option<Parsed>, Error> {
    loop {
        if read.is_empty() {
            return Ok(None);
        }
        let mut headers = [const { std::mem::MaybeUninit::uninit() }; MOST_HEADERS];
        let mut answer = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let parsed = config.parse_response_with_uninit_headers(&mut answer, read, &mut headers);
        let length = match parsed.map_err(|_| invalid("no HTTP answer"))? {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial if read.len() > LONGEST_HEAD => return Err(invalid("a head without end")),
            httparse::Status::Partial => return Ok(None),
        };
        let status = StatusCode::from_u16(answer.code.unwrap_or_default()).map_err(|_| invalid("no status"))?;
        let is_current = answer.version == Some(1);
        // Values are parts of the head, which is not copied.
        let start = read.as_ptr() as usize;
        let place = |text: &[u8]| (text.as_ptr() as usize - start, text.len());
        let places: Vec<_> =
            answer.headers.iter().map(|h| (HeaderName::from_bytes(h.name.as_bytes()), place(h.value))).collect();
        let head = read.split_to(length).freeze();
        if status.is_informational() {
            continue;
        }
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.status = status;
        parts.version = Version::HTTP_11;
        parts.headers.reserve(places.len() + 3);
        for (name, (start, length)) in places {
            let name = name.map_err(|_| invalid("no header"))?;
            let value = HeaderValue::from_maybe_shared(head.slice(start..start + length));
            parts.headers.append(name, value.map_err(|_| invalid("no header value"))?);
        }
        return finish(parts, is_current).map(Some);
    }
}

fn finish(mut parts: Parts, is_current: bool) -> Result<Parsed, Error> {
    let headers = &parts.headers;
    let is_chunked = match headers.get_all(header::TRANSFER_ENCODING).iter().next_back() {
        Some(last) if last.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => true,
        Some(_) => return Err(invalid("a transfer coding that is unknown")),
        None => false,
    };
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = match lengths.next() {
        Some(value) => {
            let digits = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            let length = digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| invalid("no length"))?;
            if lengths.any(|other| other != value) {
                return Err(invalid("two lengths"));
            }
            Some(length)
        }
        None => None,
    };
    let says = |word: &[u8]| {
        let values = headers.get_all(header::CONNECTION).iter();
        values.flat_map(|v| v.as_bytes().split(|b| *b == b',')).any(|w| w.trim_ascii().eq_ignore_ascii_case(word))
    };
    let is_kept = if is_current { !says(b"close") } else { says(b"keep-alive") };
    // Two ways to say where it ends: what follows cannot be trusted.
    let is_kept = is_kept && !(is_chunked && length.is_some());
    strip_hop_by_hop(&mut parts.headers);
    if is_chunked {
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    Ok(Parsed { parts, is_kept, is_early: false, length, is_chunked })
}

/// A body that passes through.
#[derive(Debug)]
pub(crate) struct Streamed {
    connection: Connection,
    left: Left,
}

/// What is to come.
#[derive(Debug)]
enum Left {
    Length(u64),
    /// Of the chunk that is being read, its end included.
    Chunk(u64),
    /// The size of the next chunk.
    ChunkSize,
    /// Lines up to an empty one.
    Trailers,
    UntilClose,
    Nothing,
}

impl Streamed {
    pub(super) fn new(connection: Connection, framing: Framing) -> Self {
        let left = match framing {
            Framing::Length(0) => Left::Nothing,
            Framing::Length(length) => Left::Length(length),
            Framing::Chunks => Left::ChunkSize,
            Framing::Close => Left::UntilClose,
        };
        Self { connection, left }
    }

    /// Takes what is there of the body: `None` if more must be read first.
    fn take(&mut self) -> Result<Option<Bytes>, Error> {
        let read = &mut self.connection.read;
        loop {
            let here = |most: u64| usize::try_from(most).unwrap_or(usize::MAX).min(read.len());
            match self.left {
                Left::Nothing => return Ok(None),
                Left::UntilClose | Left::Length(_) | Left::Chunk(3..) if read.is_empty() => return Ok(None),
                Left::UntilClose => return Ok(Some(read.split().freeze())),
                Left::Length(left) => {
                    let bytes = read.split_to(here(left)).freeze();
                    let left = left - bytes.len() as u64;
                    self.left = if left == 0 { Left::Nothing } else { Left::Length(left) };
                    return Ok(Some(bytes));
                }
                Left::Chunk(left @ 3..) => {
                    let bytes = read.split_to(here(left - 2)).freeze();
                    self.left = Left::Chunk(left - bytes.len() as u64);
                    return Ok(Some(bytes));
                }
                Left::Chunk(left) => {
                    let bytes = here(left);
                    read.advance(bytes);
                    let left = left - bytes as u64;
                    if left > 0 {
                        self.left = Left::Chunk(left);
                        return Ok(None);
                    }
                    self.left = Left::ChunkSize;
                }
                Left::ChunkSize => match httparse::parse_chunk_size(read).map_err(|_| invalid("no chunk"))? {
                    httparse::Status::Complete((head, size)) => {
                        read.advance(head);
                        let size = size.checked_add(2).ok_or_else(|| invalid("a chunk without end"))?;
                        self.left = if size == 2 { Left::Trailers } else { Left::Chunk(size) };
                    }
                    httparse::Status::Partial if read.len() > LONGEST_HEAD => return Err(invalid("no chunk")),
                    httparse::Status::Partial => return Ok(None),
                },
                Left::Trailers => {
                    let Some(end) = read.iter().position(|b| *b == b'\n') else {
                        return if read.len() > LONGEST_HEAD { Err(invalid("no trailers")) } else { Ok(None) };
                    };
                    let line = read.split_to(end + 1);
                    if line.trim_ascii().is_empty() {
                        self.left = Left::Nothing;
                    }
                }
            }
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.left, Left::Nothing)
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.left {
            Left::Length(length) => SizeHint::with_exact(length),
            Left::Nothing => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            match self.take() {
                Ok(Some(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Ok(None) if self.is_over() => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            let Connection { stream, read, .. } = &mut self.connection;
            read.reserve(PIECE);
            match ready!(poll_read_buf(Pin::new(stream), cx, read)) {
                Ok(0) if matches!(self.left, Left::UntilClose) => self.left = Left::Nothing,
                Ok(0) => return Poll::Ready(Some(Err(ErrorKind::UnexpectedEof.into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Option<Parsed>, Error> {
        parse(&mut BytesMut::from(text))
    }

    #[test]
    fn a_head_is_taken_whole_or_not_at_all() {
        let head = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 Too Many\r\nContent-Length: 3\r\nConnection: x-a\r\nX-A: 1\r\nX-B: 2\r\n\r\n";
        let first = head.find("\r\n\r\n").unwrap() + 4;
        for end in 0..head.len() {
            let mut read = BytesMut::from(&head[..end]);
            assert!(parse(&mut read).unwrap().is_none(), "{end}");
            assert_eq!(read.len(), if end < first { end } else { end - first });
        }
        let mut read = BytesMut::from(format!("{head}abc").as_str());
        let Parsed { parts, is_kept, length, .. } = parse(&mut read).unwrap().unwrap();
        assert_eq!((parts.status.as_u16(), is_kept, length, &read[..]), (429, true, Some(3), &b"abc"[..]));
        assert_eq!((parts.headers.get("x-a"), parts.headers.get("x-b").unwrap().as_bytes()), (None, &b"2"[..]));
    }

    #[test]
    fn where_a_body_ends_follows_the_specification() {
        let framing = |text: &str| parsed(&format!("HTTP/1.1 {text}\r\n\r\n")).unwrap().unwrap();
        let of = |text: &str| framing(text).framing(&Method::POST);
        assert_eq!(of("200 OK\r\ncontent-length: 9"), Framing::Length(9));
        assert_eq!(of("200 OK\r\ntransfer-encoding: Chunked"), Framing::Chunks);
        assert_eq!(of("200 OK"), Framing::Close);
        assert_eq!(of("204 No\r\ncontent-length: 9"), Framing::Length(0));
        assert_eq!(framing("200 OK\r\ncontent-length: 9").framing(&Method::HEAD), Framing::Length(0));
        let both = framing("200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked");
        assert!(both.framing(&Method::POST) == Framing::Chunks && !both.is_kept);
        assert!(!both.parts.headers.contains_key("content-length"));
        assert!(!framing("200 OK\r\nconnection: keep-alive, Close").is_kept);
        for bad in [
            "200 OK\r\ncontent-length: +9",
            "200 OK\r\ncontent-length: 1\r\ncontent-length: 2",
            "99 no",
            "200 OK\r\ntransfer-encoding: gzip",
            "200 OK\r\ncontent-length: 99999999999999999999",
        ] {
            assert!(parsed(&format!("HTTP/1.1 {bad}\r\n\r\n")).is_err(), "{bad}");
        }
        assert!(parsed("SSH-2.0-OpenSSH").is_err());
        let old = parsed("HTTP/1.0 200 OK\r\n\r\n").unwrap().unwrap();
        assert!(!old.is_kept);
    }
}
