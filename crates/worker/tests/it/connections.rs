//! Clients that are slow, many, or not of good will: others are served meanwhile, and each has an end.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::client::{Sending, call};
use crate::process::{Worker, wait};

const REQUEST: &str = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[[3,4]]}]}"#;
const PATH: &str = "/v2/models/linear/infer";

fn worker(args: &[&str]) -> Worker {
    Worker::start("linear-1.onnx", args)
}

fn is_served(worker: &Worker) {
    assert_eq!(worker.infer(REQUEST).status, 200);
}

fn open(worker: &Worker) -> TcpStream {
    let stream = TcpStream::connect(worker.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// What comes until the connection ends.
fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn a_client_that_does_not_go_on_is_let_go() {
    let worker = worker(&["--client-timeout", "500ms"]);
    let mut stalled = Vec::new();
    // Nothing at all, some of a head, a whole request and then nothing, some of HTTP/2's first words.
    let whole = format!("POST {PATH} HTTP/1.1\r\nhost: w\r\ncontent-length: {}\r\n\r\n{REQUEST}", REQUEST.len());
    for begun in ["", "POST /v2/mod", &whole, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = open(&worker);
        stream.write_all(begun.as_bytes()).unwrap();
        stalled.push(stream);
    }
    is_served(&worker);
    let last: Vec<_> = stalled.into_iter().map(rest_of_bytes).collect();
    assert_eq!(last[..2], [Vec::<u8>::new(), Vec::new()]);
    assert!(last[2].starts_with(b"HTTP/1.1 200 OK"));
    is_served(&worker);
}

fn rest_of_bytes(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_body_that_stalls_is_refused_and_holds_nobody() {
    let worker = worker(&["--client-timeout", "300ms", "--threads", "1", "--queue", "1"]);
    let stalled: Vec<_> = (0..20)
        .map(|_| {
            let mut sending = Sending::head(worker.address, "POST", PATH, REQUEST.len()).unwrap();
            sending.body(&REQUEST[..20]).unwrap();
            sending
        })
        .collect();
    is_served(&worker);
    for sending in stalled {
        let answer = sending.answer().unwrap();
        assert_eq!(answer.status, 408, "{answer:?}");
        assert_eq!(answer.json()["error"], "the body comes too slowly: 20 bytes of it are here");
    }
    is_served(&worker);
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_sent_or_when_it_turns_out() {
    let worker = worker(&["--max-body", "1000"]);
    let announced = Sending::head(worker.address, "POST", PATH, 10 << 30).unwrap();
    let answer = announced.answer().unwrap();
    assert_eq!((answer.status, answer.json()["error"].as_str()), (413, Some("the body is larger than 1000 bytes")));
    let mut chunked = Sending::with(worker.address, "POST", PATH, "transfer-encoding: chunked\r\n").unwrap();
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
    chunked.body(&chunk.repeat(3)).unwrap();
    assert_eq!(chunked.answer().unwrap().status, 413);
    // One that is sent all the same, and is larger than what sockets take: its sender still reads why not.
    let large = call(worker.address, "POST", PATH, &"x".repeat(20 << 20)).unwrap();
    assert_eq!(large.status, 413);
    is_served(&worker);
}

#[test]
fn bodies_have_no_more_memory_than_they_may_together() {
    let worker = worker(&["--max-body", "1000", "--max-body-memory", "2500"]);
    let padded = format!("{REQUEST}{}", " ".repeat(1000 - REQUEST.len()));
    let begin = || {
        let mut sending = Sending::head(worker.address, "POST", PATH, padded.len()).unwrap();
        sending.body(&padded[..999]).unwrap();
        sending
    };
    let held = [begin(), begin()];
    // Whichever comes first, two of them are in hand at some time.
    wait("both to be there", || {
        let answer = call(worker.address, "POST", PATH, &padded).unwrap();
        (answer.status == 429).then(|| assert_eq!(answer.header("retry-after"), Some("1")))
    });
    is_served(&worker);
    for mut sending in held {
        sending.body(&padded[999..]).unwrap();
        assert_eq!(sending.answer().unwrap().status, 200);
    }
    assert_eq!(call(worker.address, "POST", PATH, &padded).unwrap().status, 200);
}

#[test]
fn heads_that_are_too_large_are_refused() {
    let worker = worker(&[]);
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let long = format!("x: {}\r\n", "1".repeat(100_000));
    for fields in [many, long] {
        let answer = Sending::with(worker.address, "GET", "/v2", &fields).unwrap().answer().unwrap();
        assert_eq!(answer.status, 431);
        is_served(&worker);
    }
}

#[test]
fn a_client_that_closes_its_side_is_gone() {
    let worker = worker(&[]);
    let mut stream = open(&worker);
    write!(stream, "POST {PATH} HTTP/1.1\r\nhost: w\r\ncontent-length: 100\r\n\r\n{{").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    // It is told that its request is not whole, or nothing.
    let told = rest(stream);
    assert!(told.is_empty() || told.starts_with("HTTP/1.1 400"), "{told}");
    is_served(&worker);
}

#[test]
fn a_client_that_takes_no_answers_is_let_go() {
    let worker = worker(&["--client-timeout", "1s"]);
    let mut stream = open(&worker);
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    // Answers to these do not fit into what sockets take, and nobody reads them.
    let requests = "GET /metrics HTTP/1.1\r\nhost: w\r\n\r\n".repeat(1000);
    wait("the connection to break", || match stream.write(requests.as_bytes()) {
        Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Some(()),
        _ => None,
    });
    is_served(&worker);
}

#[test]
fn more_connections_than_may_be_are_told_so() {
    let worker = worker(&["--max-connections", "3"]);
    let held: Vec<_> = (0..3).map(|_| open(&worker)).collect();
    wait("a refusal", || {
        let told = rest_of_bytes(open(&worker));
        let told = String::from_utf8(told).unwrap();
        (told.starts_with("HTTP/1.1 503") && told.ends_with(r#"{"error":"as many connections are open as may be"}"#))
            .then_some(())
    });
    drop(held);
    wait("room", || call(worker.address, "POST", PATH, REQUEST).is_ok_and(|answer| answer.status == 200).then_some(()));
}

#[test]
fn ten_thousand_idle_connections_cost_little_and_disturb_nobody() {
    const COUNT: u64 = 10_000;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let worker = worker(&[]);
    is_served(&worker);
    let before = worker.memory();
    let whole = format!("POST {PATH} HTTP/1.1\r\nhost: w\r\ncontent-length: {}\r\n\r\n{REQUEST}", REQUEST.len());
    let idle: Vec<_> = (0..COUNT)
        .map(|n| {
            let mut stream = open(&worker);
            // Every other one has been used.
            if n % 2 == 0 {
                stream.write_all(whole.as_bytes()).unwrap();
            }
            stream
        })
        .collect();
    for stream in idle.iter().step_by(2) {
        let mut start = [0; 15];
        let mut stream = stream;
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200 OK");
    }
    is_served(&worker);
    let each = worker.memory().saturating_sub(before) / COUNT;
    println!("{each} bytes for each idle connection");
    assert!(each < 32 << 10, "{each} bytes for each");
}

#[tokio::test]
async fn http2_is_spoken_on_the_same_port() {
    let worker = worker(&[]);
    let stream = tokio::net::TcpStream::connect(worker.address).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let uri = format!("http://{}{PATH}", worker.address);
        let request = http::Request::post(uri).body(Full::new(bytes::Bytes::from(REQUEST))).unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["outputs"][0]["data"][0], 3.0);
    }
    // A connection that is open and idle does not hold a worker that ends.
    worker.terminate();
    let (status, _) = tokio::task::spawn_blocking(|| worker.ended()).await.unwrap();
    assert!(status.success());
}
