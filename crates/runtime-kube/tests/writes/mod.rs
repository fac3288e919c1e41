//! What keeps a control plane that has lost its office, and does not know, from undoing what its successor did.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::conditions::is_deleted;
use kube::runtime::wait::await_condition;
use modelyard_core::{Epoch, Workload};
use modelyard_runtime::conformance::{Behaviour, Harness as _};
use modelyard_runtime::{Runtime as _, RuntimeError};
use serde_json::json;

use crate::support::Kube;

const FENCE: &str = "modelyard-fence";
const FIRST: Epoch = Epoch(1);
const SECOND: Epoch = Epoch(2);

async fn gone(deployments: &Api<Deployment>, uid: &str, name: &str) {
    let gone = await_condition(deployments.clone(), name, is_deleted(uid));
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("in time").unwrap();
}

/// A workload that is written and runs nothing, and the same with another wish.
async fn written(kube: &Kube) -> (Workload, Workload, String) {
    let workload = kube.workload(Behaviour::Serves, 0).await;
    kube.runtime().ensure(&workload, FIRST).await.unwrap();
    let uid = kube.api::<Deployment>().get(workload.id.as_str()).await.unwrap().metadata.uid.unwrap();
    let other = Workload { node_selector: [("disk".to_owned(), "ssd".to_owned())].into(), ..workload.clone() };
    (workload, other, uid)
}

#[tokio::test]
async fn what_a_successor_removed_is_not_made_again_by_who_has_last_seen_it_there() {
    let kube = Kube::fresh().await;
    let (workload, other, uid) = written(&kube).await;
    let id = &workload.id;
    // Its watches are dead, as after a long sleep: it knows the object, and its own epoch on the fence.
    kube.runtime().shutdown().await;
    let successor = kube.another().await;
    successor.remove(id, SECOND).await.unwrap();
    let deployments = kube.api::<Deployment>();
    gone(&deployments, &uid, id.as_str()).await;

    let refused = kube.runtime().ensure(&other, FIRST).await;
    assert!(matches!(refused, Err(RuntimeError::Fenced { given: FIRST, seen: SECOND })), "{refused:?}");
    assert!(deployments.get_opt(id.as_str()).await.unwrap().is_none());
}

#[tokio::test]
async fn what_vanished_unseen_is_made_again_by_who_is_in_office() {
    let kube = Kube::fresh().await;
    let (workload, other, uid) = written(&kube).await;
    let id = &workload.id;
    kube.runtime().shutdown().await;
    let deployments = kube.api::<Deployment>();
    deployments.delete(id.as_str(), &DeleteParams::background()).await.unwrap();
    gone(&deployments, &uid, id.as_str()).await;

    kube.runtime().ensure(&other, FIRST).await.unwrap();
    assert_ne!(deployments.get(id.as_str()).await.unwrap().metadata.uid, Some(uid));
}

#[tokio::test]
async fn a_fence_that_says_nothing_is_written_anew_and_lets_no_earlier_epoch_pass() {
    let mut kube = Kube::fresh().await;
    let (workload, other, _) = written(&kube).await;
    let maps = kube.api::<ConfigMap>();
    let epoch = async || maps.get(FENCE).await.unwrap().data.unwrap_or_default().get("epoch").cloned();
    let spoil = async |data| {
        let patch = Patch::Merge(json!({"data": data}));
        maps.patch(FENCE, &PatchParams::default(), &patch).await.unwrap();
    };

    spoil(json!({"epoch": "a word"})).await;
    kube.reopen().await;
    kube.runtime().ensure(&other, SECOND).await.unwrap();
    assert_eq!(epoch().await.as_deref(), Some("2"));

    spoil(json!({"epoch": null})).await;
    kube.reopen().await;
    let refused = kube.runtime().ensure(&workload, FIRST).await;
    assert!(matches!(refused, Err(RuntimeError::Fenced { given: FIRST, seen: SECOND })), "{refused:?}");
    assert_eq!(epoch().await, None, "who is refused writes nothing");
}
