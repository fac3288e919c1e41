//! The watches: one per kind, each for as long as the runtime lives. They list once, and then only listen.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::core::DynamicObject;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use modelyard_core::WorkloadId;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::error::chain;
use crate::kind::Kind;
use crate::names;
use crate::pods::{self, PodView};
use crate::world::{FenceSeen, Live, Source, World};
use crate::write::ANSWER;
use crate::{credentials, fence};

const FIRST_RETRY: Duration = Duration::from_millis(100);
/// An API server that comes back is soon heard of.
const LONGEST_RETRY: Duration = Duration::from_secs(1);
/// A watch is opened anew after so many seconds, and one that has died is given up 5 s later. Nothing else would tell:
/// where nothing changes, nothing comes.
const OPEN_FOR: u32 = 60;
/// The code of `410 Gone`.
const TOO_OLD: u16 = 410;
/// Without an error for so long, a watch works, though nothing happens: by then a server that is not there, or that does
/// not answer, would have been found out.
const QUIET_IS_WELL: Duration = ANSWER.saturating_add(Duration::from_secs(2));

/// Everything that must have been listed once before anything is known.
pub(crate) fn sources(world: &World) -> Vec<Source> {
    let kinds = world.served.kinds().map(Source::Objects);
    kinds.chain([Source::Pods, Source::Fence, Source::Credentials]).collect()
}

/// Starts the watches; they end with the set.
pub(crate) fn start(cluster: &Cluster, world: &Arc<World>) -> JoinSet<()> {
    let mut watches = JoinSet::new();
    let Cluster { client, namespace } = cluster;
    for kind in world.served.kinds() {
        let Some(resource) = world.served.resource(kind) else { continue };
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
        watches.spawn(follow(api, ours(), world.clone(), Objects { kind, listing: Vec::new() }));
    }
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    watches.spawn(follow(pods, ours(), world.clone(), Pods::default()));
    let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let by_name = |name: &str| config().fields(&format!("metadata.name={name}"));
    watches.spawn(follow(maps, by_name(fence::NAME), world.clone(), Fence::default()));
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    watches.spawn(follow(secrets, by_name(credentials::WORKER_SECRET), world.clone(), Credentials::default()));
    watches
}

fn ours() -> watcher::Config {
    config().labels(&names::ours())
}

fn config() -> watcher::Config {
    watcher::Config::default().timeout(OPEN_FOR)
}

/// What becomes of what a watch tells.
trait Follower<K>: Send + 'static {
    fn source(&self) -> Source;
    /// A list begins: what is collected from here on replaces all that is known.
    fn restart(&mut self);
    fn listed(&mut self, object: K);
    fn list_done(&mut self, world: &World);
    fn changed(&mut self, world: &World, object: K);
    fn gone(&mut self, world: &World, object: K);
}

async fn follow<K, F>(api: Api<K>, config: watcher::Config, world: Arc<World>, mut follower: F)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    F: Follower<K>,
{
    let source = follower.source();
    let mut events = std::pin::pin!(watcher(api, config));
    let mut retry = FIRST_RETRY;
    let mut in_doubt = false;
    loop {
        let next = if in_doubt && world.is_synced(&[source]) {
            match tokio::time::timeout(QUIET_IS_WELL, events.next()).await {
                Ok(next) => next,
                Err(_) => {
                    (in_doubt, retry) = (false, FIRST_RETRY);
                    world.synced(source);
                    continue;
                }
            }
        } else {
            events.next().await
        };
        match next {
            Some(Ok(event)) => {
                match event {
                    // Nothing has been heard yet: it is about to ask.
                    Event::Init => {
                        follower.restart();
                        continue;
                    }
                    Event::InitApply(object) => follower.listed(object),
                    Event::InitDone => follower.list_done(&world),
                    Event::Apply(object) => follower.changed(&world, object),
                    Event::Delete(object) => follower.gone(&world, object),
                }
                retry = FIRST_RETRY;
                if in_doubt && world.is_synced(&[source]) {
                    in_doubt = false;
                    world.synced(source);
                }
            }
            Some(Err(error)) => {
                // A watch that is too old is listed anew, and a connection that ends is no trouble if it comes back.
                tracing::debug!(?source, %error, "a watch was cut off");
                // To be told that what one knows is too old is an answer: it is listed anew.
                let is_answered = matches!(&error, watcher::Error::WatchError(status) if status.code == TOO_OLD);
                if in_doubt && !is_answered {
                    world.broken(source, chain(&error));
                }
                in_doubt = true;
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(LONGEST_RETRY);
            }
            None => return,
        }
    }
}

