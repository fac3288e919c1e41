//! Who may do what: real daemons, beyond loopback or as strict as there, and a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime};

use modelyard_api::Client;
use modelyard_api::tokens::CreateToken;
use modelyard_core::{Role, Timestamp, TokenId};
use modelyard_store::{NewToken, Store};
use modelyard_test_support::{Options, Stack, TestDatabase, binary, eventually, manifest};
use reqwest::{Method, Response};

const ROLLING: &str = "replicas: 1, strategy: {rolling: {}}";

/// Tokens as a Secret holds them.
struct Secret {
    dir: tempfile::TempDir,
}

fn bootstrap_token(of: &str) -> String {
    format!("bootstrap-{of}-{}", "0123456789abcdef".repeat(2))
}

impl Secret {
    fn with(files: &[&str]) -> Self {
        let secret = Self { dir: tempfile::tempdir().unwrap() };
        files.iter().for_each(|file| secret.write(file, &bootstrap_token(file)));
        secret
    }

    fn write(&self, file: &str, content: &str) {
        std::fs::write(self.dir.path().join(file), content).unwrap();
    }

    fn path(&self, file: &str) -> String {
        self.dir.path().join(file).display().to_string()
    }
}

/// A stack that asks for tokens: beyond loopback, or on it because it is told to.
async fn guarded(secret: &Secret, public: bool) -> Stack {
    let mut control_plane = vec!["--bootstrap-tokens".into(), secret.path("")];
    if !public {
        control_plane.push("--require-tokens".into());
    }
    let options = Options {
        public,
        control_plane,
        gateway: vec!["--token-file".into(), secret.path("gateway")],
        token: Some(bootstrap_token("admin.root")),
        environment: vec![("RUST_LOG".into(), "debug".into())],
        ..Options::default()
    };
    Stack::start_with(options).await
}

async fn ask(stack: &Stack, method: Method, path: &str, token: Option<&str>) -> Response {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = http.request(method, format!("{}{path}", stack.server_url()));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    request.send().await.unwrap()
}

async fn get(stack: &Stack, path: &str, token: &str) -> u16 {
    ask(stack, Method::GET, path, Some(token)).await.status().as_u16()
}

async fn problem(response: Response) -> String {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    response.json::<serde_json::Value>().await.unwrap()["detail"].as_str().unwrap().to_owned()
}

async fn made(client: &Client, name: &str, role: Role, lifetime: &str) -> (TokenId, String) {
    let wanted = CreateToken { name: name.parse().unwrap(), role, expires_in: lifetime.parse().unwrap() };
    let created = client.create_token(&wanted).await.unwrap();
    (created.token.id, created.secret)
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(since_epoch.as_millis().try_into().unwrap())
}

/// The control plane's program, until it ends.
fn control_plane(arguments: &[&str], database_url: &str) -> Output {
    Command::new(binary("modelyard-control-plane")).args(arguments).env("DATABASE_URL", database_url).output().unwrap()
}

#[tokio::test]
async fn beyond_loopback_everyone_needs_a_token_and_events_name_its_holder() {
    let secret = Secret::with(&["admin.root", "gateway"]);
    let stack = guarded(&secret, true).await;
    for path in ["/api/v1/models", "/api/v1/openapi.json", "/metrics", "/internal/v1/routes", "/nothing/here"] {
        for token in [None, Some("my_guess"), Some(bootstrap_token("root").as_str())] {
            let refused = ask(&stack, Method::GET, path, token).await;
            assert_eq!(
                (refused.status().as_u16(), &refused.headers()["www-authenticate"]),
                (401, &"Bearer".parse().unwrap()),
                "{path}"
            );
            assert!(problem(refused).await.contains("token"));
        }
    }
    for open in ["/healthz", "/readyz"] {
        assert_eq!(ask(&stack, Method::GET, open, None).await.status(), 200, "{open}: probes have no token");
    }
    assert_eq!(get(&stack, "/nothing/here", &bootstrap_token("admin.root")).await, 404);

    // The gateway follows by its own token, and people act by theirs.
    let (_, alice) = made(&stack.client, "alice", Role::Operator, "1h").await;
    let as_alice = Client::new(&stack.server_url(), Some(alice), Some("mallory".into()));
    let text = manifest("1", ROLLING);
    stack.apply_and_wait(&text).await;
    assert_eq!(stack.infer().await.0, "1");
    as_alice.delete_deployment(&"linear".parse().unwrap()).await.unwrap();
    let events = stack.client.events(None, None).await.unwrap();
    let actor = |kind: &str| events.iter().find(|e| e.what.kind.as_str() == kind).unwrap().what.actor.to_string();
    let actors = ["TokenCreated", "RevisionCreated", "DeploymentDeleted"].map(actor);
    assert_eq!(actors, ["root", "root", "alice"], "what x-modelyard-actor claims counts for nothing");
}

