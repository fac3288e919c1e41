//! Follows rollouts until they end, and says on the way what they wait on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use modelyard_api::types::{Deployment, Revision};
use modelyard_api::{Client, ClientError};
use modelyard_core::state::{Cause, Outcome, Phase};
use modelyard_core::{DeploymentName, RevisionNumber};

use super::{output, render};

const INTERVAL: Duration = Duration::from_millis(200);
/// How long the server may be away, as in its own restart.
const OUTAGE: Duration = Duration::from_secs(30);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a line is printed for numbers alone.
const NUMBERS: Duration = Duration::from_secs(2);

/// A rollout to follow.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) deployment: DeploymentName,
    pub(super) revision: RevisionNumber,
    /// Whether a rollback is an end to be glad of: where a rollback or an abort is what was asked for.
    pub(super) rollback_is_success: bool,
}

/// What a look at a revision says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Look {
    Waiting,
    Done,
    /// Another revision took its place; that one decides.
    Moved(RevisionNumber),
    Failed(String),
}

/// Follows every target to its end.
///
/// # Errors
/// One that was rolled back or deleted; the time running out; the server away for longer than half a minute.
pub(super) async fn until_done(client: &Client, targets: Vec<Target>, limit: Option<Duration>) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut board = Board::new();
    let mut pending = targets;
    let mut failures = Vec::new();
    let mut away: Option<Instant> = None;
    while !pending.is_empty() {
        let mut still = Vec::new();
        for mut target in std::mem::take(&mut pending) {
            match in_time(client, look(client, &target, &mut board)).await {
                Ok(found) => {
                    if away.take().is_some() {
                        board.note(&format!("{} answers again", client.server()));
                    }
                    match found {
                        Look::Waiting => still.push(target),
                        Look::Done => board.done(&target)?,
                        Look::Moved(to) => {
                            target.revision = to;
                            still.push(target);
                        }
                        Look::Failed(why) => {
                            board.close(&target.deployment);
                            failures.push(format!("{}: {why}", target.deployment));
                        }
                    }
                }
                Err(Trouble::Server(error)) if is_outage(&error) => {
                    match away {
                        None => {
                            away = Some(Instant::now());
                            board.note(&format!("{error}\nretrying for {} s", OUTAGE.as_secs()));
                        }
                        Some(since) if since.elapsed() > OUTAGE => return Err(error.into()),
                        Some(_) => {}
                    }
                    still.push(target);
                }
                Err(Trouble::Server(error)) => return Err(error.into()),
                Err(Trouble::Output(error)) => return Err(error.into()),
            }
        }
        pending = still;
        if let Some(limit) = limit.filter(|limit| begun.elapsed() >= *limit && !pending.is_empty()) {
            let waits = pending.iter().map(|t| format!("{}: {}", t.deployment, board.last(&t.deployment)));
            failures.extend(waits);
            board.clear();
            anyhow::bail!("not done after {} s; {}", limit.as_secs(), failures.join("; "));
        }
        if !pending.is_empty() {
            tokio::time::sleep(INTERVAL).await;
        }
    }
    board.clear();
    anyhow::ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

/// A server that takes the call and says nothing is away, too.
async fn in_time(client: &Client, look: impl Future<Output = Result<Look, Trouble>>) -> Result<Look, Trouble> {
    let silent = |_| {
        let message = format!("no answer within {} s", PATIENCE.as_secs());
        Err(Trouble::Server(ClientError::Unreachable { server: client.server().to_owned(), message }))
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(silent)
}

enum Trouble {
    Server(ClientError),
    Output(std::io::Error),
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        Self::Server(error)
    }
}

/// Whether the server may be back soon: it restarts, or its database is away.
fn is_outage(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Refused(problem) => problem.status >= 500,
        ClientError::Unexpected { status, .. } => status.as_u16() >= 500 || status.is_success(),
        ClientError::File { .. } => false,
    }
}

async fn look(client: &Client, target: &Target, board: &mut Board) -> Result<Look, Trouble> {
    let name = &target.deployment;
    let deployment = match client.deployment(name).await {
        Ok(deployment) => deployment,
        Err(ClientError::Refused(problem)) if problem.status == 404 => return Ok(Look::Failed("it is gone".into())),
        Err(error) => return Err(error.into()),
    };
    board.show(&deployment).map_err(Trouble::Output)?;
    if may_have_ended(&deployment, target.revision) {
        let revision = client.revision(name, target.revision).await?;
        let next = match revision.outcome {
            Outcome::Superseded { by } | Outcome::RolledBack { by, .. } => Some(client.revision(name, by).await?),
            Outcome::Pending | Outcome::Completed { .. } => None,
        };
        return Ok(judge(&revision, next.as_ref(), target.rollback_is_success));
    }
    Ok(Look::Waiting)
}

