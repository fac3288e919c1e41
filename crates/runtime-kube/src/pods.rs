//! A pod as a replica: its phase, and why it is not ready, in the cluster's own words.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodCondition, PodStatus};
use modelyard_core::{ReplicaPhase, ReplicaStatus, Span, Timestamp, Workload, WorkloadId};

use crate::build::PORT;
use crate::names;

/// Kubernetes waits 10 s before it starts a crashed container again, then twice as long each time, up to 5 minutes.
const FIRST_BACK_OFF: u64 = 10;
const LONGEST_BACK_OFF: u64 = 300;
/// Of what a container said last: enough to act on.
const LONGEST_MESSAGE: usize = 1_000;

/// What we need to know of a pod.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PodView {
    pub(crate) workload: WorkloadId,
    pub(crate) uid: String,
    /// Orders what was seen of one pod.
    pub(crate) order: u64,
    /// What of the wish lasts, for pods that outlive their Deployment.
    pub(crate) wish: Option<Workload>,
    /// `None` for one that has ended for good (evicted, say) and is only kept on record.
    pub(crate) replica: Option<ReplicaStatus>,
    /// Its node is not heard of: the pod may well be running.
    pub(crate) node_lost: bool,
    /// What should be known of it though it may be ready.
    pub(crate) note: Option<String>,
    /// The container that runs in it.
    pub(crate) container: Option<String>,
    /// Kubernetes says that it has passed its startup probe.
    pub(crate) started: bool,
    /// It had, and Kubernetes has forgotten it.
    pub(crate) forgotten: bool,
}

impl PodView {
    /// This, in the light of what was known. A kubelet that starts anew says of each container that it is not started and
    /// not ready, until it has probed it again: of all at once, though none has changed. What was known of one stands
    /// until it is ready or another runs; one that hangs meanwhile is ended by its liveness probe.
    pub(crate) fn after(mut self, known: &Self) -> Self {
        let same_run = self.container.is_some() && self.container == known.container;
        let forgotten = known.forgotten || (known.started && !self.started);
        let (Some(replica), Some(before)) = (&mut self.replica, &known.replica) else { return self };
        if same_run && forgotten && matches!(replica.phase, ReplicaPhase::Starting | ReplicaPhase::NotReady) {
            (replica.phase, replica.message) = (before.phase, before.message.clone());
            self.forgotten = true;
        }
        self
    }
}

/// `None` if it is not one of a workload's.
pub(crate) fn view(pod: &Pod) -> Option<PodView> {
    let metadata = &pod.metadata;
    let workload = metadata.labels.as_ref()?.get(names::WORKLOAD)?.parse().ok()?;
    let name = metadata.name.clone()?;
    let status = pod.status.clone().unwrap_or_default();
    let wish = metadata.annotations.as_ref().and_then(|a| serde_json::from_str(a.get(names::SPEC)?).ok());
    let container = status.container_statuses.iter().flatten().find(|c| c.name == names::WORKER);
    let ended = matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"));
    let node_lost = is_node_lost(&status, container);
    let (phase, message) =
        if metadata.deletion_timestamp.is_some() { (ReplicaPhase::Draining, None) } else { phase(&status, container) };
    let endpoint = status.pod_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
    let replica = ReplicaStatus {
        id: name.parse().ok()?,
        phase,
        endpoint: endpoint.map(|ip| SocketAddr::new(ip, PORT)),
        restarts: container.map_or(0, |c| c.restart_count.unsigned_abs()),
        message,
    };
    let note = note(&name, &status, container, node_lost);
    Some(PodView {
        workload,
        uid: metadata.uid.clone().unwrap_or_default(),
        order: metadata.resource_version.as_ref().and_then(|v| v.parse().ok()).unwrap_or_default(),
        wish,
        replica: (!ended).then_some(replica),
        node_lost,
        note,
        container: container.filter(|c| is_running(c)).and_then(|c| c.container_id.clone()),
        started: container.and_then(|c| c.started).unwrap_or_default(),
        forgotten: false,
    })
}

fn is_running(container: &ContainerStatus) -> bool {
    container.state.as_ref().is_some_and(|state| state.running.is_some())
}