#[tokio::test]
async fn each_role_may_do_its_own_and_no_more() {
    let secret = Secret::with(&["admin.root", "gateway"]);
    let stack = guarded(&secret, false).await;
    let store = Store::connect(stack.database_url()).unwrap();
    let new = NewToken { name: "worker".parse().unwrap(), role: Role::Worker, lifetime: "1h".parse().unwrap() };
    let worker = store.issue_token(new, now()).await.unwrap().secret;
    let (_, viewer) = made(&stack.client, "vera", Role::Viewer, "1h").await;
    let (_, operator) = made(&stack.client, "olga", Role::Operator, "1h").await;
    let holders = [
        (Role::Viewer, viewer),
        (Role::Operator, operator),
        (Role::Admin, bootstrap_token("admin.root")),
        (Role::Gateway, bootstrap_token("gateway")),
        (Role::Worker, worker.expose().to_owned()),
    ];

    let document: serde_json::Value =
        ask(&stack, Method::GET, "/api/v1/openapi.json", Some(&holders[0].1)).await.json().await.unwrap();
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().map(|m| m.to_uppercase()) {
            let reads = method == "GET" || method == "HEAD";
            let people: &[Role] = match (path.contains("/tokens"), reads) {
                (true, _) => &[Role::Admin],
                (false, true) => &[Role::Viewer, Role::Operator, Role::Admin],
                (false, false) => &[Role::Operator, Role::Admin],
            };
            for (role, token) in &holders {
                let may = people.contains(role) || (*role == Role::Worker && path.ends_with("/artifacts/{sha256}"));
                // Nothing is called so: whoever may is told that it is not there, or what is wrong with the question.
                let concrete = path.replace("{sha256}", &"0".repeat(64)).replace("{n}", "1").replace("{id}", "999");
                let concrete = concrete.replace(['{', '}'], "");
                let answer = ask(&stack, method.parse().unwrap(), &concrete, Some(token)).await;
                let status = answer.status().as_u16();
                assert_eq!(status != 403, may, "{role}: {method} {path} was answered {status}");
                assert_ne!(status, 401, "{role}: {method} {path}");
                if !may && method != "HEAD" {
                    let told = problem(answer).await;
                    assert!(told.contains(&format!("has the role {role}")) && told.contains("it takes"), "{told}");
                }
                asked += 1;
            }
        }
    }
    assert!(asked > 100, "{asked}");
    for (role, token) in &holders {
        let expected = if *role == Role::Gateway { 200 } else { 403 };
        let link = ask(&stack, Method::GET, "/internal/v1/routes", Some(token)).await;
        assert_eq!(link.status().as_u16(), expected, "{role}");
    }
    store.close().await;
}

#[tokio::test]
async fn a_token_ends_when_it_expires_or_is_revoked_by_whomever() {
    let secret = Secret::with(&["admin.root", "gateway"]);
    let stack = guarded(&secret, false).await;
    let (_, short) = made(&stack.client, "short", Role::Viewer, "1s").await;
    assert_eq!(get(&stack, "/api/v1/models", &short).await, 200);
    let told = eventually("it expires", async || {
        let answer = ask(&stack, Method::GET, "/api/v1/models", Some(&short)).await;
        if answer.status() == 401 { Some(problem(answer).await) } else { None }
    });
    assert!(told.await.contains("the token of short expired at"));

    let (id, here) = made(&stack.client, "here", Role::Viewer, "1h").await;
    assert_eq!(get(&stack, "/api/v1/models", &here).await, 200);
    stack.client.revoke_token(id).await.unwrap();
    assert_eq!(get(&stack, "/api/v1/models", &here).await, 401, "at once, where it was revoked");

    let (id, elsewhere) = made(&stack.client, "elsewhere", Role::Viewer, "1h").await;
    assert_eq!(get(&stack, "/api/v1/models", &elsewhere).await, 200);
    let follow = reqwest::Client::builder().no_proxy().build().unwrap();
    let follow = follow.get(format!("{}/api/v1/events", stack.server_url())).header("accept", "text/event-stream");
    let mut followed = follow.bearer_auth(&elsewhere).send().await.unwrap();
    assert_eq!(followed.status(), 200);
    let listed = control_plane(&["token", "list"], stack.database_url());
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("elsewhere\tviewer") && !listed.contains(&elsewhere), "{listed}");
    let revoked = control_plane(&["token", "revoke", &id.to_string(), "--actor", "eve"], stack.database_url());
    assert!(revoked.status.success(), "{revoked:?}");
    let since = Instant::now();
    eventually("it is refused", async || (get(&stack, "/api/v1/models", &elsewhere).await == 401).then_some(())).await;
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    // What it was admitted to before ends, too.
    while followed.chunk().await.unwrap().is_some() {}

    let tokens = stack.client.tokens().await.unwrap();
    let names: Vec<_> = tokens.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["short"], "an expired one is shown for a day");
}

