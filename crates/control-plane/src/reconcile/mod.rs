//! The reconciler: gather, plan, execute; again whenever something may have changed.
//!
//! It takes no input but what it gathers: a wake says "look". A crash, a restart and a rollback walk the same path.

mod execute;
mod gather;

use std::sync::Arc;
use std::time::Duration;

use modelyard_core::inputs::Inputs;
use modelyard_core::{Epoch, Timestamp};
use modelyard_store::StoreError;

use crate::app::{App, now};
use crate::office::NotInOffice;

/// Between looks when wakes come in a storm: a thousand pods that get ready are few looks, not a thousand. What people
/// wrote does not wait for it.
const GAP: Duration = Duration::from_millis(20);
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
    loop {
        changes.mark_unchanged();
        let next_look = match pass(&app, &mut last).await {
            Ok(wake_at) => until(wake_at),
            Err(Unfinished::Store(StoreError::Fenced { seen, .. })) => return seen,
            Err(error) => {
                tracing::warn!(%error, "no decision can be made; traffic goes on as it was");
                execute::refresh_backends(&app, last.as_ref()).await;
                RETRY_AFTER
            }
        };
        let gap = tokio::time::Instant::now() + GAP;
        tokio::select! {
            () = app.wake.urgent() => continue,
            () = app.wake.wanted() => {}
            _ = changes.changed() => {}
            () = tokio::time::sleep(next_look) => {}
        }
        tokio::select! {
            () = app.wake.urgent() => {}
            () = tokio::time::sleep_until(gap) => {}
        }
    }
}

/// One reconcile, top to bottom. Answers when time alone calls for the next.
async fn pass(app: &App, last: &mut Option<Inputs>) -> Result<Option<Timestamp>, Unfinished> {
    let inputs = gather::inputs(app, now(), last).await?;
    app.term.check()?;
    let plan = modelyard_planner::plan(inputs);
    let wake_at = plan.wake_at;
    execute::plan(app, inputs, plan).await.map(|()| wake_at)
}

fn until(wake_at: Option<Timestamp>) -> Duration {
    let wait = wake_at.map(|at| at.since(now()).as_duration());
    // The clock has milliseconds: one more, so that the time has come when we look.
    wait.map_or(LOOK_AT_LEAST_EVERY, |wait| (wait + Duration::from_millis(1)).min(LOOK_AT_LEAST_EVERY))
}
