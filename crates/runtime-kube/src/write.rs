//! Makes the cluster agree with a wish: one write per object that differs, none for one that does not.
//!
//! Writes compare and set: an object that was seen is written as it was last seen or not at all, so that a control plane
//! which has lost its office without noticing cannot undo what its successor did. What fails that way is read again, the
//! fence too, and if a later epoch has been there, given up. One that was not seen has nothing to compare with: before it
//! is made, as before each request, there is what the watch of the fence has told. What is on its way when the successor
//! moves the fence, or that watch is late, can so still be made; the successor sees it and sets it right.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::DynamicObject;
use modelyard_core::{Epoch, Workload, WorkloadId};
use modelyard_runtime::RuntimeError;
use serde_json::Value;

use crate::build;
use crate::cluster::Cluster;
use crate::credentials::Credentials;
use crate::error::KubeError;
use crate::fence::Fence;
use crate::kind::Kind;
use crate::names::FIELD_MANAGER;
use crate::observe;
use crate::world::{Live, World};

/// For the API server to answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);
/// An object whose status changes while it is being written is tried again so often.
const ATTEMPTS: usize = 8;

pub(crate) struct Writer {
    cluster: Cluster,
    world: Arc<World>,
    fence: Fence,
    credentials: Arc<Credentials>,
    /// One writer at a time per workload.
    turns: Mutex<HashMap<WorkloadId, Arc<tokio::sync::Mutex<()>>>>,
}

/// What an attempt came to.
enum Outcome {
    Done,
    /// Something was not as it was seen last; it has been looked at again.
    Moved,
}

/// The API server's answer within a time, in our own words.
pub(crate) async fn answered<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, KubeError> {
    match tokio::time::timeout(ANSWER, call).await {
        Ok(answer) => answer.map_err(KubeError::from),
        Err(_) => Err(KubeError::Unavailable(format!("it did not answer within {} s", ANSWER.as_secs()))),
    }
}

impl Writer {
    pub(crate) fn new(cluster: Cluster, world: Arc<World>, fence: Fence, credentials: Arc<Credentials>) -> Self {
        Self { cluster, world, fence, credentials, turns: Mutex::default() }
    }

    pub(crate) async fn ensure(&self, workload: &Workload, epoch: Epoch) -> Result<(), RuntimeError> {
        let turn = self.turn(&workload.id);
        let _mine = turn.lock().await;
        self.fence.admit(epoch).await?;
        let refusal = self.world.entry(&workload.id, |entry| entry.refusal.clone()).flatten();
        if let Some(refusal) = refusal.filter(|refusal| refusal.workload == *workload && refusal.is_fresh()) {
            return Err(RuntimeError::Refused(refusal.message));
        }
        if let Err(error) = self.credentials.freshen().await {
            // Workers wait for it and say so; the rest need not.
            tracing::warn!(%error, "workers' token could not be renewed");
        }
        let done = self.attempts(workload, epoch).await;
        match &done {
            Err(RuntimeError::Refused(why)) => self.world.refused(workload, Some(why.clone())),
            Ok(()) => self.world.refused(workload, None),
            Err(_) => {}
        }
        done
    }

    async fn attempts(&self, workload: &Workload, epoch: Epoch) -> Result<(), RuntimeError> {
        for _ in 0..ATTEMPTS {
            match self.attempt(workload, epoch).await? {
                Outcome::Done => return Ok(()),
                Outcome::Moved => {}
            }
        }
        Err(RuntimeError::Unavailable(format!("{} changes faster than it can be written", workload.id)))
    }

    async fn attempt(&self, workload: &Workload, epoch: Epoch) -> Result<Outcome, RuntimeError> {
        let (settings, served) = (&self.world.settings, &self.world.served);
        let read =
            |entry: &crate::world::Entry| (entry.objects.clone(), observe::wanted(workload, entry, settings, served).0);
        let (live, mut wanted) = self.world.entry(&workload.id, read).unwrap_or_else(|| {
            let nothing = crate::world::Entry::default();
            read(&nothing)
        });
        live.values().try_for_each(|live| admits(live, epoch))?;
        let deployment = live.get(&Kind::Deployment);
        if deployment.is_some_and(|live| live.deleting) {
            return Err(RuntimeError::Unavailable(format!("the Deployment {} is being deleted", workload.id)));
        }
        let is_as_wanted = |kind: Kind| observe::drift(kind, wanted.get(&kind), live.get(&kind)).is_empty();
        let mut stale: Vec<Kind> = served.kinds().filter(|kind| !is_as_wanted(*kind)).collect();
        let is_taken = deployment.is_some_and(|live| live.epoch == epoch && live.wish.as_ref() == Some(workload));
        if !is_taken && !stale.contains(&Kind::Deployment) {
            stale.insert(0, Kind::Deployment);
        }
        // First the one that carries the wish, and owns the others.
        let mut owner = deployment.map(|live| live.uid.clone());
        if stale.first() == Some(&Kind::Deployment)
            && let Some(object) = wanted.remove(&Kind::Deployment)
        {
            match self.apply(Kind::Deployment, &workload.id, object, deployment, epoch).await? {
                Some(written) => owner = Some(written.uid),
                None => return Ok(Outcome::Moved),
            }
        }
        let rest = stale.into_iter().filter(|kind| *kind != Kind::Deployment).map(|kind| {
            let (object, live, owner) = (wanted.get(&kind).cloned(), live.get(&kind), owner.as_deref());
            self.settle(kind, &workload.id, object, live, owner, epoch)
        });
        let settled = futures::future::try_join_all(rest).await?;
        Ok(if settled.into_iter().all(|fine| fine) { Outcome::Done } else { Outcome::Moved })
    }

