//! Calls to the runtime, made beside the reconciler: one that hangs holds up no decision and no traffic.
//!
//! A workload has one call at a time. What else is asked of it meanwhile is not queued but asked again, by the look that
//! follows the call's end: it may be something else by then.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use modelyard_core::{Workload, WorkloadId};
use tokio::sync::Semaphore;
use tokio::task::{self, JoinError, JoinSet};

use crate::app::App;

/// Calls at a time.
const AT_ONCE: usize = 16;

/// The calls of one term of office: those that are under way when it is dropped are given up.
pub(super) struct Calls {
    tasks: JoinSet<Result<(), Failure>>,
    /// What each of them is about.
    workloads: HashMap<task::Id, WorkloadId>,
    under_way: BTreeMap<WorkloadId, UnderWay>,
    room: Arc<Semaphore>,
    /// What came of each workload's last call, if it failed.
    failures: BTreeMap<WorkloadId, String>,
}

/// Why a call did not do what it was made for, in words.
struct Failure(String);

struct UnderWay {
    call: Call,
    /// Something else was asked for the workload since.
    is_overtaken: bool,
}

#[derive(Clone, PartialEq)]
enum Call {
    Ensure(Box<Workload>),
    Remove(WorkloadId),
}

impl Calls {
    pub(super) fn new() -> Self {
        Self {
            tasks: JoinSet::new(),
            workloads: HashMap::new(),
            under_way: BTreeMap::new(),
            room: Arc::new(Semaphore::new(AT_ONCE)),
            failures: BTreeMap::new(),
        }
    }

    /// Has a workload started, scaled or mended.
    pub(super) fn ensure(&mut self, app: &Arc<App>, workload: Workload) {
        self.make(app, workload.id.clone(), Call::Ensure(Box::new(workload)));
    }

    pub(super) fn remove(&mut self, app: &Arc<App>, id: WorkloadId) {
        self.make(app, id.clone(), Call::Remove(id));
    }

    /// What is being removed. It may be there for as long as its call takes, and gone at any moment.
    pub(super) fn removing(&self) -> impl Iterator<Item = &WorkloadId> {
        self.under_way.values().filter_map(|under_way| match &under_way.call {
            Call::Remove(id) => Some(id),
            Call::Ensure(_) => None,
        })
    }

    fn make(&mut self, app: &Arc<App>, id: WorkloadId, call: Call) {
        if let Some(under_way) = self.under_way.get_mut(&id) {
            under_way.is_overtaken = under_way.call != call;
            return;
        }
        self.under_way.insert(id.clone(), UnderWay { call: call.clone(), is_overtaken: false });
        let (app, room) = (app.clone(), self.room.clone());
        let task = self.tasks.spawn(async move {
            // The semaphore is never closed.
            let _room = room.acquire().await;
            call.make(&app).await
        });
        self.workloads.insert(task.id(), id);
    }

    /// What is being removed and is wanted again is unknown until the call has ended: a look follows it.
    pub(super) fn look_after_removals_but_of(&mut self, is_to_go: impl Fn(&WorkloadId) -> bool) {
        for (id, under_way) in &mut self.under_way {
            under_way.is_overtaken |= matches!(under_way.call, Call::Remove(_)) && !is_to_go(id);
        }
    }

    /// A failure is over once nothing is asked for its workload any more.
    pub(super) fn forget_failures_but_of(&mut self, is_asked_for: impl Fn(&WorkloadId) -> bool) {
        self.failures.retain(|id, _| is_asked_for(id));
    }

    /// What was asked of the runtime and not done, by workload.
    pub(super) fn failures(&self) -> &BTreeMap<WorkloadId, String> {
        &self.failures
    }

    /// Forgets the calls that have ended: a look begins, and sees what became of them.
    pub(super) fn reap(&mut self) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.end(ended);
        }
    }

    /// Ends when a call has ended after which another is wanted, or of which people are to be told. Can be given up at
    /// any time.
    pub(super) async fn wanted_again(&mut self) {
        let mut is_wanted = false;
        loop {
            // All that have ended lead to one look.
            let ended = match self.tasks.try_join_next_with_id() {
                None if is_wanted => return,
                None => self.tasks.join_next_with_id().await,
                ended => ended,
            };
            match ended {
                Some(ended) => is_wanted |= self.end(ended),
                None => std::future::pending().await,
            }
        }
    }

    /// Whether a look is wanted: for another call, or to tell what came of this one.
    fn end(&mut self, ended: Result<(task::Id, Result<(), Failure>), JoinError>) -> bool {
        let (task, failure) = match ended {
            Ok((task, outcome)) => (task, outcome.err().map(|Failure(words)| words)),
            Err(error) => {
                tracing::error!(%error, "a call to the runtime broke off");
                (error.id(), Some(format!("a call to the runtime broke off: {error}")))
            }
        };
        let Some(id) = self.workloads.remove(&task) else { return false };
        let is_overtaken = self.under_way.remove(&id).is_some_and(|under_way| under_way.is_overtaken);
        let before = match &failure {
            Some(words) => self.failures.insert(id, words.clone()),
            None => self.failures.remove(&id),
        };
        // Words may differ each time: those are told by the next look there is.
        is_overtaken || before.is_some() != failure.is_some()
    }
}

impl Call {
    /// A failure is told, and the call made again by a later look.
    async fn make(self, app: &App) -> Result<(), Failure> {
        // Whoever holds no lease asks for nothing; nor does it know what its successor asks for.
        if app.term.check().is_err() {
            return Ok(());
        }
        let epoch = app.term.epoch();
        match self {
            Self::Ensure(workload) => app.runtime.ensure(&workload, epoch).await.map_err(|error| {
                tracing::warn!(workload = %workload.id, %error, "a workload could not be ensured; trying again");
                Failure(format!("{} could not be ensured: {error}", workload.id))
            }),
            Self::Remove(id) => app.runtime.remove(&id, epoch).await.map_err(|error| {
                tracing::warn!(workload = %id, %error, "a workload could not be removed; trying again");
                Failure(format!("{id} could not be removed: {error}"))
            }),
        }
    }
}
