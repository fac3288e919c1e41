//! Answers, as a client gets them.

use std::io::Write as _;
use std::time::SystemTime;

use bytes::{Buf as _, Bytes};
use http::response::Parts;
use http::{Method, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::answer::{Answer, AnswerBody};

/// A body up to this is copied behind its head, which costs less than two buffers do.
const COPIED: usize = 16 << 10;

/// Whether the connection is closed after this answer.
pub(super) fn is_last(answer: &Answer) -> bool {
    answer.headers().get(header::CONNECTION).is_some_and(|value| value.as_bytes() == b"close")
}

/// # Errors
/// If the connection breaks, or the body does: then the client has to see that it is not whole.
pub(super) async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    method: &Method,
    answer: Answer,
    is_last: bool,
) -> std::io::Result<()> {
    let (parts, mut body) = answer.into_parts();
    let is_empty = *method == Method::HEAD || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length =
        if is_empty { parts.headers.get(header::CONTENT_LENGTH).and_then(number) } else { body.size_hint().exact() };
    let mut out = head(&parts, length, is_empty, is_last);
    if is_empty {
        stream.write_all(&out).await?;
        return stream.flush().await;
    }
    match &mut body {
        AnswerBody::Whole { bytes, .. } => {
            let bytes = bytes.take().unwrap_or_default();
            if bytes.len() <= COPIED {
                out.extend_from_slice(&bytes);
                stream.write_all(&out).await?;
            } else {
                stream.write_all_buf(&mut Bytes::from(out).chain(bytes)).await?;
            }
        }
        AnswerBody::Streamed(_) => {
            stream.write_all(&out).await?;
            pass_on(stream, &mut body, length.is_none()).await?;
        }
    }
    stream.flush().await
}

fn number(value: &http::HeaderValue) -> Option<u64> {
    value.to_str().ok()?.parse().ok()
}

async fn pass_on<S: AsyncWrite + Unpin>(
    stream: &mut S,
    body: &mut AnswerBody,
    is_chunked: bool,
) -> std::io::Result<()> {
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if is_chunked {
            let size = Bytes::from(format!("{:x}\r\n", data.len()));
            stream.write_all_buf(&mut size.chain(data).chain(&b"\r\n"[..])).await?;
        } else {
            stream.write_all(&data).await?;
        }
    }
    if is_chunked { stream.write_all(b"0\r\n\r\n").await } else { Ok(()) }
}

/// `length`: of the body in bytes; without one it goes in chunks, unless there is none.
fn head(parts: &Parts, length: Option<u64>, is_empty: bool, is_last: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    // Writing to memory does not fail.
    write!(out, "HTTP/1.1 {} {}\r\n", parts.status.as_str(), parts.status.canonical_reason().unwrap_or("Other")).ok();
    for (name, value) in &parts.headers {
        if [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION].contains(name) {
            continue;
        }
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if !parts.headers.contains_key(header::DATE) {
        write!(out, "date: {}\r\n", httpdate::fmt_http_date(SystemTime::now())).ok();
    }
    match length {
        Some(length) if parts.status != StatusCode::NO_CONTENT => drop(write!(out, "content-length: {length}\r\n")),
        None if !is_empty => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        _ => {}
    }
    if is_last {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn written(method: Method, answer: Answer) -> String {
        let mut out = Vec::new();
        write(&mut out, &method, answer, false).await.unwrap();
        String::from_utf8(out).unwrap()
    }

    fn answer(status: u16, body: &'static str) -> Answer {
        let answer = http::Response::builder().status(status).header("date", "then").header("content-length", "2");
        answer.header("x-a", "b").body(AnswerBody::whole(body.into())).unwrap()
    }

    #[tokio::test]
    async fn an_answer_says_how_long_it_is_and_head_gets_no_body() {
        let head = "HTTP/1.1 200 OK\r\ndate: then\r\nx-a: b\r\ncontent-length: 2\r\n\r\n";
        assert_eq!(written(Method::POST, answer(200, "ok")).await, format!("{head}ok"));
        assert_eq!(written(Method::HEAD, answer(200, "")).await, head);
        assert_eq!(
            written(Method::POST, answer(204, "")).await,
            "HTTP/1.1 204 No Content\r\ndate: then\r\nx-a: b\r\n\r\n"
        );
        assert!(
            written(Method::GET, Answer::new(AnswerBody::whole(Bytes::new()))).await.contains("content-length: 0\r\n")
        );
        let long = written(Method::POST, answer(200, Box::leak("x".repeat(100_000).into_boxed_str()))).await;
        assert!(long.contains("content-length: 100000\r\n\r\nxxx") && long.ends_with("xxx"));
    }
}