/// Whether it is worth asking for the revision's outcome.
fn may_have_ended(deployment: &Deployment, revision: RevisionNumber) -> bool {
    let seen = deployment.status.as_ref();
    deployment.generation > revision
        || seen.is_some_and(|report| report.observed_revision >= revision && report.phase == Phase::Completed)
}

/// What a revision's outcome means to who waits for it. `next`: the revision that took its place.
fn judge(revision: &Revision, next: Option<&Revision>, rollback_is_success: bool) -> Look {
    match (&revision.outcome, next) {
        (Outcome::Pending, _) => Look::Waiting,
        (Outcome::Completed { .. }, _) => Look::Done,
        (Outcome::RolledBack { by, .. } | Outcome::Superseded { by }, _) if rollback_is_success => Look::Moved(*by),
        (Outcome::RolledBack { by, reason }, _) => {
            Look::Failed(format!("revision {} was rolled back by revision {by}: {reason}", revision.number))
        }
        (Outcome::Superseded { by }, Some(Revision { cause: Cause::Rollback { to, reason, .. }, .. })) => {
            let number = revision.number;
            Look::Failed(format!("revision {number} gave way to {by}, a rollback to revision {to}: {reason}"))
        }
        (Outcome::Superseded { by }, _) => Look::Moved(*by),
    }
}

/// Where progress is shown: a bar per deployment on a terminal, lines in a pipe.
struct Board {
    bars: Option<MultiProgress>,
    shown: BTreeMap<DeploymentName, Shown>,
}

struct Shown {
    bar: Option<Bar>,
    steady: String,
    waiting: String,
    printed: Instant,
}

impl Board {
    fn new() -> Self {
        Self { bars: output::is_terminal().then(MultiProgress::new), shown: BTreeMap::new() }
    }

    fn show(&mut self, deployment: &Deployment) -> std::io::Result<()> {
        let name = &deployment.name;
        let (steady, waiting) = (render::steady(deployment), render::waiting(deployment));
        let new = !self.shown.contains_key(name);
        let bars = self.bars.as_ref();
        let shown = self.shown.entry(name.clone()).or_insert_with(|| Shown {
            bar: bars.map(|bars| Bar::new(bars, name)),
            steady: String::new(),
            waiting: String::new(),
            printed: Instant::now(),
        });
        let changed = shown.steady != steady;
        let numbers = shown.waiting != waiting && shown.printed.elapsed() >= NUMBERS;
        if let Some(bar) = &shown.bar {
            bar.share.set_position(latest_weight(deployment));
            bar.share.set_message(steady.clone());
            bar.waiting.set_message(waiting.clone());
        } else if new || changed || numbers {
            output::say(format_args!("{name}: {}", line(&steady, &waiting)))?;
        } else {
            return Ok(());
        }
        *shown = Shown { bar: shown.bar.take(), steady, waiting, printed: Instant::now() };
        Ok(())
    }

    /// What a deployment was doing when last seen.
    fn last(&self, name: &DeploymentName) -> String {
        self.shown.get(name).map_or_else(|| "never seen".into(), |shown| line(&shown.steady, &shown.waiting))
    }

    fn done(&mut self, target: &Target) -> std::io::Result<()> {
        self.close(&target.deployment);
        let text = format!("modeldeployment/{}: revision {} serves all traffic", target.deployment, target.revision);
        match &self.bars {
            Some(bars) => bars.suspend(|| output::say(&text)),
            None => output::say(&text),
        }
    }

    fn note(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| output::note(text)),
            None => output::note(text),
        }
    }

    fn close(&mut self, name: &DeploymentName) {
        if let Some(bar) = self.shown.get_mut(name).and_then(|shown| shown.bar.take()) {
            bar.share.finish_and_clear();
            bar.waiting.finish_and_clear();
        }
    }

    fn clear(&mut self) {
        if let Some(bars) = &self.bars {
            bars.clear().ok();
        }
    }
}

