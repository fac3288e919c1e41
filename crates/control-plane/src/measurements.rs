//! Numbers of a Prometheus, for the gates that ask for them. In memory only: what is not answered is asked again.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use modelyard_core::Figure;
use modelyard_core::inputs::DesiredDeployment;
use modelyard_core::state::Phase;
use serde::Deserialize;
use url::Url;

use crate::app::App;

/// Prometheus itself looks no more often than that, by default every 15 s to a minute.
const EVERY: Duration = Duration::from_secs(5);
/// A gate does not go by a number older than that: where Prometheus is gone, it waits.
const GOOD_FOR: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(10);

/// The queries that rollouts under way ask for, and what was answered.
#[derive(Default)]
pub struct Measurements {
    /// The base URL; `None`: no Prometheus was named, and its gates wait.
    prometheus: Option<Url>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    wanted: BTreeSet<String>,
    answers: BTreeMap<String, (Figure, Instant)>,
    /// Why a query was not answered when it was asked last.
    failures: BTreeMap<String, String>,
}

/// Why a query has no number.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("the control plane was given no Prometheus to ask (`--prometheus-url`)")]
    Unnamed,
    #[error("Prometheus does not answer: {}", chain(.0))]
    Unreachable(#[from] reqwest::Error),
    #[error("Prometheus refused the query: {0}")]
    Refused(String),
    #[error("the query answers {0}, and a gate needs exactly one number")]
    NotOne(String),
}

impl Measurements {
    pub fn new(prometheus: Option<Url>) -> Self {
        Self { prometheus, known: Mutex::default() }
    }

    /// Notes what is asked for now, and gives what is known of it.
    pub fn of<'a>(
        &self,
        deployments: impl Iterator<Item = &'a DesiredDeployment>,
    ) -> BTreeMap<String, Result<Figure, String>> {
        let mut known = self.known();
        known.wanted = deployments.flat_map(queries).collect();
        let Known { wanted, answers, failures } = &mut *known;
        answers.retain(|query, (_, at)| wanted.contains(query) && at.elapsed() < GOOD_FOR);
        failures.retain(|query, _| wanted.contains(query));
        let unnamed = || self.prometheus.is_none().then(|| QueryError::Unnamed.to_string());
        let of = |query: &String| match answers.get(query) {
            Some((figure, _)) => Some(Ok(*figure)),
            None => failures.get(query).cloned().or_else(unnamed).map(Err),
        };
        wanted.iter().filter_map(|query| of(query).map(|answer| (query.clone(), answer))).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an answer. Whether it is news.
    fn keep(&self, query: String, answer: Result<Figure, QueryError>) -> bool {
        let mut known = self.known();
        match answer {
            Ok(figure) => {
                known.failures.remove(&query);
                let before = known.answers.insert(query, (figure, Instant::now()));
                before.map(|(figure, _)| figure) != Some(figure)
            }
            Err(error) => {
                let before = known.failures.insert(query, error.to_string());
                before != Some(error.to_string())
            }
        }
    }
}

/// Of a deployment whose rollout is under way.
fn queries(desired: &DesiredDeployment) -> Vec<String> {
    let is_done = |r: &modelyard_core::state::Rollout| r.revision == desired.target && r.phase == Phase::Completed;
    if desired.state.rollout.as_ref().is_some_and(is_done) {
        return Vec::new();
    }
    let course = desired.revisions.get(&desired.target).and_then(|revision| revision.spec.strategy.course());
    let analysis = course.and_then(|course| course.analysis);
    let gates = analysis.iter().flat_map(|analysis| &analysis.prometheus);
    gates.map(|gate| gate.query.clone()).collect()
}

/// For as long as the term lasts: asks what is wanted, and wakes the reconciler when an answer changes.
pub(crate) async fn run(app: Arc<App>) -> Infallible {
    let Some(prometheus) = app.measurements.prometheus.clone() else { return std::future::pending().await };
    let http = reqwest::Client::new();
    loop {
        let wanted = app.measurements.known().wanted.clone();
        for query in wanted {
            let answer = ask(&http, &prometheus, &query).await;
            if let Err(error) = &answer {
                tracing::warn!(%error, query, "a query was not answered");
            }
            if app.measurements.keep(query, answer) {
                app.wake.look();
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// An instant query of the HTTP API (`/api/v1/query`) whose answer is one number: a scalar, or a vector of one sample.
///
/// # Errors
/// If Prometheus does not answer, refuses the query, or answers another number of numbers.
pub async fn ask(http: &reqwest::Client, prometheus: &Url, query: &str) -> Result<Figure, QueryError> {
    let base = prometheus.as_str().trim_end_matches('/');
    let request = http.get(format!("{base}/api/v1/query")).query(&[("query", query)]).timeout(TIMEOUT);
    match request.send().await?.json().await? {
        Answer::Error { error } => Err(QueryError::Refused(error)),
        Answer::Success { data } => data.number(),
    }
}

/// What `reqwest` says, and why, which it leaves to its sources.
fn chain(error: &reqwest::Error) -> String {
    let sources = std::iter::successors(std::error::Error::source(error), |error| error.source());
    sources.fold(error.to_string(), |words, source| format!("{words}: {source}"))
}

#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Answer {
    Success { data: Data },
    Error { error: String },
}

/// A time and a value, which is text since JSON has no NaN.
type Sample = (f64, String);

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Scalar(Sample),
    String(Sample),
    Vector(Vec<Series>),
    Matrix(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Series {
    value: Sample,
}

impl Data {
    fn number(self) -> Result<Figure, QueryError> {
        let text = match self {
            Self::Scalar((_, text)) => text,
            Self::Vector(series) => match <[Series; 1]>::try_from(series) {
                Ok([Series { value: (_, text) }]) => text,
                Err(series) => return Err(QueryError::NotOne(format!("{} series", series.len()))),
            },
            Self::String((_, text)) => return Err(QueryError::NotOne(format!("the text {text:?}"))),
            Self::Matrix(_) => return Err(QueryError::NotOne("a range".into())),
        };
        text.parse().ok().and_then(Figure::new).ok_or(QueryError::NotOne(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Figure, String> {
        match serde_json::from_str(json).unwrap() {
            Answer::Success { data } => data.number().map_err(|e| e.to_string()),
            Answer::Error { error } => Err(error),
        }
    }

    /// Answers as Prometheus 2.42 writes them.
    #[test]
    fn one_number_is_read_and_nothing_else() {
        let vector = |result: &str| {
            read(&format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}}}}"#))
        };
        let sample = |value: &str| format!(r#"{{"metric":{{"job":"a"}},"value":[1764000000.1,"{value}"]}}"#);
        assert_eq!(vector(&sample("0.25")).ok(), Figure::new(0.25));
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1764000000.1,"3"]}}"#;
        assert_eq!(read(scalar).ok(), Figure::new(3.0));
        let two = [sample("1"), sample("2")].join(",");
        for (answer, word) in [
            (vector(""), "0 series"),
            (vector(&two), "2 series"),
            (vector(&sample("NaN")), "NaN"),
            (vector(&sample("+Inf")), "+Inf"),
            (read(r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#), "a range"),
            (read(r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#), "parse error"),
        ] {
            assert!(answer.as_ref().is_err_and(|e| e.contains(word)), "{word}: {answer:?}");
        }
    }
}
