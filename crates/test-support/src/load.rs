//! A steady load on a deployment. Every request is accounted for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

/// Several connections that ask [[3, 4]] of a deployment, about 200 times a second in all.
pub struct Load {
    log: Arc<Mutex<Log>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Log {
    answers: Vec<(Instant, String)>,
    failures: Vec<String>,
    /// What was asked and not yet answered, by connection.
    waiting: BTreeMap<u32, Instant>,
}

#[derive(Debug)]
pub struct LoadReport {
    pub sent: usize,
    /// How many of the answers each version gave.
    pub answers: BTreeMap<String, usize>,
    /// Each request that was not answered with 200, in words.
    pub failures: Vec<String>,
}

impl LoadReport {
    /// # Panics
    /// If a request was lost, or next to none was sent.
    pub fn assert_nothing_lost(&self) {
        assert!(
            self.failures.is_empty(),
            "{} of {} requests failed: {:#?}",
            self.failures.len(),
            self.sent,
            self.failures
        );
        assert!(self.sent >= ENOUGH, "a load of {} requests proves nothing", self.sent);
    }
}

const CONNECTIONS: u32 = 4;
const PERIOD: Duration = Duration::from_millis(20);
/// A load of fewer requests proves nothing. It goes on until it has sent them, as what it is to
/// accompany may be over sooner on a fast machine.
const ENOUGH: usize = 60;
pub(crate) const BODY: &str = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[3,4]}]}"#;

impl Load {
    pub fn start(gateway: &str, deployment: &str) -> Self {
        let log = Arc::new(Mutex::new(Log::default()));
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for connection in 0..CONNECTIONS {
            let url = format!("{gateway}/v2/models/{deployment}/infer");
            tasks.spawn(ask(connection, url, log.clone(), stopping.clone()));
        }
        Self { log, stop, tasks }
    }

    /// How many answers each version has given since.
    pub fn split_since(&self, from: Instant) -> BTreeMap<String, usize> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut split = BTreeMap::new();
        log.answers.iter().filter(|(at, _)| *at >= from).for_each(|(_, v)| *split.entry(v.clone()).or_default() += 1);
        split
    }

    /// For how long the request has been out that has been out longest.
    pub fn longest_wait(&self) -> Duration {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.waiting.values().map(Instant::elapsed).max().unwrap_or_default()
    }

    /// Waits until as many requests as given have been answered from now on.
    pub async fn answers(&self, count: usize) {
        let from = Instant::now();
        crate::eventually("the load is answered", async || {
            (self.split_since(from).values().sum::<usize>() >= count).then_some(())
        })
        .await;
    }

    fn sent(&self) -> usize {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.answers.len() + log.failures.len()
    }

    /// Ends the load, once it has sent enough to prove something.
    pub async fn stop(mut self) -> LoadReport {
        crate::eventually("the load is one", async || (self.sent() >= ENOUGH).then_some(())).await;
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        let log = std::mem::take(&mut *self.log.lock().unwrap_or_else(PoisonError::into_inner));
        let mut answers = BTreeMap::new();
        log.answers.iter().for_each(|(_, version)| *answers.entry(version.clone()).or_default() += 1);
        LoadReport { sent: log.answers.len() + log.failures.len(), answers, failures: log.failures }
    }
}

async fn ask(connection: u32, url: String, log: Arc<Mutex<Log>>, mut stopping: watch::Receiver<bool>) {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().expect("a client");
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            _ = ticks.tick() => {}
        }
        let asked = Instant::now();
        log.lock().unwrap_or_else(PoisonError::into_inner).waiting.insert(connection, asked);
        let answer = one(&http, &url).await;
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.waiting.remove(&connection);
        match answer {
            Ok(version) => log.answers.push((asked, version)),
            Err(failure) => log.failures.push(failure),
        }
    }
}

async fn one(http: &reqwest::Client, url: &str) -> Result<String, String> {
    let response = http.post(url).body(BODY).send().await.map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    let version = response.headers().get("x-modelyard-version").and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    let text = response.text().await.map_err(|error| format!("{error:?}"))?;
    if status.is_success() { Ok(version) } else { Err(format!("{status}: {text}")) }
}
