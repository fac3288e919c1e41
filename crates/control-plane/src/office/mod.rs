//! Two control planes, one office: stands for it, serves each term of it, and stands by in between.
//!
//! Postgres decides who holds the office (`modelyard_store::Office`). This module never acts on a guess about others:
//! it only knows its own term, and ends it rather early than late.

mod identity;
mod keeper;
mod successor;
mod term;

use std::sync::Arc;
use std::time::Duration;

use modelyard_core::Epoch;
use modelyard_runtime::Runtime;
use modelyard_store::{Candidate, Claim, Office, Standing};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::identity::Identity;
pub use self::term::{Moment, NotInOffice, Term};
use crate::node::Node;
use crate::runtimes::{self, OpenError};
use crate::serve::Means;
use crate::wake::Wake;
use crate::{exposures, kubernetes, measurements, reconcile, sweep};

/// How long a control plane that says nothing stays in office.
const TTL: Duration = Duration::from_secs(5);
/// Between two looks of a standby at the office. With [`TTL`], a hand-over takes at most 6 s, and a moment where the
/// office is given back.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between attempts to have the runtime: the state directory from a predecessor that is about to let it go, or a cluster
/// that does not answer yet.
const RUNTIME_RETRY: Duration = Duration::from_millis(100);

/// How a term came to its end.
enum End {
    Deposed(Epoch),
    Stopped,
    /// The office cannot be held here at all.
    Failed(anyhow::Error),
}

/// Stands for office and serves each term, until cancelled.
///
/// # Errors
/// What keeps this process from acting although it is in office.
pub(crate) async fn run(means: &Means, node: &Node, stop: CancellationToken) -> anyhow::Result<()> {
    let candidate = Candidate { identity: node.identity().to_owned(), address: node.advertised().to_owned() };
    let office = Arc::new(means.store.office(candidate));
    let mut claim = Claim::Inherited;
    loop {
        let asked = Moment::now();
        match office.claim(claim, TTL).await {
            Ok(Standing::Held { epoch, .. }) => {
                claim = Claim::Vacant;
                serve(means, node, &office, Term::begin(epoch, asked, TTL), &stop).await?;
            }
            Ok(Standing::Standby(holder)) => {
                claim = Claim::Vacant;
                node.stand_by(holder);
            }
            Err(error) => {
                // It may have been granted, with the answer lost: then it is ours.
                claim = Claim::Inherited;
                node.database_is_silent(&error);
            }
        }
        tokio::select! {
            () = stop.cancelled() => {
                node.wait("this control plane stops");
                return Ok(());
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// One term of office, from its first act to its last.
async fn serve(
    means: &Means,
    node: &Node,
    office: &Arc<Office>,
    term: Term,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let epoch = term.epoch();
    tracing::info!(%epoch, identity = node.identity(), "control plane takes office");
    node.wait("this control plane is taking office");
    if let Err(error) = successor::announce(&means.config.state_dir, epoch) {
        tracing::warn!(%error, "a predecessor on this directory is not told");
    }
    let wake = Arc::new(Wake::default());
    let mut opened = None;
    let end = {
        let mut kept = keep(means, office, &term, &wake);
        tokio::select! {
            biased;
            () = stop.cancelled() => End::Stopped,
            successor = &mut kept => successor.map_or_else(|error| End::Failed(error.into()), End::Deposed),
            end = act(means, node, &term, &wake, &mut opened) => end,
        }
    };
    leave(node, &term, opened).await;
    match end {
        End::Deposed(successor) => {
            tracing::warn!(%epoch, %successor, "another control plane has taken office; standing by");
            Ok(())
        }
        End::Stopped => {
            give_back(office, epoch).await;
            Ok(())
        }
        End::Failed(error) => {
            give_back(office, epoch).await;
            Err(error)
        }
    }
}

/// In a task of its own: nothing that is done in office may keep the lease from being renewed.
fn keep(means: &Means, office: &Arc<Office>, term: &Term, wake: &Arc<Wake>) -> AbortOnDropHandle<Epoch> {
    let (office, term, wake) = (office.clone(), term.clone(), wake.clone());
    let state_dir = means.config.state_dir.clone();
    AbortOnDropHandle::new(tokio::spawn(async move { keeper::keep(&office, &term, &wake, &state_dir).await }))
}

/// What a control plane in office does, until it finds that another is. `opened` is the runtime, once there is one.
async fn act(means: &Means, node: &Node, term: &Term, wake: &Arc<Wake>, opened: &mut Option<Arc<dyn Runtime>>) -> End {
    let runtime = loop {
        match runtimes::open(&means.config, &means.store, means.artifacts.clone()).await {
            Ok(runtime) => break runtime,
            Err(OpenError::NotYet(why)) => {
                node.wait(&format!("this control plane is taking office, and waits: {why}"));
                tokio::time::sleep(RUNTIME_RETRY).await;
            }
            Err(OpenError::Failed(error)) => return End::Failed(error),
        }
    };
    *opened = Some(runtime.clone());
    let Some(access) = node.access().cloned() else {
        return End::Failed(anyhow::anyhow!("office was taken before it was known who may use the API"));
    };
    let app = match means.app(term.clone(), access, runtime, wake.clone()) {
        Ok(app) => Arc::new(app),
        Err(error) => return End::Failed(error),
    };
    node.enter(app.clone());
    tracing::info!(epoch = %term.epoch(), "control plane in office");
    tokio::select! {
        successor = reconcile::run(app.clone()) => End::Deposed(successor),
        never = exposures::run(app.clone()) => match never {},
        never = measurements::run(app.clone()) => match never {},
        never = sweep::run(app) => match never {},
        never = kubernetes::tokens::look_after(&means.config.kubernetes, &means.store) => match never {},
    }
}

/// No act of the term comes after this: its streams are cut, and the runtime is left to the next.
async fn leave(node: &Node, term: &Term, opened: Option<Arc<dyn Runtime>>) {
    term.end();
    node.wait("this control plane has just left office, and looks for the next");
    if let Some(runtime) = opened {
        runtime.shutdown().await;
    }
}

async fn give_back(office: &Office, epoch: Epoch) {
    match office.release(epoch).await {
        Ok(()) => tracing::info!(%epoch, "office given back"),
        Err(error) => {
            tracing::warn!(%epoch, %error, "the office could not be given back; its lease runs out by itself")
        }
    }
}
