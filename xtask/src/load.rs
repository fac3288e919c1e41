//! A steady load on a deployment, and what came of each request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

/// What to ask, how often.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) gateway: String,
    pub(crate) deployment: String,
    /// Of one inference request, JSON.
    pub(crate) body: String,
    pub(crate) connections: u32,
    /// Of all connections together; `None`: each asks again as soon as it has its answer.
    pub(crate) requests_per_second: Option<u32>,
}

/// One answered request.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// When the answer was there.
    pub(crate) at: Instant,
    pub(crate) version: String,
}

#[derive(Debug, Default)]
struct Log {
    sent: u64,
    samples: Vec<Sample>,
    /// The first few failures, in words, and how many there were.
    failures: Vec<String>,
    failed: u64,
}

/// What a load saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    pub(crate) failures: Vec<String>,
}

/// A load that runs until [`Load::stop`].
pub(crate) struct Load {
    log: Arc<Mutex<Log>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

const FAILURES_TOLD: usize = 5;
/// A request without an answer for so long has failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

impl Load {
    pub(crate) fn start(plan: &Plan) -> anyhow::Result<Self> {
        let log = Arc::new(Mutex::new(Log::default()));
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for connection in 0..plan.connections {
            let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_WITHIN).tcp_nodelay(true).build()?;
            tasks.spawn(ask(plan.clone(), connection, http, log.clone(), stopping.clone()));
        }
        Ok(Self { log, stop, tasks })
    }

    /// How many answers each version gave since `from`.
    pub(crate) fn split_since(&self, from: Instant) -> BTreeMap<String, u64> {
        let mut split = BTreeMap::new();
        self.with_log(|log| {
            for sample in log.samples.iter().rev().take_while(|sample| sample.at >= from) {
                *split.entry(sample.version.clone()).or_default() += 1;
            }
        });
        split
    }

    /// Answers since `from`, in the order in which they came.
    pub(crate) fn samples_since(&self, from: Instant) -> Vec<Sample> {
        self.with_log(|log| {
            let mut samples: Vec<_> = log.samples.iter().rev().take_while(|s| s.at >= from).cloned().collect();
            samples.reverse();
            samples
        })
    }

    pub(crate) fn report(&self) -> Report {
        self.with_log(|log| Report { sent: log.sent, failed: log.failed, failures: log.failures.clone() })
    }

    /// Ends the load; every request sent has its answer, or has failed.
    pub(crate) async fn stop(mut self) -> Report {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        self.report()
    }

    fn with_log<T>(&self, read: impl FnOnce(&Log) -> T) -> T {
        read(&self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn ask(
    plan: Plan,
    connection: u32,
    http: reqwest::Client,
    log: Arc<Mutex<Log>>,
    mut stopping: watch::Receiver<bool>,
) {
    let url = format!("{}/v2/models/{}/infer", plan.gateway, plan.deployment);
    let mut ticks = plan.requests_per_second.map(|rate| {
        let period = Duration::from_secs(1) * plan.connections / rate.max(1);
        // Connections take turns.
        let mut ticks =
            tokio::time::interval_at((Instant::now() + period * connection / plan.connections).into(), period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks
    });
    loop {
        let turn = async {
            match &mut ticks {
                Some(ticks) => {
                    ticks.tick().await;
                }
                None => tokio::task::yield_now().await,
            }
        };
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return,
            () = turn => {}
        }
        let answer = one(&http, &url, &plan.body).await;
        let at = Instant::now();
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.sent += 1;
        match answer {
            Ok(version) => log.samples.push(Sample { at, version }),
            Err(failure) => {
                log.failed += 1;
                if log.failures.len() < FAILURES_TOLD {
                    log.failures.push(failure);
                }
            }
        }
    }
}

/// The version that answered, or what went wrong.
async fn one(http: &reqwest::Client, url: &str, body: &str) -> Result<String, String> {
    let request = http.post(url).header("content-type", "application/json").body(body.to_owned());
    let response = request.send().await.map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    let version = response.headers().get("x-modelyard-version").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let text = response.text().await.map_err(|error| format!("{error:?}"))?;
    match version {
        Some(version) if status.is_success() => Ok(version),
        _ => Err(format!("{status}: {text}")),
    }
}

/// How long after `from` the last answer came that was not from `version`: from then on every answer is. The first
/// right answer, where there was no wrong one. `None` if the last answer of all was wrong, or there was none.
pub(crate) fn time_to_full_traffic(samples: &[Sample], from: Instant, version: &str) -> Option<Duration> {
    let after: Vec<_> = samples.iter().filter(|s| s.at >= from).collect();
    let last_wrong = after.iter().rposition(|s| s.version != version);
    match last_wrong {
        Some(last) if last + 1 == after.len() => None,
        Some(last) => after.get(last).map(|s| s.at.duration_since(from)),
        None => after.first().map(|s| s.at.duration_since(from)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_traffic_begins_with_the_last_answer_of_another_version() {
        let start = Instant::now();
        let at = |ms, version: &str| Sample { at: start + Duration::from_millis(ms), version: version.into() };
        let time = |samples: &[Sample]| time_to_full_traffic(samples, start, "1");
        assert_eq!(time(&[at(1, "2"), at(3, "1"), at(5, "2"), at(9, "1")]), Some(Duration::from_millis(5)));
        assert_eq!(time(&[at(4, "1"), at(5, "1")]), Some(Duration::from_millis(4)));
        assert_eq!(time(&[at(4, "1"), at(5, "2")]), None, "it is not over");
        assert_eq!(time(&[]), None);
    }
}
