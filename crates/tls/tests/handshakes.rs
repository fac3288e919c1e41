//! Handshakes over real sockets, while the files change underneath.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use modelyard_test_support::{TestCertificate, eventually};
use modelyard_tls::{ServerTls, TlsError, TlsFiles};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn files(certificate: &TestCertificate) -> TlsFiles {
    TlsFiles { tls_cert: Some(certificate.certificate()), tls_key: Some(certificate.key()) }
}

/// Answers every request on every connection with 204; handshakes run beside one another.
async fn server(certificate: &TestCertificate) -> SocketAddr {
    let tls = ServerTls::load(&files(certificate)).unwrap().unwrap();
    tokio::spawn(tls.clone().keep_current());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(answer(stream, tls.clone()));
        }
    });
    address
}

async fn answer(stream: TcpStream, tls: Arc<ServerTls>) {
    let Ok(mut stream) = tls.accept(stream).await else { return };
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if head.ends_with(b"\r\n\r\n") {
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.ok();
            stream.flush().await.ok();
            head.clear();
        }
    }
}

/// The certificate that a new connection is shown; `http` has none open.
async fn shown(http: &reqwest::Client, address: SocketAddr) -> Option<Vec<u8>> {
    let answer = http.get(format!("https://{address}/")).send().await.ok()?;
    assert_eq!(answer.status(), 204);
    answer.extensions().get::<reqwest::tls::TlsInfo>()?.peer_certificate().map(<[u8]>::to_vec)
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_connections_and_those_that_run_live_on() {
    let certificate = TestCertificate::create();
    let address = server(&certificate).await;
    let old_connection = certificate.client();
    let first = shown(&old_connection, address).await.unwrap();
    let second = certificate.renew();
    assert_ne!(first, second);
    eventually("the new one is shown", async || (shown(&certificate.client(), address).await? == second).then_some(()))
        .await;
    assert_eq!(
        shown(&old_connection, address).await.unwrap(),
        first,
        "the same connection, with its handshake of then"
    );
}

#[tokio::test]
async fn a_pair_that_does_not_fit_is_refused_and_the_old_one_kept() {
    let certificate = TestCertificate::create();
    let address = server(&certificate).await;
    let first = shown(&certificate.client(), address).await.unwrap();
    let pem = std::fs::read_to_string(certificate.certificate()).unwrap();
    let other = TestCertificate::create();
    let key_of_another = std::fs::read_to_string(other.key()).unwrap();
    for (certificate_text, key_text) in [(pem.as_str(), key_of_another.as_str()), ("", ""), ("junk", "junk")] {
        certificate.mount(certificate_text, key_text);
        let refused = ServerTls::load(&files(&certificate)).err().unwrap();
        assert!(matches!(refused, TlsError::Unusable { .. }), "{refused}");
        // Longer than two looks take.
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(3) {
            assert_eq!(shown(&certificate.client(), address).await, Some(first.clone()));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let good = certificate.renew();
    eventually("a good one is taken after bad ones", async || {
        (shown(&certificate.client(), address).await? == good).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_says_nothing_is_given_up() {
    let certificate = TestCertificate::create();
    let address = server(&certificate).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    assert!(shown(&certificate.client(), address).await.is_some(), "others are served meanwhile");
    let ended = tokio::time::timeout(Duration::from_secs(30), silent.read_u8()).await;
    assert!(ended.expect("the server closes it").is_err());
}

#[tokio::test]
async fn only_http_1_is_offered() {
    let certificate = TestCertificate::create();
    let address = server(&certificate).await;
    let answer = certificate.client().get(format!("https://{address}/")).send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_11);
}

#[test]
fn files_that_are_not_there_are_named() {
    let files = TlsFiles { tls_cert: Some("/nowhere/tls.crt".into()), tls_key: Some("/nowhere/tls.key".into()) };
    assert!(ServerTls::load(&files).err().unwrap().to_string().contains("/nowhere/tls.crt"));
    assert!(ServerTls::load(&TlsFiles::default()).unwrap().is_none(), "no files: no TLS");
}
