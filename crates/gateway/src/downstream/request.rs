//! The head of a request, if it is a plain one.

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Uri, Version, header};

const MOST_HEADERS: usize = 64;
/// A head that is longer is hyper's affair, which has limits of its own.
const LONGEST_HEAD: usize = 32 << 10;

/// A request whose body is `length` bytes that follow its head.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) parts: Parts,
    pub(super) length: usize,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart where it is made: a box would cost an allocation a request"
)]
pub(super) enum Read {
    Plain(Plain),
    /// Not plain, or not even a request.
    Other,
    /// Its head is not whole yet.
    Partial,
}

/// Takes the head off `read`, if it is that of a plain request with a body of at most `most` bytes: HTTP/1.1, whose
/// body has a length, and nothing that concerns the connection but that it be kept.
pub(super) fn take(read: &mut BytesMut, most: usize) -> Read {
    let mut headers = [const { std::mem::MaybeUninit::uninit() }; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let head = match request.parse_with_uninit_headers(read, &mut headers) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if read.len() <= LONGEST_HEAD => return Read::Partial,
        Ok(httparse::Status::Partial) | Err(_) => return Read::Other,
    };
    let Some((method, length)) = plain(&request, most) else { return Read::Other };
    // Values and the path are parts of the head, which is not copied.
    let start = read.as_ptr() as usize;
    let place = |text: &[u8]| (text.as_ptr() as usize - start, text.len());
    let path = place(request.path.unwrap_or_default().as_bytes());
    let places: Vec<_> =
        request.headers.iter().map(|h| (HeaderName::from_bytes(h.name.as_bytes()), place(h.value))).collect();
    let whole = Bytes::copy_from_slice(read.get(..head).unwrap_or_default());
    let part = |(start, length): (usize, usize)| whole.slice(start..start + length);
    let Some(parts) = parts(method, part(path), places.into_iter().map(|(name, value)| (name.ok(), part(value))))
    else {
        return Read::Other;
    };
    bytes::Buf::advance(read, head);
    Read::Plain(Plain { parts, length })
}

/// The method and the length of the body.
fn plain(request: &httparse::Request<'_, '_>, most: usize) -> Option<(Method, usize)> {
    let method = match request.method? {
        "POST" => Method::POST,
        "GET" => Method::GET,
        "HEAD" => Method::HEAD,
        _ => return None,
    };
    if request.version != Some(1) {
        return None;
    }
    let mut length = None;
    for header in request.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            // More than one is for hyper to judge.
            let digits = std::str::from_utf8(header.value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            if length.replace(digits?.parse().ok()?).is_some() {
                return None;
            }
        } else if is("connection") {
            if !header.value.eq_ignore_ascii_case(b"keep-alive") {
                return None;
            }
        } else if is("transfer-encoding") || is("expect") || is("upgrade") {
            return None;
        }
    }
    let length = match length {
        Some(length) => length,
        None if method == Method::POST => return None,
        None => 0,
    };
    (length <= most).then_some((method, length))
}

fn parts(
    method: Method,
    path: Bytes,
    headers: impl ExactSizeIterator<Item = (Option<HeaderName>, Bytes)>,
) -> Option<Parts> {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = method;
    parts.uri = Uri::from_maybe_shared(path).ok()?;
    parts.version = Version::HTTP_11;
    parts.headers.reserve(headers.len());
    for (name, value) in headers {
        parts.headers.append(name?, HeaderValue::from_maybe_shared(value).ok()?);
    }
    // A request without a host is none (RFC 9112 §3.2).
    parts.headers.contains_key(header::HOST).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Read, String) {
        let mut bytes = BytesMut::from(text);
        let read = take(&mut bytes, 100);
        (read, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn a_plain_request_is_taken_and_what_follows_is_left() {
        let (found, rest) = read(
            "POST /v2/models/m/infer?x HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\nX-A:  b \r\nx-a: c\r\n\r\n{}GET",
        );
        let Read::Plain(Plain { parts, length }) = found else { panic!("{found:?}") };
        assert_eq!((length, rest.as_str(), parts.uri.to_string().as_str()), (2, "{}GET", "/v2/models/m/infer?x"));
        let values: Vec<_> = parts.headers.get_all("x-a").iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(values, [b"b", b"c"]);
        assert!(matches!(read("GET / HTTP/1.1\r\nhost: g\r\nconnection: Keep-Alive\r\n\r\n").0, Read::Plain(_)));
    }

    #[test]
    fn a_head_that_is_not_whole_is_waited_for() {
        let text = "POST / HTTP/1.1\r\nhost: g\r\ncontent-length: 0\r\n\r\n";
        for end in 1..text.len() {
            let (found, rest) = read(&text[..end]);
            assert!(matches!(found, Read::Partial) && rest.len() == end, "{end}");
        }
    }

    #[test]
    fn what_is_not_plain_is_left_as_it_came() {
        let others = [
            "POST / HTTP/1.0\r\nhost: g\r\ncontent-length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: g\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: g\r\ncontent-length: 101\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: g\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: g\r\ncontent-length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: g\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: g\r\ncontent-length: 1\r\nexpect: 100-continue\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: g\r\ncontent-length: 1\r\nconnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: g\r\nupgrade: h2c\r\n\r\n",
            "PUT / HTTP/1.1\r\nhost: g\r\ncontent-length: 0\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "nonsense\r\n\r\n",
        ];
        for text in others {
            let (found, rest) = read(text);
            assert!(matches!(found, Read::Other) && rest == text, "{text:?}: {found:?}");
        }
    }
}
