//! A server of artifacts that does to its clients what a test tells it to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) path: String,
    /// The first byte that was asked for.
    pub(crate) from: Option<usize>,
    pub(crate) authorization: Option<String>,
}

pub(crate) enum Reply {
    /// The content, from where it was asked for.
    Content(Vec<u8>),
    /// The same, but no more than that many bytes of it before the connection breaks.
    Broken(Vec<u8>, usize),
    /// All of it, whatever was asked for.
    WithoutRanges(Vec<u8>),
    /// Half of it, and the rest once the gate is open.
    Halting(Vec<u8>, Gate),
    Status(u16, &'static str),
    Redirect(String),
    /// That many zeros.
    Zeros(u64),
}

/// Closed until it is opened, for good.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        drop(self.0.1.wait_while(self.0.0.lock().unwrap(), |open| !*open).unwrap());
    }
}

pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Origin {
    /// `reply` gets the number of the request, from 0, and the request.
    pub(crate) fn start(reply: impl Fn(usize, &Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (seen, reply) = (asked.clone(), Arc::new(reply));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, reply) = (seen.clone(), reply.clone());
                std::thread::spawn(move || {
                    let stream = stream.unwrap();
                    let request = read(&stream);
                    let number = {
                        let mut seen = seen.lock().unwrap();
                        seen.push(request.clone());
                        seen.len() - 1
                    };
                    // A client that was killed is none of our concern.
                    answer(stream, &request, reply(number, &request)).ok();
                });
            }
        });
        Self { address, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/artifact?signature=secret", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn read(stream: &TcpStream) -> Asked {
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let mut asked = Asked { path, from: None, authorization: None };
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        match name.to_ascii_lowercase().as_str() {
            "range" => asked.from = Some(value["bytes=".len()..].trim_end_matches('-').parse().unwrap()),
            "authorization" => asked.authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    asked
}

fn answer(mut stream: TcpStream, asked: &Asked, reply: Reply) -> std::io::Result<()> {
    let head = |status: u16, headers: &str, length: usize| {
        format!("HTTP/1.1 {status} -\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n")
    };
    let content = |whole: &[u8]| match asked.from {
        Some(from) if from < whole.len() => {
            let range = format!("content-range: bytes {from}-{}/{}\r\n", whole.len() - 1, whole.len());
            (head(206, &range, whole.len() - from), whole[from..].to_vec())
        }
        Some(_) => (head(416, "", 0), Vec::new()),
        None => (head(200, "", whole.len()), whole.to_vec()),
    };
    match reply {
        Reply::Content(whole) => {
            let (head, body) = content(&whole);
            stream.write_all(&[head.as_bytes(), &body].concat())
        }
        Reply::Broken(whole, after) => {
            let (head, body) = content(&whole);
            stream.write_all(&[head.as_bytes(), &body[..after.min(body.len())]].concat())
        }
        Reply::WithoutRanges(whole) => stream.write_all(&[head(200, "", whole.len()).as_bytes(), &whole].concat()),
        Reply::Halting(whole, gate) => {
            let (head, body) = content(&whole);
            let (first, rest) = body.split_at(body.len() / 2);
            stream.write_all(&[head.as_bytes(), first].concat())?;
            gate.pass();
            stream.write_all(rest)
        }
        Reply::Status(status, said) => stream.write_all(format!("{}{said}", head(status, "", said.len())).as_bytes()),
        Reply::Redirect(to) => stream.write_all(head(307, &format!("location: {to}\r\n"), 0).as_bytes()),
        Reply::Zeros(mut left) => {
            write!(stream, "HTTP/1.1 200 -\r\nconnection: close\r\ncontent-length: {left}\r\n\r\n")?;
            let zeros = vec![0; 1 << 16];
            while left > 0 {
                let some = zeros.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                stream.write_all(&zeros[..some])?;
                left -= some as u64;
            }
            Ok(())
        }
    }
}