struct Objects {
    kind: Kind,
    listing: Vec<(WorkloadId, Live)>,
}

impl Follower<DynamicObject> for Objects {
    fn source(&self) -> Source {
        Source::Objects(self.kind)
    }
    fn restart(&mut self) {
        self.listing.clear();
    }
    fn listed(&mut self, object: DynamicObject) {
        self.listing.extend(Live::read(object));
    }
    fn list_done(&mut self, world: &World) {
        world.relist(self.kind, std::mem::take(&mut self.listing));
    }
    fn changed(&mut self, world: &World, object: DynamicObject) {
        if let Some((id, live)) = Live::read(object) {
            world.see(self.kind, &id, live);
        }
    }
    fn gone(&mut self, world: &World, object: DynamicObject) {
        if let Some((id, live)) = Live::read(object) {
            world.miss(self.kind, &id, &live.uid);
        }
    }
}

#[derive(Default)]
struct Pods {
    listing: BTreeMap<String, PodView>,
}

fn named(pod: &Pod) -> Option<(String, PodView)> {
    Some((pod.metadata.name.clone()?, pods::view(pod)?))
}

impl Follower<Pod> for Pods {
    fn source(&self) -> Source {
        Source::Pods
    }
    fn restart(&mut self) {
        self.listing.clear();
    }
    fn listed(&mut self, pod: Pod) {
        self.listing.extend(named(&pod));
    }
    fn list_done(&mut self, world: &World) {
        world.relist_pods(std::mem::take(&mut self.listing));
    }
    fn changed(&mut self, world: &World, pod: Pod) {
        if let Some((name, view)) = named(&pod) {
            world.see_pod(&name, view);
        }
    }
    fn gone(&mut self, world: &World, pod: Pod) {
        if let Some((name, view)) = named(&pod) {
            world.miss_pod(&view.workload, &name, &view.uid);
        }
    }
}

#[derive(Default)]
struct Fence {
    listed: Option<FenceSeen>,
}

impl Follower<ConfigMap> for Fence {
    fn source(&self) -> Source {
        Source::Fence
    }
    fn restart(&mut self) {
        self.listed = None;
    }
    fn listed(&mut self, map: ConfigMap) {
        self.listed = fence::read(&map);
    }
    fn list_done(&mut self, world: &World) {
        world.see_fence(self.listed.take());
        world.synced(Source::Fence);
    }
    fn changed(&mut self, world: &World, map: ConfigMap) {
        world.see_fence(fence::read(&map));
    }
    fn gone(&mut self, world: &World, _: ConfigMap) {
        world.see_fence(None);
    }
}

#[derive(Default)]
struct Credentials {
    listed: Option<i64>,
}

impl Follower<Secret> for Credentials {
    fn source(&self) -> Source {
        Source::Credentials
    }
    fn restart(&mut self) {
        self.listed = None;
    }
    fn listed(&mut self, secret: Secret) {
        self.listed = credentials::good_until(&secret);
    }
    fn list_done(&mut self, world: &World) {
        world.see_credential(self.listed.take());
        world.synced(Source::Credentials);
    }
    fn changed(&mut self, world: &World, secret: Secret) {
        world.see_credential(credentials::good_until(&secret));
    }
    fn gone(&mut self, world: &World, _: Secret) {
        world.see_credential(None);
    }
}
