//! What clients and backends do with their connections: one after the other, in pieces, not to the end, too many.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Behaviour, Gateway, route, table};

const SOON: Duration = Duration::from_secs(20);

async fn serving(behaviour: Behaviour) -> Gateway {
    let mut gateway = Gateway::start().await;
    let backend = gateway.backend(behaviour).await;
    gateway.publish(table(1, route(1, &[("1", 10_000, &[backend])]))).await;
    gateway
}

fn request(headers: &str, body: &str) -> String {
    format!("POST /v2/models/m/infer HTTP/1.1\r\nhost: g\r\n{headers}\r\n{body}")
}

/// Reads until the text has come, and says what came.
async fn read_to(stream: &mut TcpStream, text: &str) -> String {
    let reading = async {
        let mut came = String::new();
        while !came.contains(text) {
            let mut some = [0; 4096];
            let count = stream.read(&mut some).await.unwrap();
            assert!(count > 0, "the connection ended: {came}");
            came.push_str(std::str::from_utf8(&some[..count]).unwrap());
        }
        came
    };
    tokio::time::timeout(SOON, reading).await.expect("it comes")
}

#[tokio::test]
async fn requests_that_follow_each_other_at_once_are_answered_in_turn_whatever_their_kind() {
    let gateway = serving(Behaviour::CountBody).await;
    let mut stream = gateway.connect().await;
    let plain = |body: &str| request(&format!("content-length: {}\r\n", body.len()), body);
    let chunked = request("transfer-encoding: chunked\r\n", "3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n");
    let all = [plain("a"), plain("bb"), chunked, plain("fffff")].concat();
    // In two pieces, cut in the middle of the second body.
    let (first, second) = all.split_at(plain("a").len() + plain("bb").len() - 1);
    stream.write_all(first.as_bytes()).await.unwrap();
    let mut came = read_to(&mut stream, "\r\n\r\n1").await;
    stream.write_all(second.as_bytes()).await.unwrap();
    came.push_str(&read_to(&mut stream, "\r\n\r\n5").await);
    let answers: Vec<_> = came.split("\r\n\r\n").skip(1).map(|text| &text[..1]).collect();
    assert_eq!(answers, ["1", "2", "4", "5"], "{came}");
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_a_request_too() {
    let gateway = serving(Behaviour::CountBody).await;
    let mut stream = gateway.connect().await;
    stream.set_nodelay(true).unwrap();
    for byte in request("content-length: 2\r\n", "ok").bytes() {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(read_to(&mut stream, "\r\n\r\n2").await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn http2_is_spoken_with_clients_that_begin_with_it() {
    let gateway = serving(Behaviour::CountBody).await;
    let stream = TokioIo::new(gateway.connect().await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut ask = |body: &'static str| {
        let request = http::Request::post("http://g/v2/models/m/infer").body(Full::new(Bytes::from(body))).unwrap();
        sender.send_request(request)
    };
    let answers = [ask("a"), ask("bb")];
    for (answer, expected) in answers.into_iter().zip(["1", "2"]) {
        let answer = answer.await.unwrap();
        assert_eq!(answer.headers().get("x-modelyard-version").unwrap(), "1");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), expected);
    }
    drop(sender);
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn answers_end_where_the_backend_says() {
    for (behaviour, body) in [
        (Behaviour::UntilClose("to the end"), "to the end".to_owned()),
        (Behaviour::ThenClose("closes"), "closes".to_owned()),
        (Behaviour::Long(3_000_000), "x".repeat(3_000_000)),
    ] {
        let gateway = serving(behaviour).await;
        for _ in 0..5 {
            let answer = gateway.infer("m", "connection: close\r\n").await;
            assert!(answer.status == 200, "{behaviour:?}: {}", answer.status);
            // One without a length comes in chunks, which the client of these tests does not read.
            if answer.header("transfer-encoding").is_empty() {
                assert!(answer.body == body, "{behaviour:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_answer_in_chunks_is_passed_on_in_chunks_and_the_connection_goes_on() {
    let gateway = serving(Behaviour::Chunks("chunks")).await;
    let mut stream = gateway.connect().await;
    for _ in 0..3 {
        stream.write_all(request("content-length: 0\r\n", "").as_bytes()).await.unwrap();
        let came = read_to(&mut stream, "0\r\n\r\n").await;
        let (head, body) = came.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("transfer-encoding: chunked") && !head.contains("content-length"), "{head}");
        // Trailers are not passed on.
        let told: String = body.split("\r\n").skip(1).step_by(2).collect();
        assert_eq!(told, "chunks", "{body}");
    }
}

#[tokio::test]
async fn a_backend_may_refuse_a_body_before_it_has_it() {
    let gateway = serving(Behaviour::Early(413)).await;
    let refused = gateway.post("/v2/models/m/infer", "", &vec![b'x'; 8_000_000]).await;
    assert_eq!((refused.status, refused.body.as_str()), (413, "early"));
}

#[tokio::test]
async fn a_client_that_said_how_long_it_waits_is_answered_by_then_and_the_worker_knows() {
    let mut gateway = serving(Behaviour::Slow(Duration::from_secs(3600), "never")).await;
    let late = gateway.infer("m", "x-modelyard-timeout: 50ms\r\n").await;
    assert!(late.status == 504 && late.body.contains("Deadline exceeded"), "{late:?}");
    let seen = gateway.evidence(1, |e| e.errors == 1).await;
    assert_eq!((seen.requests, seen.latency.count()), (1, 0));
    let wrong = gateway.infer("m", "x-modelyard-timeout: soon\r\n").await;
    assert!(wrong.status == 400 && wrong.body.contains("x-modelyard-timeout"), "{wrong:?}");

    let gateway = serving(Behaviour::Header("x-modelyard-timeout")).await;
    for header in ["x-modelyard-timeout: 30s\r\n", "grpc-timeout: 30S\r\n"] {
        let left = gateway.infer("m", header).await.body;
        let micros: u64 = left.strip_suffix("us").unwrap_or_default().parse().unwrap_or_default();
        assert!((1..=30_000_000).contains(&micros), "{left}");
    }
    assert_eq!(gateway.infer("m", "").await.body, "", "nobody asked");
}

#[tokio::test]
async fn idle_and_half_open_connections_disturb_nobody() {
    let gateway = serving(Behaviour::CountBody).await;
    let mut others = Vec::new();
    for index in 0..1500 {
        let mut stream = gateway.connect().await;
        match index % 3 {
            0 => {}
            1 => stream.write_all(b"POST /v2/models/m/infer HTTP/1.1\r\nhost:").await.unwrap(),
            _ => stream.write_all(request("content-length: 900000\r\n", "begun").as_bytes()).await.unwrap(),
        }
        others.push(stream);
    }
    for _ in 0..50 {
        assert_eq!(gateway.infer("m", "").await.body, "2");
    }
    // A client that ends its side while it waits is gone.
    let mut gone = others.pop().unwrap();
    gone.shutdown().await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(SOON, gone.read_to_end(&mut rest)).await.expect("the gateway closes it").ok();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_flood_of_headers_is_refused() {
    let gateway = serving(Behaviour::CountBody).await;
    let many: String = (0..500).map(|n| format!("x-{n}: 1\r\n")).collect();
    assert_eq!(gateway.infer("m", &many).await.status, 431);
    let long = format!("x-long: {}\r\n", "x".repeat(1 << 20));
    let mut stream = gateway.connect().await;
    stream.write_all(request(&long, "").as_bytes()).await.ok();
    let mut came = Vec::new();
    stream.read_to_end(&mut came).await.ok();
    assert!(came.is_empty() || came.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&came));
    assert_eq!(gateway.infer("m", "").await.status, 200);
}
