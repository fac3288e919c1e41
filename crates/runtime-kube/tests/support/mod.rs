//! A runtime in a namespace of its own, with models in a directory of the node, which is this machine.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Resource};
use modelyard_core::{BackendId, Digest, Format, Resources, Workload, WorkloadId};
use modelyard_runtime::Runtime;
use modelyard_runtime::conformance::{Behaviour, Harness};
use modelyard_runtime_kube::{ArtifactCache, Cluster, KubeRuntime, KubeSettings};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// y = x·[1.0, -0.5] + 2.0
const MODEL: &str = r#"{"layers": [{"weights": [[1.0, -0.5]], "bias": [2.0], "activation": "linear"}]}"#;

pub(crate) struct Kube {
    runtime: Option<Arc<KubeRuntime>>,
    namespace: String,
    settings: KubeSettings,
    kubeconfig: PathBuf,
    client: Client,
    cache: TempDir,
}

fn required(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: these tests need a cluster; run them by `cargo xtask test`, which brings one up")
    })
}

impl Kube {
    async fn make() -> Self {
        let kubeconfig = PathBuf::from(required("MODELYARD_TEST_KUBECONFIG"));
        let client = client(&kubeconfig).await;
        let cache = tempfile::tempdir().unwrap();
        let artifacts = cache.path().join("sha256");
        fs::create_dir(&artifacts).unwrap();
        // Workers are nobody in particular, and write beside the artifacts.
        for dir in [cache.path(), &artifacts] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let namespace = format!("modelyard-{:08x}", u32::from_le_bytes(random()));
        make_namespace(&client, &namespace).await;
        let settings = KubeSettings {
            cache: ArtifactCache::Node { path: cache.path().display().to_string() },
            drain_timeout: Duration::from_secs(10),
            linger: Duration::from_secs(1),
            // Nobody listens there: what is asked for is in the cache.
            ..KubeSettings::new(&required("MODELYARD_TEST_IMAGE"), "http://127.0.0.1:9")
        };
        let mut kube = Self { runtime: None, namespace, settings, kubeconfig, client, cache };
        kube.open().await;
        kube
    }

    async fn open(&mut self) {
        self.runtime = Some(self.another().await);
    }

    /// Another control plane's runtime, on the same workloads.
    pub(crate) async fn another(&self) -> Arc<KubeRuntime> {
        let cluster = Cluster::find(Some(&self.kubeconfig), &self.namespace).await.expect("a kubeconfig");
        KubeRuntime::open(&cluster, self.settings.clone(), None).await.expect("the cluster answers")
    }

    /// The namespace as an administrator sees it.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn pods(&self) -> Api<Pod> {
        self.api()
    }

    fn add(&self, content: &str) -> Digest {
        let digest = Digest::of(content.as_bytes());
        let path = self.cache.path().join("sha256").join(digest.to_string());
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        digest
    }
}

impl Drop for Kube {
    fn drop(&mut self) {
        // The case's own async runtime is gone by now.
        let (kubeconfig, namespace) = (self.kubeconfig.clone(), self.namespace.clone());
        let delete = move || {
            let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio.block_on(async {
                let api = Api::<Namespace>::all(client(&kubeconfig).await);
                api.delete(&namespace, &DeleteParams::background()).await.ok();
                // Its pods use a directory that goes next.
                let pods = Api::<Pod>::namespaced(client(&kubeconfig).await, &namespace);
                let grace = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
                pods.delete_collection(&grace, &ListParams::default()).await.ok();
            });
        };
        std::thread::spawn(delete).join().ok();
    }
}

fn random() -> [u8; 4] {
    let mut bytes = [0; 4];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom").unwrap(), &mut bytes).unwrap();
    bytes
}

async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a context");
    Client::try_from(config).expect("a client")
}

async fn make_namespace(client: &Client, name: &str) {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.expect("a namespace");
    // Pods are refused until it has an account.
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), name);
    let is_there = |account: Option<&ServiceAccount>| account.is_some();
    let made = kube::runtime::wait::await_condition(accounts, "default", is_there);
    tokio::time::timeout(Duration::from_secs(30), made).await.expect("in time").expect("an account");
}

#[async_trait]
impl Harness for Kube {
    async fn fresh() -> Self {
        Self::make().await
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        self.runtime.clone().unwrap()
    }

    async fn reopen(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown().await;
        }
        self.open().await;
    }

    async fn workload(&self, behaviour: Behaviour, replicas: u32) -> Workload {
        let (name, content) = match behaviour {
            Behaviour::Serves => ("linear", MODEL),
            Behaviour::CrashesAtStart => ("broken", "this is no model"),
        };
        let digest = self.add(content);
        Workload {
            id: format!("{name}-{}", &digest.to_string()[..10]).parse().unwrap(),
            deployment: name.parse().unwrap(),
            model: name.parse().unwrap(),
            version: "1".parse().unwrap(),
            format: Format::Dense,
            digest,
            replicas,
            resources: Resources { cpu: None, memory: Some("64Mi".into()), gpu: None },
            node_selector: std::collections::BTreeMap::new(),
            tolerations: Vec::new(),
            autoscaling: None,
            disruption_budget: None,
            batching: None,
            engine: modelyard_core::EngineSpec::default(),
        }
    }

    async fn kill(&self, _: &WorkloadId, replica: &BackendId) {
        let pod = self.pods().get(replica.as_str()).await.expect("the pod");
        let uid = pod.metadata.uid.expect("a uid");
        for pid in workers_of(&uid) {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
    }

    async fn alive(&self, id: &WorkloadId) -> Vec<String> {
        let ours = ListParams::default().labels(&format!("modelyard.dev/workload={id}"));
        let pods = self.pods().list(&ours).await.expect("the pods");
        let of = |pod: Pod| {
            let name = pod.metadata.name?;
            let status = pod.status?.container_statuses?.into_iter().next()?;
            // One that waits to be started again is not alive.
            status.state?.running?;
            Some(format!("{name}/{}", status.restart_count))
        };
        pods.items.into_iter().filter_map(of).collect()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(120)
    }

    async fn answers(&self, endpoint: SocketAddr) -> Result<(), String> {
        let asked = tokio::time::timeout(Duration::from_secs(10), get_ready(endpoint)).await;
        let answer = asked.map_err(|late| late.to_string())?.map_err(|error| error.to_string())?;
        if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer) }
    }
}

/// The processes of a pod that serve. The node is this machine.
fn workers_of(pod_uid: &str) -> Vec<i32> {
    let in_pod = |pid: &i32| {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let groups = read("cgroup").replace('_', "-");
        groups.contains(pod_uid) && read("cmdline").starts_with("modelyard-worker")
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(in_pod).collect()
}

async fn get_ready(endpoint: SocketAddr) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(endpoint).await?;
    let request = format!("GET /v2/health/ready HTTP/1.1\r\nhost: {endpoint}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
