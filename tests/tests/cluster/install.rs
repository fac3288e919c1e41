//! `manifests/` as a user applies them: everything inside the cluster, with the rights that the manifests give and no
//! others. PostgreSQL is this machine's, as no image of one can be pulled here, and artifacts lie on a volume of the node.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use modelyard_api::Client;
use modelyard_core::DeploymentName;
use modelyard_core::state::Phase;
use modelyard_test_support::{Kubectl, Load, Proxy, TestDatabase, apply, eventually_within, host, manifest, required};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(180);
const ROLLING: &str = "replicas: 2, disruptionBudget: {maxUnavailable: 1}, strategy: {rolling: {}}";
const CANARY: &str = "replicas: 1, strategy: {canary: {steps: [{weight: 20, hold: 2s}], \
                      analysis: {minRequests: 10, maxErrorRate: 0.05}}}";

/// An overlay of the test's own upon one of the repository's, in a namespace of its own.
struct Installation {
    kubectl: Kubectl,
    namespace: String,
    dir: TempDir,
    _line: Proxy,
    _database: TestDatabase,
}

impl Installation {
    async fn apply(overlay: &str, patches: &str) -> Self {
        let namespace = format!("modelyard-{}", &format!("{:08x}", rand())[..8]);
        let database = TestDatabase::create().await;
        // PostgreSQL listens on loopback, where pods do not come.
        let (user, rest) = database.url().rsplit_once('@').unwrap();
        let (address, name) = rest.split_once('/').unwrap();
        let line = Proxy::start_on(host(), address.parse().unwrap()).await;
        let url = format!("{user}@{}/{name}", line.address);
        let dir = tempfile::tempdir().unwrap();
        let kubectl = Kubectl::new(&namespace);
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests").canonicalize().unwrap();
        let manifests = dir.path().join("manifests");
        copy(&root, &manifests);
        let (image, tag) =
            required("MODELYARD_TEST_IMAGE").rsplit_once(':').map(|(i, t)| (i.to_owned(), t.to_owned())).unwrap();
        let kustomization = format!(
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: {namespace}\n\
             resources: [manifests/overlays/{overlay}]\n\
             images: [{{name: modelyard.dev/modelyard, newName: {image}, newTag: {tag}}}]\n\
             patches:\n{patches}"
        );
        fs::write(dir.path().join("kustomization.yaml"), kustomization).unwrap();
        kubectl.run(&["create", "namespace", &namespace]);
        kubectl.apply(&format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: modelyard-database}}\nstringData: {{url: \"{url}\"}}\n"
        ));
        let installation = Self { kubectl, namespace, dir, _line: line, _database: database };
        installation.kubectl.run(&["apply", "-k", &installation.dir.path().display().to_string()]);
        installation
    }

    /// Waits until a Deployment of the manifests has all its pods ready.
    fn rolled_out(&self, name: &str) {
        self.kubectl.run(&["rollout", "status", "deployment", name, "--timeout=180s"]);
    }

    /// The address of a Service, which is reached from the node.
    fn url(&self, service: &str, port: u16) -> String {
        let ip = self.kubectl.run(&["get", "service", service, "-o", "jsonpath={.spec.clusterIP}"]);
        format!("http://{ip}:{port}")
    }

    /// As the first administrator.
    async fn client(&self) -> Client {
        let token = self.kubectl.secret("modelyard-admin-token", "token").await;
        Client::new(&self.url("modelyard-control-plane", 8080), Some(token), None)
    }

    fn logs(&self, component: &str) -> String {
        let selector = format!("app.kubernetes.io/component={component}");
        self.kubectl.run(&["logs", "--tail=-1", "--prefix", "-l", &selector])
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for what in [vec!["get", "pods,deployments,events", "-o", "wide"], vec!["describe", "pods"]] {
                eprintln!("{}", self.kubectl.attempt(&what).unwrap_or_else(|error| error));
            }
            for component in ["control-plane", "gateway"] {
                eprintln!("--- {component}\n{}", self.logs_or_error(component));
            }
        }
        self.kubectl.attempt(&["delete", "namespace", &self.namespace, "--wait=false"]).ok();
        self.kubectl.attempt(&["delete", "pods", "--all", "--grace-period=0", "--force", "--wait=false"]).ok();
    }
}

impl Installation {
    fn logs_or_error(&self, component: &str) -> String {
        let selector = format!("app.kubernetes.io/component={component}");
        self.kubectl.attempt(&["logs", "--tail=60", "--prefix", "-l", &selector]).unwrap_or_else(|error| error)
    }
}

