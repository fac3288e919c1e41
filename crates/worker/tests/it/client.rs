//! As much of an HTTP client as the tests need, so that they can stop in the middle of a request.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Lower-case names.
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A request that is being sent.
pub(crate) struct Sending {
    stream: TcpStream,
}

impl Sending {
    /// Sends the head of a request, which announces `length` bytes of body.
    pub(crate) fn head(address: SocketAddr, method: &str, path: &str, length: usize) -> std::io::Result<Self> {
        Self::with(address, method, path, &format!("content-length: {length}\r\n"))
    }

    /// With these header fields, each of which ends its line.
    pub(crate) fn with(address: SocketAddr, method: &str, path: &str, fields: &str) -> std::io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: {address}\r\n{fields}\r\n")?;
        Ok(Self { stream })
    }

    pub(crate) fn body(&mut self, part: &str) -> std::io::Result<()> {
        self.stream.write_all(part.as_bytes())
    }

    pub(crate) fn answer(self) -> std::io::Result<Answer> {
        let mut reader = BufReader::new(self.stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other(format!("no status in {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
                None => break,
            }
        }
        let length = headers.iter().find(|(n, _)| n == "content-length").and_then(|(_, v)| v.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        Ok(Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

/// With headers of its own, and a body of any bytes.
pub(crate) fn call_with(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {address}\r\n{headers}content-length: {length}\r\n\r\n")?;
    stream.write_all(body)?;
    Sending { stream }.answer()
}

pub(crate) fn call(address: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
    let mut sending = Sending::head(address, method, path, body.len())?;
    sending.body(body)?;
    sending.answer()
}