fn line(steady: &str, waiting: &str) -> String {
    if waiting.is_empty() { steady.to_owned() } else { format!("{steady} | {waiting}") }
}

/// Two lines, each cut to the terminal's width: how far it is, and what it waits on.
struct Bar {
    share: ProgressBar,
    waiting: ProgressBar,
}

impl Bar {
    fn new(bars: &MultiProgress, name: &DeploymentName) -> Self {
        let styled = |bar: ProgressBar, template: &str| match ProgressStyle::with_template(template) {
            Ok(style) => bars.add(bar.with_style(style.progress_chars("=> "))),
            Err(_) => bars.add(bar),
        };
        let share = ProgressBar::new(10_000).with_prefix(name.to_string());
        Self {
            share: styled(share, "{prefix} [{bar:20}] {wide_msg}"),
            waiting: styled(ProgressBar::new_spinner(), "  {wide_msg}"),
        }
    }
}

/// The share of traffic, in basis points, of the revision that the rollout leads to.
fn latest_weight(deployment: &Deployment) -> u64 {
    let Some(report) = &deployment.status else { return 0 };
    let latest = report.variants.iter().filter(|v| v.revision == report.observed_revision);
    latest.map(|v| u64::from(v.weight.basis_points())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::samples;
    use serde_json::{Value, json};

    fn look_at(outcome: Value, next: Option<&Revision>, rollback_is_success: bool) -> Look {
        judge(&samples::revision(2, outcome, json!({"kind": "applied"})), next, rollback_is_success)
    }

    fn third(cause: Value) -> Revision {
        samples::revision(3, json!({"kind": "pending"}), cause)
    }

    #[test]
    fn a_revision_is_waited_for_until_it_completes() {
        assert_eq!(look_at(json!({"kind": "pending"}), None, false), Look::Waiting);
        let completed = json!({"kind": "completed", "at": "2026-11-24T12:00:00Z"});
        assert_eq!(look_at(completed, None, false), Look::Done);
    }

    #[test]
    fn a_later_revision_takes_over_unless_it_is_a_rollback() {
        let superseded = || json!({"kind": "superseded", "by": 3});
        let applied = third(json!({"kind": "applied"}));
        assert_eq!(look_at(superseded(), Some(&applied), false), Look::Moved(RevisionNumber(3)));
        let back = third(json!({"kind": "rollback", "from": 2, "to": 1, "reason": "by hand"}));
        let why = "revision 2 gave way to 3, a rollback to revision 1: by hand";
        assert_eq!(look_at(superseded(), Some(&back), false), Look::Failed(why.into()));
        assert_eq!(look_at(superseded(), Some(&back), true), Look::Moved(RevisionNumber(3)));
    }

    #[test]
    fn a_revision_that_was_rolled_back_fails_with_the_reason() {
        let rolled_back = || json!({"kind": "rolledBack", "by": 3, "reason": "error rate 0.2"});
        let why = "revision 2 was rolled back by revision 3: error rate 0.2";
        assert_eq!(look_at(rolled_back(), None, false), Look::Failed(why.into()));
        assert_eq!(look_at(rolled_back(), None, true), Look::Moved(RevisionNumber(3)), "an abort asks for just that");
    }

    #[test]
    fn the_outcome_is_asked_for_when_the_report_is_about_the_revision_or_a_later_one_exists() {
        let mut deployment = samples::deployment();
        let two = RevisionNumber(2);
        assert!(!may_have_ended(&deployment, two), "it progresses");
        assert!(may_have_ended(&deployment, RevisionNumber(1)));
        if let Some(report) = &mut deployment.status {
            report.phase = Phase::Completed;
        }
        assert!(may_have_ended(&deployment, two));
        if let Some(report) = &mut deployment.status {
            report.observed_revision = RevisionNumber(1);
        }
        assert!(!may_have_ended(&deployment, two), "the report is about the revision before");
    }

    #[test]
    fn only_troubles_that_pass_are_outages() {
        let refused =
            |status| ClientError::Refused(Box::new(modelyard_api::ProblemDetails { status, ..Default::default() }));
        assert!(is_outage(&refused(503)));
        assert!(!is_outage(&refused(403)));
        assert!(is_outage(&ClientError::Unreachable { server: String::new(), message: String::new() }));
    }

    #[test]
    fn the_bar_shows_the_share_of_the_latest_revision() {
        assert_eq!(latest_weight(&samples::deployment()), 1_000);
    }
}
