//! The reconciler: gather, plan, execute; again whenever something may have changed.
//!
//! It takes no input but what it gathers: a wake says "look". A crash, a restart and a rollback walk the same path.

mod execute;
mod gather;

use std::sync::Arc;
use std::time::Duration;

use modelyard_core::Timestamp;
use modelyard_core::inputs::Inputs;
use modelyard_store::StoreError;
use tokio_util::sync::CancellationToken;

use crate::app::{App, now};

/// A look without a wake, in case one was lost.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(5);
/// Between looks while Postgres is gone.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Runs until cancelled, or until another control plane has taken office.
///
/// # Errors
/// [`StoreError::Fenced`].
pub async fn run(app: Arc<App>, stop: CancellationToken) -> Result<(), StoreError> {
    let mut changes = app.runtime.changes();
    let mut last: Option<Inputs> = None;
    loop {
        changes.mark_unchanged();
        let next_look = match pass(&app, &mut last).await {
            Ok(wake_at) => until(wake_at),
            Err(fenced @ StoreError::Fenced { .. }) => return Err(fenced),
            Err(error) => {
                tracing::warn!(%error, "the database does not answer; traffic goes on as it was");
                execute::refresh_backends(&app, last.as_ref()).await;
                RETRY_AFTER
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = app.wake.wanted() => {}
            _ = changes.changed() => {}
            () = tokio::time::sleep(next_look) => {}
        }
    }
}

/// One reconcile, top to bottom. Answers when time alone calls for the next.
async fn pass(app: &App, last: &mut Option<Inputs>) -> Result<Option<Timestamp>, StoreError> {
    let inputs = gather::inputs(app, now()).await?;
    let plan = modelyard_planner::plan(&inputs);
    let done = execute::plan(app, &plan).await;
    *last = Some(inputs);
    done.map(|()| plan.wake_at)
}

fn until(wake_at: Option<Timestamp>) -> Duration {
    let wait = wake_at.map(|at| at.since(now()).as_duration());
    // The clock has milliseconds: one more, so that the time has come when we look.
    wait.map_or(LOOK_AT_LEAST_EVERY, |wait| (wait + Duration::from_millis(1)).min(LOOK_AT_LEAST_EVERY))
}