fn phase(status: &PodStatus, container: Option<&ContainerStatus>) -> (ReplicaPhase, Option<String>) {
    let Some(container) = container else { return (ReplicaPhase::Starting, unscheduled(status)) };
    let state = container.state.clone().unwrap_or_default();
    if let Some(ended) = &state.terminated {
        return backing_off(container, ended);
    }
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let last = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
        return match (reason, last) {
            ("CrashLoopBackOff", Some(ended)) => backing_off(container, ended),
            // The ordinary way up.
            ("" | "ContainerCreating" | "PodInitializing", _) => (ReplicaPhase::Starting, None),
            (reason, _) => (ReplicaPhase::Starting, Some(with_reason(reason, waiting.message.as_deref()))),
        };
    }
    let last_end = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    match (container.ready, container.started) {
        (true, _) => (ReplicaPhase::Ready, None),
        // Once it was ready: Kubernetes says `started` when the first readiness probe passed.
        (false, Some(true)) => (ReplicaPhase::NotReady, Some("Unready: its readiness probe does not pass".into())),
        (false, _) => (ReplicaPhase::Starting, last_end.map(ending)),
    }
}

/// Nobody has heard of the node for a while, and so the pod was marked unready, though its container is as it was.
fn is_node_lost(status: &PodStatus, container: Option<&ContainerStatus>) -> bool {
    let ready = condition(status, "Ready");
    let unready = ready.is_some_and(|c| c.status != "True" && c.reason.as_deref() != Some("ReadinessGatesNotReady"));
    unready
        && container.is_some_and(|c| c.ready)
        && condition(status, "ContainersReady").is_some_and(|c| c.status == "True")
}

fn unscheduled(status: &PodStatus) -> Option<String> {
    let scheduled = condition(status, "PodScheduled").filter(|c| c.status == "False")?;
    Some(with_reason(scheduled.reason.as_deref().unwrap_or("Unschedulable"), scheduled.message.as_deref()))
}

fn condition<'s>(status: &'s PodStatus, kind: &str) -> Option<&'s PodCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind)
}

fn backing_off(container: &ContainerStatus, ended: &ContainerStateTerminated) -> (ReplicaPhase, Option<String>) {
    let restarts = container.restart_count.clamp(0, 10).unsigned_abs();
    let wait = (FIRST_BACK_OFF << restarts).min(LONGEST_BACK_OFF);
    let finished = ended.finished_at.as_ref().map_or(0, |time| time.0.as_millisecond());
    let until = Timestamp::from_millis(finished) + Span::from_secs(wait);
    (ReplicaPhase::BackOff { until }, Some(ending(ended)))
}

/// Why a container ended: `OOMKilled`, or `Error: exit code 5: the artifact cannot be fetched: …`.
fn ending(ended: &ContainerStateTerminated) -> String {
    let reason = ended.reason.as_deref().unwrap_or("Error");
    if reason == "OOMKilled" {
        return "OOMKilled: it used more memory than resources.memory allows".into();
    }
    let said = ended.message.as_deref().map(str::trim).filter(|m| !m.is_empty()).map(last_lines);
    let code = match (ended.signal, ended.exit_code) {
        (Some(signal), _) if signal > 0 => format!("signal {signal}"),
        (_, code) if code > 128 => format!("signal {}", code - 128),
        (_, code) => format!("exit code {code}"),
    };
    match said {
        Some(said) => format!("{reason}: {code}: {said}"),
        None => format!("{reason}: {code}"),
    }
}

fn last_lines(text: &str) -> String {
    let from = text.len().saturating_sub(LONGEST_MESSAGE);
    let from = (from..text.len()).find(|i| text.is_char_boundary(*i)).unwrap_or_default();
    let lines: Vec<_> = text[from..].lines().collect();
    lines[lines.len().saturating_sub(3)..].join("\n")
}

fn note(name: &str, status: &PodStatus, container: Option<&ContainerStatus>, node_lost: bool) -> Option<String> {
    if status.phase.as_deref() == Some("Failed") {
        let why = with_reason(status.reason.as_deref().unwrap_or("Failed"), status.message.as_deref());
        return Some(format!("pod {name} ended: {why}"));
    }
    if node_lost {
        return Some(format!("NodeNotReady: the node of pod {name} is not heard of"));
    }
    let last = container?.last_state.as_ref()?.terminated.as_ref()?;
    let out_of_memory = last.reason.as_deref() == Some("OOMKilled");
    out_of_memory.then(|| format!("pod {name} was started again after {}", ending(last)))
}

