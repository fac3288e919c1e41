//! The reconciler: gather, plan, execute; again whenever something may have changed.
//!
//! It takes no input but what it gathers: a wake says "look". A crash, a restart and a rollback walk the same path.

mod calls;
mod drifts;
mod execute;
mod gather;

use std::sync::Arc;
use std::time::{Duration, Instant};

use modelyard_core::inputs::Inputs;
use modelyard_core::{Epoch, Timestamp};
use modelyard_store::StoreError;

use crate::app::{App, now};
use crate::office::NotInOffice;
use calls::Calls;
use drifts::Drifts;

/// Between looks when wakes come in a storm: a thousand pods that get ready are few looks, not a thousand. What people
/// wrote does not wait for it.
const GAP: Duration = Duration::from_millis(20);
/// The same where a look takes long: twice as long as it, so that the processor has something else to do, too.
const LONGEST_GAP: Duration = Duration::from_millis(250);
/// A look without a wake, in case one was lost.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(5);
/// Between looks while Postgres is gone.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Why a look did not lead to all that it should have.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error(transparent)]
    NotInOffice(#[from] NotInOffice),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Runs until another control plane turns out to have taken office; answers with its epoch. A term whose lease has
/// lapsed goes on looking, and acts again once it is renewed.
pub async fn run(app: Arc<App>) -> Epoch {
    let mut changes = app.runtime.changes();
    let mut last: Option<Inputs> = None;
    let mut calls = Calls::new();
    let mut drifts = Drifts::default();
    loop {
        changes.mark_unchanged();
        let began = Instant::now();
        let next_look = match pass(&app, &mut last, &mut calls, &mut drifts).await {
            Ok(wake_at) => until(wake_at),
            Err(Unfinished::Store(StoreError::Fenced { seen, .. })) => return seen,
            Err(error) => {
                tracing::warn!(%error, "no decision can be made; traffic goes on as it was");
                execute::refresh_backends(&app, last.as_ref(), &calls).await;
                RETRY_AFTER
            }
        };
        let gap = tokio::time::Instant::now() + (2 * began.elapsed()).clamp(GAP, LONGEST_GAP);
        tokio::select! {
            () = app.wake.urgent() => continue,
            () = app.wake.wanted() => {}
            _ = changes.changed() => {}
            () = calls.wanted_again() => {}
            () = tokio::time::sleep(next_look) => {}
        }
        tokio::select! {
            () = app.wake.urgent() => {}
            () = tokio::time::sleep_until(gap) => {}
        }
    }
}

/// One reconcile, top to bottom. Answers when time alone calls for the next.
async fn pass(
    app: &Arc<App>,
    last: &mut Option<Inputs>,
    calls: &mut Calls,
    drifts: &mut Drifts,
) -> Result<Option<Timestamp>, Unfinished> {
    calls.reap();
    let inputs = gather::inputs(app, now(), last, calls, drifts).await?;
    app.term.check()?;
    let plan = modelyard_planner::plan(inputs);
    drifts.note(&inputs.observation, &plan.ensure, inputs.now);
    calls.look_after_removals_but_of(|id| plan.remove.contains(id));
    calls.forget_failures_but_of(|id| plan.ensure.contains_key(id) || plan.remove.contains(id));
    let wake_at = plan.wake_at;
    execute::plan(app, plan, calls).await?;
    execute::note(app, drifts).await?;
    Ok(wake_at)
}

fn until(wake_at: Option<Timestamp>) -> Duration {
    let wait = wake_at.map(|at| at.since(now()).as_duration());
    // The clock has milliseconds: one more, so that the time has come when we look.
    wait.map_or(LOOK_AT_LEAST_EVERY, |wait| (wait + Duration::from_millis(1)).min(LOOK_AT_LEAST_EVERY))
}
