//! The pods: one container, the worker, with as few rights as it can live with.

use modelyard_core::{Resources, Span, Workload};
use serde_json::{Map, Value, json};

use super::PORT;
use crate::config::{ArtifactCache, KubeSettings};
use crate::credentials;
use crate::names;

/// The user of the image. Any that is not root would do.
const USER: u32 = 65_532;
const WORK: &str = "/run/modelyard";
const CACHE: &str = "/var/cache/modelyard";
const TOKEN: &str = "/var/run/secrets/modelyard";
const CA: &str = "/etc/modelyard/ca";
/// Seconds that Kubernetes grants beyond lingering and draining, before it kills.
const GRACE: u64 = 5;

pub(super) fn template(workload: &Workload, settings: &KubeSettings) -> Value {
    let (mounts, volumes) = volumes(settings);
    let mut spec = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": settings.linger.as_secs() + settings.drain_timeout.as_secs() + GRACE,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        // Spread where that can be had: a full cluster runs two on one node rather than one.
        "topologySpreadConstraints": [
            spread(workload, "kubernetes.io/hostname"),
            spread(workload, "topology.kubernetes.io/zone"),
        ],
        "containers": [container(workload, settings, mounts)],
        "volumes": volumes,
    });
    if !workload.node_selector.is_empty() {
        spec["nodeSelector"] = json!(workload.node_selector);
    }
    if !workload.tolerations.is_empty() {
        spec["tolerations"] = json!(workload.tolerations);
    }
    if !settings.image_pull_secrets.is_empty() {
        let names = settings.image_pull_secrets.iter().map(|name| json!({"name": name}));
        spec["imagePullSecrets"] = names.collect();
    }
    json!({
        "metadata": {"labels": names::labels(workload), "annotations": {names::SPEC: lasting(workload).to_string()}},
        "spec": spec,
    })
}

/// What of the workload is the same for as long as it lives: another number of replicas must not replace its pods.
fn lasting(workload: &Workload) -> Value {
    json!(Workload { replicas: 0, autoscaling: None, disruption_budget: None, ..workload.clone() })
}

fn spread(workload: &Workload, topology: &str) -> Value {
    json!({
        "maxSkew": 1,
        "topologyKey": topology,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": super::selector(workload),
    })
}

fn container(workload: &Workload, settings: &KubeSettings, mounts: Vec<Value>) -> Value {
    let probe = |path: &str| json!({"path": path, "port": "http"});
    let linger = span(settings.linger.as_secs());
    let mut container = json!({
        "name": "worker",
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["modelyard-worker"],
        "args": arguments(workload, settings),
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "startupProbe": {
            "httpGet": probe("/v2/health/ready"),
            "periodSeconds": 1,
            "timeoutSeconds": 2,
            "failureThreshold": settings.start_timeout.as_secs().max(1),
        },
        "readinessProbe": {
            "httpGet": probe("/v2/health/ready"),
            "periodSeconds": 1,
            "timeoutSeconds": 2,
            "failureThreshold": 3,
        },
        // Only a worker that does not answer at all is started anew: one that is busy must not be.
        "livenessProbe": {
            "httpGet": probe("/v2/health/live"),
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "lifecycle": {"preStop": {"exec": {"command": ["modelyard-worker", "linger", "--for", linger]}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    });
    if let Some(resources) = resources(&workload.resources) {
        container["resources"] = resources;
    }
    container
}

fn arguments(workload: &Workload, settings: &KubeSettings) -> Vec<String> {
    let digest = workload.digest.to_string();
    let mut arguments: Vec<String> = ["serve"].map(str::to_owned).into();
    let mut flag = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    flag("instance-dir", WORK.to_owned());
    // Clients call deployments.
    flag("model-name", workload.deployment.to_string());
    flag("model-version", workload.version.to_string());
    flag("format", workload.format.to_string());
    flag("artifact-url", format!("{}/api/v1/artifacts/{digest}?redirect=true", settings.artifacts_url));
    flag("sha256", digest);
    flag("artifact-cache", CACHE.to_owned());
    flag("artifact-cache-limit", settings.cache_limit.clone());
    flag("token-file", format!("{TOKEN}/{}", credentials::TOKEN_KEY));
    if settings.ca_config_map.is_some() {
        flag("ca-file", format!("{CA}/ca.crt"));
    }
    flag("listen", format!("0.0.0.0:{PORT}"));
    flag("drain-timeout", span(settings.drain_timeout.as_secs()));
    if let Some(batching) = workload.batching {
        flag("max-batch-size", batching.max_batch_size.to_string());
        flag("max-batch-delay", batching.max_delay.to_string());
    }
    arguments.extend(workload.engine.flags().into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
    arguments
}

fn volumes(settings: &KubeSettings) -> (Vec<Value>, Vec<Value>) {
    let cache = match &settings.cache {
        ArtifactCache::Pod => json!({"emptyDir": {}}),
        ArtifactCache::Node { path } => json!({"hostPath": {"path": path, "type": "Directory"}}),
        ArtifactCache::Claim { name } => json!({"persistentVolumeClaim": {"claimName": name}}),
    };
    // The token may come after the pod: the worker waits for it, and says so.
    let token = json!({"secret": {"secretName": credentials::WORKER_SECRET, "optional": true}});
    let ca = settings.ca_config_map.as_ref().map(|name| json!({"configMap": {"name": name}}));
    let all = [
        ("work", WORK, false, Some(json!({"emptyDir": {}}))),
        ("artifacts", CACHE, false, Some(cache)),
        ("token", TOKEN, true, Some(token)),
        ("ca", CA, true, ca),
    ];
    let mut mounts = Vec::new();
    let mut volumes = Vec::new();
    for (name, path, read_only, source) in all {
        let Some(Value::Object(mut volume)) = source else { continue };
        volume.insert("name".to_owned(), json!(name));
        volumes.push(Value::Object(volume));
        let mut mount = json!({"name": name, "mountPath": path});
        if read_only {
            mount["readOnly"] = json!(true);
        }
        mounts.push(mount);
    }
    (mounts, volumes)
}

/// Requests and limits alike: what a worker may use is what is kept for it, so that its latency does not depend on
/// its neighbours, and the worker sizes its threads by it.
fn resources(resources: &Resources) -> Option<Value> {
    let quantities = [
        ("cpu", resources.cpu.clone()),
        ("memory", resources.memory.clone()),
        ("nvidia.com/gpu", resources.gpu.map(|n| n.to_string())),
    ];
    let quantities: Map<String, Value> =
        quantities.into_iter().filter_map(|(name, quantity)| Some((name.to_owned(), json!(quantity?)))).collect();
    (!quantities.is_empty()).then(|| json!({"requests": quantities, "limits": quantities}))
}

fn span(seconds: u64) -> String {
    Span::from_secs(seconds).to_string()
}
