use std::time::Duration;

use modelyard_core::{Autoscaling, Batching, DisruptionBudget, EngineName, EngineSpec, Resources, Span, Toleration};

use super::*;
use crate::config::ArtifactCache;

pub(crate) fn workload() -> Workload {
    serde_json::from_value(json!({
        "id": "linear-0123456789",
        "deployment": "linear",
        "model": "linear",
        "version": "2",
        "format": "onnx",
        "digest": "0".repeat(64),
        "replicas": 2,
        "resources": {},
        "batching": null,
        "node_selector": {},
        "tolerations": [],
        "autoscaling": null,
        "disruption_budget": null,
    }))
    .expect("a workload")
}

fn build(workload: &Workload, settings: &KubeSettings) -> Objects {
    let served = Served::among(|_, _| true);
    objects(workload, Context { settings, served: &served, scaled_to: None })
}

fn settings() -> KubeSettings {
    KubeSettings::new("modelyard.dev/modelyard:1", "http://modelyard-control-plane:8080")
}

#[test]
fn a_plain_workload_is_a_deployment_and_a_service() {
    let mut built = build(&workload(), &settings());
    built.objects.values_mut().for_each(|object| stamp(object, Epoch(7), None));
    built.objects.get_mut(&Kind::Service).into_iter().for_each(|object| own(object, "a-uid"));
    insta::assert_yaml_snapshot!("plain", built.objects.values().collect::<Vec<_>>());
}

#[test]
fn a_workload_with_everything() {
    let toleration = Toleration {
        key: Some("gpu".into()),
        operator: "Exists".into(),
        value: None,
        effect: Some("NoSchedule".into()),
        toleration_seconds: None,
    };
    let workload = Workload {
        resources: Resources { cpu: Some("250m".into()), memory: Some("128Mi".into()), gpu: Some(1) },
        batching: Some(Batching { max_batch_size: 32, max_delay: Span::from_millis(2) }),
        node_selector: [("disk".to_owned(), "ssd".to_owned())].into(),
        tolerations: vec![toleration],
        autoscaling: Some(Autoscaling { min_replicas: 2, max_replicas: 8, target_cpu_utilization: 70 }),
        disruption_budget: Some(DisruptionBudget { max_unavailable: 1 }),
        ..workload()
    };
    let settings = KubeSettings {
        image_pull_secrets: vec!["registry".into()],
        ca_config_map: Some("modelyard-ca".into()),
        cache: ArtifactCache::Node { path: "/var/cache/modelyard".into() },
        gateway_labels: Some(vec![("app.kubernetes.io/component".into(), "gateway".into())]),
        drain_timeout: Duration::from_secs(10),
        ..settings()
    };
    let built = build(&workload, &settings);
    assert_eq!(built.lacking, [""; 0]);
    insta::assert_yaml_snapshot!("everything", built.objects.values().collect::<Vec<_>>());
}

#[test]
fn workers_use_the_engine_that_their_workload_asks_for() {
    let engine = EngineSpec { name: Some(EngineName::OnnxRuntime), ..EngineSpec::default() };
    let built = build(&Workload { engine, ..workload() }, &settings());
    let arguments = &built.objects[&Kind::Deployment]["spec"]["template"]["spec"]["containers"][0]["args"];
    let arguments = arguments.as_array().expect("arguments");
    assert!(arguments.windows(2).any(|a| a == ["--engine", "onnxruntime"]), "{arguments:?}");
}

#[test]
fn what_a_cluster_does_not_serve_is_named() {
    let workload = Workload { disruption_budget: Some(DisruptionBudget { max_unavailable: 1 }), ..workload() };
    let served = Served::among(|group, _| group != "policy");
    let built = objects(&workload, Context { settings: &settings(), served: &served, scaled_to: None });
    assert_eq!(built.lacking, ["this cluster serves no PodDisruptionBudget: there is none"]);
    assert!(!built.objects.contains_key(&Kind::DisruptionBudget));
}

#[test]
fn what_the_autoscaler_chose_stays_within_its_range() {
    let range = Autoscaling { min_replicas: 2, max_replicas: 8, target_cpu_utilization: 70 };
    let workload = Workload { autoscaling: Some(range), ..workload() };
    let (settings, served) = (settings(), Served::among(|_, _| true));
    let replicas = |workload: &Workload, scaled_to| {
        let built = objects(workload, Context { settings: &settings, served: &served, scaled_to });
        built.objects[&Kind::Deployment]["spec"]["replicas"].clone()
    };
    assert_eq!(replicas(&workload, None), 2);
    assert_eq!(replicas(&workload, Some(5)), 5);
    assert_eq!(replicas(&workload, Some(1)), 2);
    assert_eq!(replicas(&Workload { replicas: 0, ..workload.clone() }, Some(5)), 0);
    assert_eq!(replicas(&Workload { autoscaling: None, ..workload }, Some(5)), 2);
}

#[test]
fn scaling_does_not_touch_the_pods() {
    let one = build(&workload(), &settings());
    let two = build(&Workload { replicas: 9, ..workload() }, &settings());
    let template = |built: &Objects| built.objects[&Kind::Deployment]["spec"]["template"].clone();
    assert_eq!(template(&one), template(&two));
}
