//! HTTP/1.1 by hand: what goes over the wire is what a test says, whatever a library would have made of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use modelyard_core::{EvidenceReport, RouteTable};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Behaviour, PATIENCE};

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// Empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> String {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()).unwrap_or_default()
    }
}

/// The head of a message: its first line and its headers, names in lower case. `None` at the end of the connection.
async fn head(stream: &mut BufReader<TcpStream>) -> Option<(String, Vec<(String, String)>)> {
    let mut first = String::new();
    stream.read_line(&mut first).await.ok().filter(|n| *n > 0)?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|n| *n > 0)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_lowercase(), value.trim().to_owned())),
            None => return Some((first.trim_end().to_owned(), headers)),
        }
    }
}

async fn body(stream: &mut BufReader<TcpStream>, headers: &[(String, String)]) -> Option<Vec<u8>> {
    let length = headers.iter().find(|(n, _)| n == "content-length").map_or(0, |(_, v)| v.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(body)
}

/// A request that was sent.
pub(crate) struct Asked(BufReader<TcpStream>);

impl Asked {
    pub(crate) async fn answer(mut self) -> Answer {
        let answer = async {
            let (status, headers) = head(&mut self.0).await.expect("an answer");
            let body = body(&mut self.0, &headers).await.expect("a whole body");
            let status = status.split(' ').nth(1).unwrap().parse().unwrap();
            Answer { status, headers, body: String::from_utf8(body).unwrap() }
        };
        timeout(PATIENCE, answer).await.expect("the answer comes")
    }
}

pub(crate) async fn post(address: SocketAddr, path: &str, headers: &str, body: &[u8]) -> Asked {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: test\r\n{headers}content-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // A refused body may be cut off: the answer tells.
    stream.write_all(body).await.ok();
    Asked(BufReader::new(stream))
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).await.ok()?;
    Some(Asked(BufReader::new(stream)).answer().await)
}

/// A backend; counts the requests that reach it.
pub(crate) async fn backend(behaviour: Behaviour, asked: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let asked = asked.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                while let Some((line, headers)) = head(&mut stream).await {
                    let Some(body) = body(&mut stream, &headers).await else { return };
                    asked.fetch_add(1, Ordering::Relaxed);
                    if !answer(&mut stream, behaviour, &line, body.len()).await {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Answers as scripted; false if the connection is to be closed.
async fn answer(stream: &mut BufReader<TcpStream>, behaviour: Behaviour, asked: &str, asked_with: usize) -> bool {
    let (status, text) = match behaviour {
        Behaviour::Repeat => (200, asked.to_owned()),
        Behaviour::Described(outputs, text) => {
            let head = format!("HTTP/1.1 200 OK\r\nx-modelyard-outputs: {outputs}\r\ncontent-length: {}", text.len());
            return stream.write_all(format!("{head}\r\n\r\n{text}").as_bytes()).await.is_ok();
        }
        Behaviour::Ok(text) => (200, text.to_owned()),
        Behaviour::Status(status) => (status, "{\"error\":\"scripted\"}".to_owned()),
        Behaviour::CountBody => (200, asked_with.to_string()),
        Behaviour::Slow(time, text) => {
            tokio::time::sleep(time).await;
            (200, text.to_owned())
        }
        Behaviour::BreakOff => return false,
        Behaviour::HalfAnAnswer => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await.ok();
            return false;
        }
    };
    let answer = format!("HTTP/1.1 {status} Scripted\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    stream.write_all(answer.as_bytes()).await.is_ok()
}

/// Streams the tables that it is told, and keeps the last report. Says whether its lease has lapsed.
pub(crate) async fn control_plane(
    listener: TcpListener,
    tables: watch::Receiver<Option<RouteTable>>,
    reports: watch::Sender<Option<EvidenceReport>>,
    lapsed: Arc<AtomicBool>,
) {
    // Connections end with it.
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tables, reports, lapsed) = (tables.clone(), reports.clone(), lapsed.clone());
        connections.spawn(async move {
            let mut stream = BufReader::new(stream);
            while let Some((line, headers)) = head(&mut stream).await {
                let office = if lapsed.load(Ordering::Relaxed) { "x-modelyard-office: lapsed\r\n" } else { "" };
                if line.starts_with("GET /internal/v1/routes?gateway=") {
                    return stream_tables(stream, tables, office).await;
                }
                let Some(body) = body(&mut stream, &headers).await else { return };
                reports.send_replace(Some(serde_json::from_slice(&body).unwrap()));
                stream.write_all(format!("HTTP/1.1 204 No Content\r\n{office}\r\n").as_bytes()).await.ok();
            }
        });
    }
}

async fn stream_tables(
    mut stream: BufReader<TcpStream>,
    mut tables: watch::Receiver<Option<RouteTable>>,
    office: &str,
) {
    stream.write_all(format!("HTTP/1.1 200 OK\r\n{office}transfer-encoding: chunked\r\n\r\n").as_bytes()).await.ok();
    tables.mark_changed();
    while tables.changed().await.is_ok() {
        let table = tables.borrow_and_update().clone();
        let line = table.map(|t| serde_json::to_string(&t).unwrap()).unwrap_or_default() + "\n";
        if stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).await.is_err() {
            return;
        }
    }
}