#[tokio::test]
async fn a_changed_secret_counts_without_a_restart_and_the_gateway_follows_it() {
    let secret = Secret::with(&["admin.root", "gateway"]);
    let stack = guarded(&secret, true).await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let renewed = bootstrap_token("renewed");
    secret.write("gateway", &renewed);
    secret.write("viewer.vera", &bootstrap_token("viewer.vera"));
    eventually("the new tokens count and the old one does not", async || {
        let old = get(&stack, "/internal/v1/routes", &bootstrap_token("gateway")).await;
        let new = get(&stack, "/api/v1/models", &bootstrap_token("viewer.vera")).await;
        ((old, new) == (401, 200)).then_some(())
    })
    .await;
    // Its workers could not be exchanged if the gateway did not report which it uses.
    stack.apply_and_wait(&manifest("2", ROLLING)).await;
    assert_eq!(stack.infer().await.0, "2");
    secret.write("viewer.vera", "too short");
    eventually("a file at fault is left out", async || {
        (get(&stack, "/api/v1/models", &bootstrap_token("viewer.vera")).await == 401).then_some(())
    })
    .await;
    assert_eq!(get(&stack, "/api/v1/models", &bootstrap_token("admin.root")).await, 200);
}

/// With its own PostgreSQL, which can be stopped.
#[tokio::test]
async fn without_postgres_those_who_are_known_get_in_and_strangers_are_told_why_not() {
    use modelyard_postgres_local::{Cluster, Options as Postgres};
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("postgres");
    let start = move || Cluster::start(&place, &Postgres { durable: true, progress: &|_| {} }).unwrap();
    let cluster = tokio::task::spawn_blocking(start).await.unwrap();
    cluster.create_database("modelyard").unwrap();
    let url = cluster.url("modelyard");
    let secret = Secret::with(&["gateway"]);
    let options = Options {
        database_url: Some(url.clone()),
        control_plane: vec!["--require-tokens".into(), "--bootstrap-tokens".into(), secret.path("")],
        gateway: vec!["--token-file".into(), secret.path("gateway")],
        ..Options::default()
    };
    let stack = Stack::start_with(options).await;
    let made = control_plane(&["token", "create", "--name", "known", "--role", "viewer"], &url);
    let known = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let made = control_plane(&["token", "create", "--name", "stranger", "--role", "viewer"], &url);
    let stranger = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    assert_eq!(get(&stack, "/metrics", &known).await, 200);

    tokio::task::spawn_blocking(move || cluster.stop().unwrap()).await.unwrap();
    let gone = Instant::now();
    while gone.elapsed() < Duration::from_secs(10) {
        let asked = Instant::now();
        assert_eq!(get(&stack, "/metrics", &known).await, 200, "after {:?}", gone.elapsed());
        assert!(asked.elapsed() < Duration::from_secs(1), "it waits for nothing: {:?}", asked.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let refused = ask(&stack, Method::GET, "/metrics", Some(&stranger)).await;
    assert_eq!(refused.status(), 503);
    assert!(problem(refused).await.contains("the database does not answer"));
}

#[tokio::test]
async fn the_daemon_does_not_listen_publicly_before_there_is_a_token() {
    let database = TestDatabase::create().await;
    let dir = tempfile::tempdir().unwrap();
    let serve = |more: &[&str]| {
        let dir = dir.path().display().to_string();
        let fixed = ["serve", "--listen", "0.0.0.0:0", "--worker-binary", "x", "--state-dir", &dir];
        control_plane(&[&fixed[..], more].concat(), database.url())
    };
    let told = serve(&[]);
    let text = String::from_utf8(told.stderr).unwrap();
    assert!(!told.status.success() && text.contains("refusing to listen on 0.0.0.0:0"), "{text}");
    for remedy in ["token create --role admin", "--bootstrap-tokens"] {
        assert!(text.contains(remedy), "{text}");
    }
    let bad = Secret::with(&[]);
    bad.write("root", &bootstrap_token("root"));
    let told = serve(&["--bootstrap-tokens", &bad.path("")]);
    assert!(!told.status.success() && String::from_utf8(told.stderr).unwrap().contains("is not a valid role"));

    let made = control_plane(&["token", "create", "--name", "ann", "--role", "admin"], database.url());
    let secret = String::from_utf8(made.stdout).unwrap();
    assert!(secret.starts_with("my_") && secret.lines().count() == 1, "the token stands alone on standard output");
    let explained = String::from_utf8(made.stderr).unwrap();
    assert!(explained.contains("token 1 of ann: admin, until") && !explained.contains(secret.trim()), "{explained}");
    let store = Store::connect(database.url()).unwrap();
    let new = NewToken { name: "gateway".parse().unwrap(), role: Role::Gateway, lifetime: "1h".parse().unwrap() };
    let gateway = store.issue_token(new, now()).await.unwrap().secret;
    store.close().await;
    let file = Secret::with(&[]);
    file.write("token", gateway.expose());
    let options = Options {
        public: true,
        database_url: Some(database.url().to_owned()),
        gateway: vec!["--token-file".into(), file.path("token")],
        token: Some(secret.trim().to_owned()),
        ..Options::default()
    };
    let stack = Stack::start_with(options).await;
    assert_eq!(stack.client.tokens().await.unwrap()[0].name.as_str(), "ann");
}

#[tokio::test]
async fn on_loopback_nobody_needs_a_token_but_one_that_is_shown_counts() {
    let stack = Stack::start().await;
    stack.apply(&manifest("1", ROLLING)).await;
    let (_, viewer) = made(&stack.client, "vera", Role::Viewer, "1h").await;
    assert_eq!(get(&stack, "/api/v1/models", &viewer).await, 200);
    assert_eq!(get(&stack, "/api/v1/tokens", &viewer).await, 403);
    assert_eq!(get(&stack, "/api/v1/models", "my_guess").await, 401);
    let events = stack.client.events(None, None).await.unwrap();
    assert!(events.iter().any(|e| e.what.actor.as_str() == "test"), "x-modelyard-actor is believed here");
}

/// The one in office may trust whoever reaches it, as it listens on loopback; the other is reached by everyone.
#[tokio::test]
async fn one_that_stands_by_passes_nothing_on_for_strangers() {
    let stack = Stack::start().await;
    let secret = Secret::with(&["viewer.vera"]);
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut standby = tokio::process::Command::new(binary("modelyard-control-plane"));
    standby.args(["serve", "--listen", &format!("0.0.0.0:{port}"), "--database-url", stack.database_url()]);
    standby.args(["--worker-binary", "x", "--bootstrap-tokens", &secret.path(""), "--state-dir"]).arg(dir.path());
    let _standby = standby.kill_on_drop(true).stderr(std::process::Stdio::null()).spawn().unwrap();
    let url = format!("http://127.0.0.1:{port}");
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    eventually("it stands by", async || {
        let ready = http.get(format!("{url}/readyz")).send().await.ok()?;
        ready.text().await.ok()?.contains("standing by").then_some(())
    })
    .await;
    let ask = async |token: Option<&str>| {
        let mut request = http.get(format!("{url}/api/v1/tokens"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!((ask(None).await, ask(Some("my_guess")).await), (401, 401));
    // Known here by a file of its own, and so not to the one in office, which still looks at what is shown to it.
    assert_eq!(ask(Some(&bootstrap_token("viewer.vera"))).await, 401);
    let (_, viewer) = made(&stack.client, "olaf", Role::Viewer, "1h").await;
    assert_eq!(ask(Some(&viewer)).await, 403, "passed on, and refused by the role");
}

#[tokio::test]
async fn no_secret_is_in_a_log_or_in_the_database() {
    let secret = Secret::with(&["admin.root", "gateway"]);
    let stack = guarded(&secret, false).await;
    let (id, token) = made(&stack.client, "alice", Role::Viewer, "1h").await;
    assert_eq!(get(&stack, "/api/v1/models", &token).await, 200);
    assert_eq!(get(&stack, "/api/v1/tokens", &token).await, 403);
    stack.client.revoke_token(id).await.unwrap();
    let (_, token_2) = made(&stack.client, "alice", Role::Viewer, "1h").await;

    let pool = sqlx::PgPool::connect(stack.database_url()).await.unwrap();
    let rows: Vec<String> = sqlx::query_scalar("select t::text from tokens t union all select e::text from events e")
        .fetch_all(&pool)
        .await
        .unwrap();
    pool.close().await;
    assert!(rows.len() >= 4, "{rows:?}");
    let mut places = vec![("the database".to_owned(), rows.join("\n"))];
    collect(stack.state_dir(), &mut places);
    assert!(places.iter().any(|(name, text)| name.ends_with("control-plane.log") && text.contains("DEBUG")));
    for secret in [token, token_2, bootstrap_token("admin.root"), bootstrap_token("gateway")] {
        for (place, text) in &places {
            assert!(!text.contains(&secret), "a secret is in {place}");
        }
    }
}

/// The text of every file below a directory.
fn collect(dir: &Path, places: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() {
            collect(&entry.path(), places);
        } else if let Ok(bytes) = std::fs::read(entry.path()) {
            places.push((entry.path().display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
}
