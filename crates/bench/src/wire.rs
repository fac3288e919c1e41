//! HTTP/1.1 as little as it takes: a message is its head, and a body by `Content-Length` or in chunks.

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _};

const MOST_HEADERS: usize = 64;
const READ: usize = 64 << 10;

/// Reads messages off a connection. What follows one is kept for the next.
pub(crate) struct Reader<R> {
    stream: R,
    buffer: Vec<u8>,
    /// Where the next message begins.
    start: usize,
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message {
    /// Of an answer; 0 of a request.
    pub(crate) status: u16,
    /// The bytes of its body; those of one in chunks are not counted.
    pub(crate) body: usize,
}

#[derive(Clone, Copy)]
enum Length {
    Known(usize),
    Chunks,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self { stream, buffer: Vec::with_capacity(READ), start: 0 }
    }

    /// The next request, read whole. `None` at the end of the connection.
    pub(crate) async fn request(&mut self) -> anyhow::Result<Option<Message>> {
        self.message(|bytes| {
            let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
            let mut request = httparse::Request::new(&mut headers);
            Ok(match request.parse(bytes)? {
                httparse::Status::Complete(head) => Some((head, 0, length(request.headers)?)),
                httparse::Status::Partial => None,
            })
        })
        .await
    }

    /// The next answer, read whole. `None` at the end of the connection.
    pub(crate) async fn response(&mut self) -> anyhow::Result<Option<Message>> {
        self.message(|bytes| {
            let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            Ok(match response.parse(bytes)? {
                httparse::Status::Complete(head) => {
                    Some((head, response.code.unwrap_or_default(), length(response.headers)?))
                }
                httparse::Status::Partial => None,
            })
        })
        .await
    }

    async fn message(
        &mut self,
        parse: impl Fn(&[u8]) -> anyhow::Result<Option<(usize, u16, Length)>>,
    ) -> anyhow::Result<Option<Message>> {
        let (head, status, length) = loop {
            if self.start < self.buffer.len()
                && let Some(parsed) = parse(self.rest())?
            {
                break parsed;
            }
            if self.read().await? == 0 {
                ensure!(self.start == self.buffer.len(), "the connection ended in the middle of a head");
                return Ok(None);
            }
        };
        self.start += head;
        let body = match length {
            Length::Known(length) => {
                self.skip(length).await?;
                length
            }
            Length::Chunks => {
                while self.chunk().await? > 0 {}
                0
            }
        };
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
        Ok(Some(Message { status, body }))
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    async fn read(&mut self) -> anyhow::Result<usize> {
        if self.start > READ {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.reserve(READ);
        Ok(self.stream.read_buf(&mut self.buffer).await?)
    }

    /// Passes over so many bytes, without keeping them all.
    async fn skip(&mut self, mut bytes: usize) -> anyhow::Result<()> {
        loop {
            let here = bytes.min(self.rest().len());
            self.start += here;
            bytes -= here;
            if bytes == 0 {
                return Ok(());
            }
            self.buffer.clear();
            self.start = 0;
            ensure!(self.read().await? > 0, "the connection ended in the middle of a body");
        }
    }

    /// Passes over one chunk, and says how long it was.
    async fn chunk(&mut self) -> anyhow::Result<usize> {
        loop {
            match httparse::parse_chunk_size(self.rest()) {
                Ok(httparse::Status::Complete((head, size))) => {
                    self.start += head;
                    let size = usize::try_from(size)?;
                    self.skip(size + 2).await?;
                    return Ok(size);
                }
                Ok(httparse::Status::Partial) => {
                    ensure!(self.read().await? > 0, "the connection ended in the middle of a chunk");
                }
                Err(_) => bail!("a chunk has no length"),
            }
        }
    }
}

fn length(headers: &[httparse::Header<'_>]) -> anyhow::Result<Length> {
    let value = |name: &str| headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|h| h.value);
    if value("transfer-encoding").is_some() {
        return Ok(Length::Chunks);
    }
    let Some(text) = value("content-length") else { return Ok(Length::Known(0)) };
    Ok(Length::Known(std::str::from_utf8(text)?.trim().parse().context("not a length")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answers(bytes: &[u8]) -> Vec<Message> {
        // In pieces of every size, so that each boundary is met.
        let mut all = Vec::new();
        for piece in [1, 3, 7, bytes.len()] {
            let (mut write, read) = tokio::io::duplex(piece);
            let bytes = bytes.to_vec();
            let writing = async move { tokio::io::AsyncWriteExt::write_all(&mut write, &bytes).await.unwrap() };
            let reading = async {
                let mut reader = Reader::new(read);
                let mut found = Vec::new();
                while let Some(message) = reader.response().await.unwrap() {
                    found.push(message);
                }
                found
            };
            all.push(tokio::join!(writing, reading).1);
        }
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
        all.remove(0)
    }

    #[tokio::test]
    async fn answers_of_both_kinds_follow_each_other() {
        let bytes =
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 429 No\r\ntransfer-encoding: chunked\r\n\r\n\
                      5\r\nhello\r\n0\r\n\r\nHTTP/1.1 204 None\r\n\r\n";
        let of = |status, body| Message { status, body };
        assert_eq!(answers(bytes).await, [of(200, 5), of(429, 0), of(204, 0)]);
    }
}
