//! `manifests/` as a user applies them: everything inside the cluster, with the rights that the manifests give and no
//! others. PostgreSQL is this machine's, as no image of one can be pulled here, and artifacts lie on a volume of the node.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use modelyard_api::Client;
use modelyard_core::DeploymentName;
use modelyard_core::state::Phase;
use modelyard_test_support::{
    Kubectl, Load, Proxy, TestCertificate, TestDatabase, apply, eventually_within, host, manifest, required,
};
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
        let installation = Self::prepare().await;
        installation.apply_overlay(overlay, "", patches);
        installation
    }

    /// A namespace, and the database that everything will use.
    async fn prepare() -> Self {
        let namespace = format!("modelyard-{}", &format!("{:08x}", rand())[..8]);
        let database = TestDatabase::create().await;
        // PostgreSQL listens on loopback, where pods do not come.
        let (user, rest) = database.url().rsplit_once('@').unwrap();
        let (address, name) = rest.split_once('/').unwrap();
        let line = Proxy::start_on(host(), address.parse().unwrap()).await;
        let url = format!("{user}@{}/{name}", line.address);
        let kubectl = Kubectl::new(&namespace);
        kubectl.run(&["create", "namespace", &namespace]);
        kubectl.apply(&format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: modelyard-database}}\nstringData: {{url: \"{url}\"}}\n"
        ));
        Self { kubectl, namespace, dir: tempfile::tempdir().unwrap(), _line: line, _database: database }
    }

    fn apply_overlay(&self, overlay: &str, components: &str, patches: &str) {
        let image = required("MODELYARD_TEST_IMAGE");
        let text = kustomization(&self.namespace, overlay, components, &image, patches);
        make_overlay(self.dir.path(), &text);
        self.kubectl.run(&["apply", "-k", &self.dir.path().display().to_string()]);
    }

    /// Waits until a Deployment of the manifests has all its pods ready.
    fn rolled_out(&self, name: &str) {
        self.kubectl.run(&["rollout", "status", "deployment", name, "--timeout=180s"]);
    }

    /// The address of a Service, which is reached from the node.
    fn address(&self, service: &str) -> IpAddr {
        self.kubectl.run(&["get", "service", service, "-o", "jsonpath={.spec.clusterIP}"]).parse().unwrap()
    }

    fn url(&self, service: &str, port: u16) -> String {
        format!("http://{}:{port}", self.address(service))
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

/// An overlay upon one of the repository's, as docs/kubernetes.md has it.
fn kustomization(namespace: &str, overlay: &str, components: &str, image: &str, patches: &str) -> String {
    let (image, tag) = image.rsplit_once(':').unwrap();
    format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: {namespace}\n\
         resources: [manifests/overlays/{overlay}]\ncomponents: [{components}]\n\
         images: [{{name: modelyard.dev/modelyard, newName: {image}, newTag: \"{tag}\"}}]\n\
         patches:\n{patches}"
    )
}

/// Kustomize reads nothing outside the directory, so the manifests lie beside it.
fn make_overlay(dir: &Path, kustomization: &str) {
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests").canonicalize().unwrap(), &dir.join("manifests"));
    fs::write(dir.join("kustomization.yaml"), kustomization).unwrap();
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

const TLS: &str = "manifests/components/tls, manifests/components/tls-gateway";

/// With certificates that name Services and nothing else, as an authority gives them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_components_for_tls_everything_talks_by_it() {
    let installation = Installation::prepare().await;
    let (kubectl, namespace) = (&installation.kubectl, &installation.namespace);
    let host = |service: &str| format!("{service}.{namespace}.svc");
    let (admin, gateway) = (host("modelyard-control-plane"), host("modelyard-gateway"));
    let tls = TestCertificate::naming(&[&admin, &gateway]);
    let path = |path: PathBuf| path.display().to_string();
    let pair = [format!("--cert={}", path(tls.certificate())), format!("--key={}", path(tls.key()))];
    for secret in ["modelyard-control-plane-tls", "modelyard-gateway-tls"] {
        kubectl.run(&["create", "secret", "tls", secret, &pair[0], &pair[1]]);
    }
    kubectl.run(&["create", "configmap", "modelyard-ca", &format!("--from-file=ca.crt={}", path(tls.ca()))]);
    installation.apply_overlay("trial", TLS, WITHOUT_POSTGRES);
    installation.rolled_out("modelyard-control-plane");
    installation.rolled_out("modelyard-gateway");

    // A worker has its artifact by it, and the gateway its routes.
    let at = |service: &str, port: u16| SocketAddr::new(installation.address(service), port);
    let trusting = tls.client_builder().resolve(&admin, at("modelyard-control-plane", 8080));
    let trusting = trusting.resolve(&gateway, at("modelyard-gateway", 8000)).build().unwrap();
    let token = kubectl.secret("modelyard-admin-token", "token").await;
    let client = Client::new(&format!("https://{admin}:8080"), Some(token.clone()), None).with_http(trusting.clone());
    apply(&client, &manifest("1", ROLLING), false, None).await.unwrap();
    completed(&client, "1").await;
    let url = format!("https://{gateway}:8000/v2/models/linear/infer");
    let body = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[3,4]}]}"#;
    eventually_within(PATIENCE, "the gateway infers", async || {
        trusting.post(&url).body(body).send().await.ok().filter(|answer| answer.status().is_success())
    })
    .await;

    // One control plane asks the other, whose address no certificate names.
    kubectl.run(&["scale", "deployment", "modelyard-control-plane", "--replicas=2"]);
    installation.rolled_out("modelyard-control-plane");
    let pods = kubectl.list(&["pods", "-l", "app.kubernetes.io/component=control-plane"]);
    assert_eq!(pods.len(), 2);
    for pod in pods {
        let address = SocketAddr::new(pod["status"]["podIP"].as_str().unwrap().parse().unwrap(), 8080);
        let one = tls.client_builder().resolve(&admin, address).build().unwrap();
        let client = Client::new(&format!("https://{admin}:8080"), Some(token.clone()), None).with_http(one);
        completed(&client, "1").await;
    }
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

#[test]
fn the_components_for_tls_leave_no_link_in_plain_text() {
    let kubectl = Kubectl::new("default");
    for overlay in ["trial", "production"] {
        let dir = tempfile::tempdir().unwrap();
        make_overlay(dir.path(), &kustomization("mine", overlay, TLS, "registry/modelyard:1", "  []\n"));
        let text = kubectl.run(&["kustomize", &dir.path().display().to_string()]);
        for plain in ["=http://", "http://modelyard"] {
            assert!(!text.contains(plain), "{overlay}: {plain} in\n{text}");
        }
        assert_eq!(text.matches("scheme: HTTPS").count(), text.matches("httpGet:").count(), "{overlay}");
        for flag in ["--advertise=", "--artifacts-url=", "--control-plane=", "--peer-name=", "--artifacts-ca="] {
            assert_eq!(text.matches(flag).count(), 1, "{overlay}: {flag} in\n{text}");
        }
    }
}