fn with_reason(reason: &str, message: Option<&str>) -> String {
    match message.map(str::trim).filter(|m| !m.is_empty()) {
        Some(message) => format!("{reason}: {message}"),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn seen(status: &Value) -> PodView {
        let pod = json!({
            "metadata": {"name": "linear-0123456789-abc", "labels": {names::WORKLOAD: "linear-0123456789"}},
            "status": status,
        });
        view(&serde_json::from_value(pod).expect("a pod")).expect("one of ours")
    }

    fn worker(state: &Value, ready: bool, restarts: u32) -> Value {
        json!({
            "name": "worker", "image": "i", "imageID": "", "ready": ready, "restartCount": restarts,
            "started": ready, "state": state,
        })
    }

    fn phase_of(status: &Value) -> (ReplicaPhase, Option<String>) {
        let replica = seen(status).replica.expect("a replica");
        (replica.phase, replica.message)
    }

    #[test]
    fn a_ready_container_is_a_backend() {
        let view = seen(&json!({"podIP": "10.1.2.3", "containerStatuses": [worker(&json!({"running": {}}), true, 0)]}));
        let replica = view.replica.unwrap();
        assert_eq!((replica.phase, replica.endpoint), (ReplicaPhase::Ready, "10.1.2.3:8000".parse().ok()));
        assert_eq!((replica.message, view.note), (None, None));
    }

    #[test]
    fn what_a_kubelet_forgets_when_it_starts_anew_stands_until_it_has_probed_again() {
        let run = |id: &str, started: bool, ready: bool| {
            let mut worker = worker(&json!({"running": {}}), ready, 0);
            (worker["containerID"], worker["started"]) = (json!(id), json!(started));
            seen(&json!({"podIP": "10.1.2.3", "containerStatuses": [worker]}))
        };
        let phase = |view: &PodView| view.replica.as_ref().map(|r| r.phase).expect("a replica");
        let ready = run("a", true, true);
        let forgotten = run("a", false, false).after(&ready);
        assert_eq!(phase(&forgotten), ReplicaPhase::Ready);
        let started = run("a", true, false).after(&forgotten);
        assert_eq!(phase(&started), ReplicaPhase::Ready);
        let probed = run("a", true, true).after(&started);
        assert_eq!(phase(&run("a", true, false).after(&probed)), ReplicaPhase::NotReady, "it says so of a probe");
        assert_eq!(phase(&run("b", false, false).after(&ready)), ReplicaPhase::Starting, "another container");
    }

    #[test]
    fn the_schedulers_own_words_are_told() {
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient cpu.",
        });
        let expected = "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.";
        assert_eq!(phase_of(&json!({"conditions": [condition]})), (ReplicaPhase::Starting, Some(expected.into())));
    }

    #[test]
    fn an_image_that_cannot_be_pulled_says_so_and_a_plain_start_says_nothing() {
        let waiting = |reason: &str| {
            let state = json!({"waiting": {"reason": reason, "message": "no such image"}});
            phase_of(&json!({"containerStatuses": [worker(&state, false, 0)]})).1
        };
        assert_eq!(waiting("ImagePullBackOff").as_deref(), Some("ImagePullBackOff: no such image"));
        assert_eq!(waiting("ContainerCreating"), None);
    }

    #[test]
    fn a_crash_loop_backs_off_from_its_last_end_and_says_what_it_said_last() {
        let mut container =
            worker(&json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s"}}), false, 1);
        let ended = json!({
            "exitCode": 5, "reason": "Error", "finishedAt": "2026-11-24T12:00:00Z",
            "message": "a\nb\nc\nthe model was not loaded\n",
        });
        container["lastState"] = json!({"terminated": ended});
        let (phase, message) = phase_of(&json!({"containerStatuses": [container]}));
        assert_eq!(phase, ReplicaPhase::BackOff { until: "2026-11-24T12:00:20Z".parse().unwrap() });
        assert_eq!(message.as_deref(), Some("Error: exit code 5: b\nc\nthe model was not loaded"));
    }

    #[test]
    fn a_worker_that_ran_out_of_memory_is_noted_even_when_it_is_ready_again() {
        let mut container = worker(&json!({"running": {}}), true, 1);
        container["lastState"] = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        let view = seen(&json!({"containerStatuses": [container]}));
        assert_eq!(view.replica.unwrap().phase, ReplicaPhase::Ready);
        assert!(view.note.unwrap().contains("OOMKilled"));
    }

    #[test]
    fn a_lost_node_is_told_from_a_worker_that_is_not_ready() {
        let conditions = json!([{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]);
        let lost = seen(&json!({
            "conditions": conditions, "containerStatuses": [worker(&json!({"running": {}}), true, 0)],
        }));
        assert!(lost.node_lost);
        let unready = seen(&json!({
            "conditions": [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "False"}],
            "containerStatuses": [worker(&json!({"running": {}}), false, 0)],
        }));
        assert!(!unready.node_lost);
    }

    #[test]
    fn an_evicted_pod_is_no_replica_but_is_noted() {
        let view = seen(&json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}));
        assert_eq!(view.replica, None);
        assert_eq!(view.note.as_deref(), Some("pod linear-0123456789-abc ended: Evicted: The node was low on memory."));
    }
}
