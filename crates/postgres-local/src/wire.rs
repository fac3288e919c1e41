//! Speaks just enough of PostgreSQL's protocol to run one statement, so that no client program is needed.
//!
//! Source: PostgreSQL documentation, "Frontend/Backend Protocol", version 3.0, simple query. Only `trust`
//! authentication, which is how our own clusters are made. Rows are skipped.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::error::Error;

/// The superuser of our clusters.
pub(crate) const USER: &str = "modelyard";
const TIMEOUT: Duration = Duration::from_secs(30);
/// No message that we expect is longer; a longer one means that this is no PostgreSQL.
const LONGEST: usize = 1 << 20;

/// Connects to 127.0.0.1, runs `sql` (empty: connects only) in `database`, and disconnects.
pub(crate) fn run(port: u16, database: &str, sql: &str) -> Result<(), Error> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let io = |source| Error::Io { what: format!("cannot talk to PostgreSQL on {address}"), source };
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(io)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(io)?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(io)?;

    let parameters = format!("user\0{USER}\0database\0{database}\0\0");
    let version = 196_608_u32.to_be_bytes();
    stream.write_all(&framed(None, &[&version, parameters.as_bytes()].concat())).map_err(io)?;
    until_ready(&mut stream, io)?;
    if !sql.is_empty() {
        stream.write_all(&framed(Some(b'Q'), format!("{sql}\0").as_bytes())).map_err(io)?;
        until_ready(&mut stream, io)?;
    }
    stream.write_all(&framed(Some(b'X'), &[])).map_err(io)
}

/// A message: its kind (the first message has none), its length including the length itself, its body.
fn framed(kind: Option<u8>, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("statements are short");
    kind.into_iter().chain(length.to_be_bytes()).chain(body.iter().copied()).collect()
}

/// Reads messages up to ReadyForQuery (`Z`). An error response (`E`) is kept and returned; after one that ends the
/// connection there is no `Z`.
fn until_ready(stream: &mut impl Read, io: impl Fn(std::io::Error) -> Error) -> Result<(), Error> {
    let mut refused = None;
    loop {
        let mut head = [0; 5];
        if let Err(error) = stream.read_exact(&mut head) {
            return Err(refused.unwrap_or_else(|| io(error)));
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if !(4..LONGEST).contains(&length) {
            return Err(io(std::io::Error::new(std::io::ErrorKind::InvalidData, "no PostgreSQL answers there")));
        }
        let mut body = vec![0; length - 4];
        stream.read_exact(&mut body).map_err(&io)?;
        match head[0] {
            b'E' => refused = Some(refusal(&body)),
            b'Z' => return refused.map_or(Ok(()), Err),
            _ => {}
        }
    }
}

/// Fields of an error response: a letter each, then text up to a zero byte. `C` is the SQLSTATE, `M` the message.
fn refusal(body: &[u8]) -> Error {
    let field = |letter: u8| {
        body.split(|byte| *byte == 0)
            .find(|field| field.first() == Some(&letter))
            .map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
            .unwrap_or_default()
    };
    Error::Refused { code: field(b'C'), message: field(b'M') }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_response_is_taken_apart() {
        let Error::Refused { code, message } = refusal(b"SERROR\0C42P04\0Mdatabase \"a\" already exists\0\0") else {
            panic!("not a refusal")
        };
        assert_eq!((code.as_str(), message.as_str()), ("42P04", "database \"a\" already exists"));
    }

    #[test]
    fn an_answer_that_is_no_postgresql_is_refused() {
        let mut http: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        let io = |source| Error::Io { what: "x".to_owned(), source };
        assert!(matches!(until_ready(&mut http, io), Err(Error::Io { .. })));
    }
}
