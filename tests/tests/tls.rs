//! TLS on the admin API and the gateway: served from files, which change while both run.

use modelyard_test_support::{Options, Pair, Stack, TestCertificate, eventually, manifest};
use tokio::net::TcpStream;

const ROLLING: &str = "replicas: 1, strategy: {rolling: {}}";
const INFER: &str = "/v2/models/linear/infer";

/// What a new connection is shown.
async fn shown(stack: &Stack, url: &str) -> Option<Vec<u8>> {
    let answer = stack.certificate().client().get(url).send().await.ok()?;
    answer.extensions().get::<reqwest::tls::TlsInfo>()?.peer_certificate().map(<[u8]>::to_vec)
}

#[tokio::test]
async fn both_serve_tls_and_take_a_new_certificate_while_they_run() {
    let tls = Some(TestCertificate::create());
    let stack = Stack::start_with(Options { tls, ..Options::default() }).await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    assert_eq!(stack.infer().await, ("1".into(), 3.0));

    let urls = [format!("{}/healthz", stack.server_url()), format!("{}/v2/health/live", stack.gateway_url())];
    for url in &urls {
        let plain = reqwest::Client::builder().no_proxy().build().unwrap();
        assert!(plain.get(url).send().await.is_err(), "{url}: the CA is not one of the system's");
        assert!(plain.get(url.replace("https", "http")).send().await.is_err(), "{url}: no plaintext beside it");
    }

    // Silent clients, on each: they hold up nobody, and neither does a pair that does not fit.
    let address = |url: &str| url.trim_start_matches("https://").split('/').next().unwrap().to_owned();
    let mut silent = Vec::new();
    for url in urls.iter().cycle().take(40) {
        silent.push(TcpStream::connect(address(url)).await.unwrap());
    }
    let first = shown(&stack, &urls[0]).await.unwrap();
    assert_eq!(shown(&stack, &urls[1]).await.unwrap(), first);

    let second = stack.certificate().renew();
    for url in &urls {
        eventually("the new certificate is shown", async || (shown(&stack, url).await? == second).then_some(())).await;
    }
    stack.certificate().mount("junk", "junk");
    // The stack's own connections have lived through it all, and the gateway's link with them.
    stack.apply_and_wait(&manifest("2", ROLLING)).await;
    assert_eq!(stack.infer().await.0, "2");
    let log = async |name: &str| {
        let path = stack.state_dir().join(format!("modelyard-{name}.log"));
        let refused = "the new certificate is refused; the old one stays in use";
        eventually(&format!("{name} says that it refuses it"), async || {
            std::fs::read_to_string(&path).unwrap().contains(refused).then_some(())
        })
        .await;
    };
    log("control-plane").await;
    log("gateway").await;
    for url in &urls {
        assert_eq!(shown(&stack, url).await.unwrap(), second);
    }
    let answer = stack.certificate().client().post(format!("{}{INFER}", stack.gateway_url()));
    let body = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[3,4]}]}"#;
    assert_eq!(answer.body(body).send().await.unwrap().status(), 200);
}

/// As in a cluster: what a standby knows of the one in office is its pod's address.
#[tokio::test]
async fn a_standby_trusts_the_one_in_office_by_the_name_in_its_certificate() {
    const NAME: &str = "control-plane.test";
    let tls = TestCertificate::naming(&[NAME]);
    let mut pair = Pair::new(async |address| address).await;
    let trust = ["--ca-file".to_owned(), tls.ca().display().to_string()];
    pair.a.arguments = tls.arguments();
    pair.b.arguments = [&tls.arguments()[..], &trust, &["--peer-name".into(), NAME.into()]].concat();
    let asks = |address| {
        let client = tls.client_builder().resolve(NAME, address).build().unwrap();
        move |path: &str| client.get(format!("https://{NAME}:{}{path}", address.port())).send()
    };
    let (ask_a, ask_b) = (asks(pair.a.address()), asks(pair.b.address()));

    pair.start_a();
    eventually("a is in office", async || {
        ask_a("/metrics").await.ok()?.text().await.ok().filter(|text| text.contains("modelyard_in_office 1\n"))
    })
    .await;
    pair.start_b();
    let passed_on = eventually("b stands by", async || {
        ask_b("/api/v1/deployments").await.ok().filter(|answer| answer.status().is_success())
    })
    .await;
    assert_eq!(passed_on.json::<serde_json::Value>().await.unwrap()["items"], serde_json::json!([]));
    assert!(!ask_b("/metrics").await.unwrap().text().await.unwrap().contains("modelyard_in_office 1\n"));
}
