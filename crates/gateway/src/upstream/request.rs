//! The head of a request, as a backend gets it.

use std::io::Write as _;
use std::net::IpAddr;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, header};

use crate::answer::{REQUEST_ID, is_hop_by_hop, named_by_connection};

/// What the head of a request is made of.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    /// The client's.
    pub(crate) parts: &'a Parts,
    /// The backend's, as its `Host`.
    pub(crate) authority: &'a str,
    pub(crate) client: IpAddr,
    pub(crate) request_id: &'a HeaderValue,
}

impl Head<'_> {
    pub(super) fn method(&self) -> &Method {
        &self.parts.method
    }

    /// `length`: of the body in bytes; without one it goes in chunks.
    pub(super) fn write(&self, length: Option<u64>) -> Vec<u8> {
        let Parts { method, uri, headers, .. } = self.parts;
        let mut out = Vec::with_capacity(1024);
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        out.extend_from_slice(method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(path.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
        out.extend_from_slice(self.authority.as_bytes());
        out.extend_from_slice(b"\r\n");
        let of_connection = named_by_connection(headers);
        for (name, value) in headers {
            if is_ours(name) || is_hop_by_hop(name) || of_connection.contains(name) {
                continue;
            }
            line(&mut out, name, value);
        }
        line(&mut out, &REQUEST_ID, self.request_id);
        // Writing to memory does not fail.
        write!(out, "x-forwarded-for: {}\r\n", self.client).ok();
        match length {
            Some(0) if *method != Method::POST => {}
            Some(length) => drop(write!(out, "content-length: {length}\r\n")),
            None => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        }
        out.extend_from_slice(b"\r\n");
        out
    }
}

/// What is said anew to each backend.
fn is_ours(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH, header::EXPECT].contains(name) || *name == REQUEST_ID
}

fn line(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(request: http::request::Builder, length: Option<u64>) -> String {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let request_id = HeaderValue::from_static("id-1");
        let client = "10.0.0.9".parse().unwrap();
        let head = Head { parts: &parts, authority: "10.0.0.1:80", client, request_id: &request_id };
        String::from_utf8(head.write(length)).unwrap()
    }

    #[test]
    fn a_backend_gets_the_clients_headers_without_what_concerns_its_connection() {
        let request = http::Request::post("http://gateway:8000/v2/models/m/infer?x=1")
            .header("host", "gateway:8000")
            .header("connection", "close, x-own")
            .header("x-own", "1")
            .header("keep-alive", "timeout=5")
            .header("transfer-encoding", "chunked")
            .header("expect", "100-continue")
            .header("x-request-id", "theirs")
            .header("content-length", "7")
            .header("x-forwarded-for", "192.0.2.1")
            .header("content-type", "application/json");
        let expected = "POST /v2/models/m/infer?x=1 HTTP/1.1\r\nhost: 10.0.0.1:80\r\nx-forwarded-for: 192.0.2.1\r\n\
                        content-type: application/json\r\nx-request-id: id-1\r\nx-forwarded-for: 10.0.0.9\r\n\
                        content-length: 7\r\n\r\n";
        assert_eq!(written(request, Some(7)), expected);
    }

    #[test]
    fn the_bodys_length_is_said_where_it_is_known() {
        let get = || http::Request::get("/v2");
        assert!(!written(get(), Some(0)).contains("content-length"));
        assert!(written(http::Request::post("/"), Some(0)).contains("content-length: 0\r\n"));
        assert!(written(http::Request::post("/"), None).contains("transfer-encoding: chunked\r\n"));
    }
}