    /// Writes an object that belongs to a Deployment, or deletes one that is not wanted. False if it had changed.
    async fn settle(
        &self,
        kind: Kind,
        id: &WorkloadId,
        object: Option<Value>,
        live: Option<&Live>,
        owner: Option<&str>,
        epoch: Epoch,
    ) -> Result<bool, RuntimeError> {
        match (object, live) {
            (Some(mut object), live) => {
                if let Some(owner) = owner {
                    build::own(&mut object, owner);
                }
                Ok(self.apply(kind, id, object, live, epoch).await?.is_some())
            }
            (None, Some(live)) => self.delete(kind, id, live, epoch).await,
            (None, None) => Ok(true),
        }
    }

    /// Server-side apply. `None` if the object was not as it was seen last; it is seen as it is now.
    async fn apply(
        &self,
        kind: Kind,
        id: &WorkloadId,
        mut object: Value,
        live: Option<&Live>,
        epoch: Epoch,
    ) -> Result<Option<Live>, RuntimeError> {
        build::stamp(&mut object, epoch, live.map(Live::version));
        let name = build::name(id, kind);
        // What is ours is ours to set back. What has our name and not our labels is somebody else's: no force there.
        let params = PatchParams { force: live.is_some(), ..PatchParams::apply(FIELD_MANAGER) };
        let api = self.api(kind)?;
        self.fence.still(epoch)?;
        let answer = answered(api.patch(&name, &params, &Patch::Apply(&object))).await;
        match answer {
            Ok(object) => {
                let (_, written) =
                    Live::read(object).ok_or_else(|| RuntimeError::Unavailable("a strange answer".into()))?;
                self.world.see(kind, id, written.clone());
                Ok(Some(written))
            }
            Err(KubeError::Conflict(_)) if live.is_some() => {
                self.look_again(kind, id, live, epoch).await?;
                Ok(None)
            }
            Err(KubeError::Conflict(why)) => {
                let message =
                    format!("there is a {} {name} that Modelyard did not make ({why}); remove it", kind.name());
                Err(RuntimeError::Refused(message))
            }
            Err(KubeError::NotFound(why)) => Err(RuntimeError::Refused(why)),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn remove(&self, id: &WorkloadId, epoch: Epoch) -> Result<(), RuntimeError> {
        let turn = self.turn(id);
        let _mine = turn.lock().await;
        self.fence.admit(epoch).await?;
        self.world.forget_refusal(id);
        for _ in 0..ATTEMPTS {
            let live = self.world.entry(id, |entry| entry.objects.get(&Kind::Deployment).cloned()).flatten();
            live.iter().try_for_each(|live| admits(live, epoch))?;
            // Pods and all that belongs to it follow, by the cluster's own garbage collector.
            let Some(live) = live.filter(|live| !live.deleting) else { return Ok(()) };
            if self.delete(Kind::Deployment, id, &live, epoch).await? {
                return Ok(());
            }
        }
        Err(RuntimeError::Unavailable(format!("{id} changes faster than it can be removed")))
    }

    /// False if it was not as it was seen last; it is seen as it is now.
    async fn delete(&self, kind: Kind, id: &WorkloadId, live: &Live, epoch: Epoch) -> Result<bool, RuntimeError> {
        let preconditions =
            Preconditions { uid: Some(live.uid.clone()), resource_version: Some(live.resource_version.clone()) };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        let api = self.api(kind)?;
        self.fence.still(epoch)?;
        match answered(api.delete(&build::name(id, kind), &params)).await {
            Ok(_) | Err(KubeError::NotFound(_)) => {
                self.world.deleted(kind, id, &live.uid);
                Ok(true)
            }
            Err(KubeError::Conflict(_)) => {
                self.look_again(kind, id, Some(live), epoch).await?;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// After a conflict: somebody has been there, and it may have been a successor.
    async fn look_again(
        &self,
        kind: Kind,
        id: &WorkloadId,
        was: Option<&Live>,
        epoch: Epoch,
    ) -> Result<(), RuntimeError> {
        self.fence.look(epoch).await?;
        let found = answered(self.api(kind)?.get_opt(&build::name(id, kind))).await?;
        match found.and_then(Live::read) {
            Some((_, live)) => self.world.see(kind, id, live),
            None => was.into_iter().for_each(|live| self.world.miss(kind, id, &live.uid)),
        }
        Ok(())
    }

    fn api(&self, kind: Kind) -> Result<Api<DynamicObject>, RuntimeError> {
        let not_served = || RuntimeError::Refused(format!("this cluster serves no {}", kind.name()));
        let resource = self.world.served.resource(kind).ok_or_else(not_served)?;
        Ok(Api::namespaced_with(self.cluster.client.clone(), &self.cluster.namespace, &resource))
    }

    fn turn(&self, id: &WorkloadId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(id.clone()).or_default().clone()
    }
}

/// The object itself knows who wrote it last: a successor may have, between its move of the fence and our look at it.
fn admits(live: &Live, epoch: Epoch) -> Result<(), RuntimeError> {
    match live.epoch {
        seen if seen > epoch => Err(RuntimeError::Fenced { given: epoch, seen }),
        _ => Ok(()),
    }
}