fn rand() -> u32 {
    let mut bytes = [0; 4];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom").unwrap(), &mut bytes).unwrap();
    u32::from_le_bytes(bytes)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, target): (PathBuf, PathBuf) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() { copy(&path, &target) } else { fs::copy(&path, &target).map(|_| ()).unwrap() }
    }
}

async fn completed(client: &Client, version: &str) {
    let linear: DeploymentName = "linear".parse().unwrap();
    eventually_within(PATIENCE, &format!("version {version} serves all traffic"), async || {
        let deployment = client.deployment(&linear).await.ok()?;
        let done = deployment
            .status
            .is_some_and(|s| s.phase == Phase::Completed && s.observed_revision == deployment.generation);
        (done && deployment.version.as_str() == version).then_some(())
    })
    .await;
}

/// What this machine cannot have, taken out of an overlay; all else is as users apply it.
const WITHOUT_POSTGRES: &str = r"
  - patch: '{$patch: delete, apiVersion: apps/v1, kind: StatefulSet, metadata: {name: modelyard-postgres}}'
  - patch: '{$patch: delete, apiVersion: v1, kind: Service, metadata: {name: modelyard-postgres}}'
  - patch: '{$patch: delete, apiVersion: v1, kind: Secret, metadata: {name: modelyard-database}}'
  - patch: '{$patch: delete, apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: modelyard-state}}'
  - patch: '{$patch: delete, apiVersion: v1, kind: Namespace, metadata: {name: modelyard}}'
  - target: {kind: Deployment, name: modelyard-control-plane}
    patch: |
      - {op: replace, path: /spec/template/spec/volumes/0, value: {name: state, emptyDir: {}}}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trial_overlay_is_a_working_installation_with_no_more_rights_than_it_needs() {
    let installation = Installation::apply("trial", WITHOUT_POSTGRES).await;
    installation.rolled_out("modelyard-control-plane");
    installation.rolled_out("modelyard-gateway");
    let client = installation.client().await;

    apply(&client, &manifest("1", ROLLING), false, None).await.unwrap();
    completed(&client, "1").await;
    let load = Load::start(&installation.url("modelyard-gateway", 8000), "linear");
    load.answers(50).await;
    apply(&client, &manifest("2", CANARY), false, None).await.unwrap();
    completed(&client, "2").await;
    load.answers(50).await;
    load.stop().await.assert_nothing_lost();

    // Logs are read by what the Role gives, too; and nothing that the control plane did was forbidden.
    let log = installation.logs("control-plane");
    assert!(log.contains("control plane in office"), "{log}");
    let forbidden: Vec<_> = log.lines().filter(|line| line.to_lowercase().contains("forbidden")).collect();
    assert!(forbidden.is_empty(), "{forbidden:#?}");

    // What it may not: other Secrets, other namespaces, other kinds.
    let account = format!("system:serviceaccount:{}:modelyard-control-plane", installation.namespace);
    let may = |verb: &str, what: &str, namespace: &str| {
        let asked = ["auth", "can-i", verb, what, "--as", &account, "--namespace", namespace];
        installation.kubectl.attempt(&asked).is_ok_and(|answer| answer.trim() == "yes")
    };
    let own = installation.namespace.as_str();
    assert!(may("patch", "deployments.apps", own) && may("watch", "pods", own));
    for (verb, what) in
        [("get", "secrets"), ("list", "secrets"), ("delete", "pods"), ("create", "pods"), ("create", "roles")]
    {
        assert!(!may(verb, what, own), "{verb} {what}");
    }
    for what in ["deployments.apps", "pods", "services"] {
        assert!(!may("list", what, "kube-system"), "list {what} elsewhere");
    }
    assert!(!may("get", "secrets/modelyard-database", own), "the database's password is mounted, not read");

    // What is asked for and not for workers: pods have no account of the API and no root.
    let pods = installation.kubectl.list(&["pods", "-l", "app.kubernetes.io/component=worker"]);
    assert!(!pods.is_empty());
    for pod in pods {
        let spec = &pod["spec"];
        let mounts = spec["containers"][0]["volumeMounts"].as_array().unwrap();
        assert!(
            !mounts.iter().any(|m| m["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"),
            "{mounts:?}"
        );
        assert_eq!(spec["automountServiceAccountToken"], false);
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
        assert_eq!(spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
    }
    assert_eq!(installation.kubectl.list(&["networkpolicies"]).len(), workloads(&installation), "one per workload");
}

fn workloads(installation: &Installation) -> usize {
    installation.kubectl.list(&["deployments", "-l", "app.kubernetes.io/managed-by=modelyard"]).len()
}

/// Two control planes and three gateways; budgets of the production overlay need a newer cluster than this may be.
const PRODUCTION: &str = r"
  - patch: '{$patch: delete, apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: modelyard-control-plane}}'
  - patch: '{$patch: delete, apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: modelyard-gateway}}'
  - patch: '{$patch: delete, apiVersion: v1, kind: Namespace, metadata: {name: modelyard}}'
  - target: {kind: Deployment, name: modelyard-control-plane}
    patch: |
      - {op: replace, path: /spec/template/spec/containers/0/envFrom/0/secretRef, value: {name: modelyard-artifacts, optional: true}}
      - {op: replace, path: /spec/template/spec/containers/0/resources/requests, value: {cpu: 50m, memory: 64Mi}}
      - {op: replace, path: /spec/template/spec/volumes/0, value: {name: state, hostPath: {path: STATE, type: Directory}}}
  - target: {kind: Deployment, name: modelyard-gateway}
    patch: |
      - {op: replace, path: /spec/template/spec/containers/0/resources/requests, value: {cpu: 20m, memory: 32Mi}}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_control_planes_and_three_gateways_hand_over_and_are_upgraded_without_a_lost_request() {
    use std::os::unix::fs::PermissionsExt as _;
    let shared = tempfile::tempdir().unwrap();
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let patches = PRODUCTION.replace("STATE", &shared.path().display().to_string());
    let installation = Installation::apply("production", &patches).await;
    installation.rolled_out("modelyard-control-plane");
    installation.rolled_out("modelyard-gateway");
    let client = installation.client().await;
    apply(&client, &manifest("1", ROLLING), false, None).await.unwrap();
    completed(&client, "1").await;
    let load = Load::start(&installation.url("modelyard-gateway", 8000), "linear");
    load.answers(50).await;

    // The one in office is killed without a word.
    let kubectl = &installation.kubectl;
    let in_office = || {
        let log =
            kubectl.attempt(&["logs", "--tail=-1", "--prefix", "-l", "app.kubernetes.io/component=control-plane"]);
        let log = log.unwrap_or_default();
        let line = log.lines().filter(|line| line.contains("control plane in office")).max_by_key(|line| {
            line.split("epoch").nth(1).map(|rest| rest.chars().filter(char::is_ascii_digit).collect::<String>())
        })?;
        Some(line.split(['/', ' ']).nth(1)?.to_owned())
    };
    let first = in_office().unwrap();
    kubectl.run(&["delete", "pod", &first, "--grace-period=0", "--force", "--wait=false"]);
    let killed = std::time::Instant::now();
    apply_until_taken(&client, &manifest("2", CANARY)).await;
    eprintln!("another control plane took an apply {:?} after the first was killed", killed.elapsed());
    completed(&client, "2").await;

    // A rolling upgrade of everything but the database.
    for deployment in ["modelyard-control-plane", "modelyard-gateway"] {
        kubectl.run(&["rollout", "restart", "deployment", deployment]);
        installation.rolled_out(deployment);
    }
    load.answers(100).await;
    apply_until_taken(&client, &manifest("1", ROLLING)).await;
    completed(&client, "1").await;
    load.stop().await.assert_nothing_lost();
}

async fn apply_until_taken(client: &Client, text: &str) {
    eventually_within(PATIENCE, "an apply is taken", async || match apply(client, text, false, None).await {
        Ok(_) => Some(()),
        Err(error) if error.status().is_none_or(|status| status == 503) => None,
        Err(error) => panic!("{error:?}"),
    })
    .await;
}

#[test]
fn the_overlays_are_objects_that_kubectl_reads() {
    let kubectl = Kubectl::new("default");
    for overlay in ["trial", "production"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/overlays").join(overlay);
        let text = kubectl.run(&["kustomize", &dir.display().to_string()]);
        let kinds: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("kind: ")).collect();
        for kind in ["Role", "RoleBinding", "ServiceAccount", "Service", "Deployment", "Namespace"] {
            assert!(kinds.contains(&kind), "{overlay} has no {kind}");
        }
        assert!(!text.contains("image: modelyard\n"), "the image has a name that can be pulled or loaded");
    }
}
