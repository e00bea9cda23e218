//! The same task against a real kube-apiserver and etcd, wherever `KUBEBUILDER_ASSETS` names a folder with them, as the
//! tests of controllers have it (envtest).

use std::{
    env, fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    config::{Config, KubeConfigOptions, Kubeconfig},
    core::GroupVersionKind,
};
use lb_userspace::kubernetes::vip_pool::definition;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{endpoint, node, pool, service, slice},
    node::Node,
    server::until,
};

const PATIENCE: Duration = Duration::from_secs(90);

/// Who may do everything.
const TOKEN: &str = "weir-test";

const WEB: &str = "default.web.80-tcp 203.0.113.0:80 10.0.0.11=2 10.0.0.12=1";

/// A process, dead when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A kube-apiserver, and what it keeps things in.
struct Real {
    client: Client,
    kubeconfig: PathBuf,
    directory: tempfile::TempDir,
    _processes: [Running; 2],
}

fn start(program: &Path, log: &Path, arguments: &[String]) -> Running {
    let log = fs::File::create(log).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    let child = command.spawn();
    Running(child.unwrap_or_else(|error| panic!("{}: {error}", program.display())))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

impl Real {
    async fn start(assets: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name).display().to_string();
        let [client, peer, secure] = [free_port(), free_port(), free_port()];
        let etcd = [
            format!("--data-dir={}", file("etcd")),
            format!("--listen-client-urls=http://127.0.0.1:{client}"),
            format!("--advertise-client-urls=http://127.0.0.1:{client}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        ];
        let etcd = start(&assets.join("etcd"), Path::new(&file("etcd.log")), &etcd);
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        fs::write(file("account.key"), key).unwrap();
        fs::write(
            file("tokens"),
            format!("{TOKEN},admin,admin,system:masters\n"),
        )
        .unwrap();
        let api = [
            format!("--etcd-servers=http://127.0.0.1:{client}"),
            format!("--secure-port={secure}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--cert-dir={}", file("certificates")),
            format!("--token-auth-file={}", file("tokens")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://localhost".to_owned(),
            format!("--service-account-key-file={}", file("account.key")),
            format!("--service-account-signing-key-file={}", file("account.key")),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ];
        let api = start(
            &assets.join("kube-apiserver"),
            Path::new(&file("api.log")),
            &api,
        );
        let kubeconfig = directory.path().join("kubeconfig");
        let server = format!("https://127.0.0.1:{secure}");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server, "insecure-skip-tls-verify": true}}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "weir"}}],
        });
        fs::write(&kubeconfig, config.to_string()).unwrap();
        let read = Kubeconfig::read_from(&kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(read, &options).await;
        let client = Client::try_from(config.unwrap()).unwrap();
        let began = Instant::now();
        while let Err(error) = client.apiserver_version().await {
            assert!(began.elapsed() < PATIENCE, "no kube-apiserver: {error}");
            sleep(Duration::from_millis(200)).await;
        }
        Self {
            client,
            kubeconfig,
            directory,
            _processes: [api, etcd],
        }
    }

    fn api(&self, object: &Value) -> (Api<DynamicObject>, String) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let version = text(&object["apiVersion"]);
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let kind = GroupVersionKind::gvk(group, version, object["kind"].as_str().unwrap());
        let resource = ApiResource::from_gvk(&kind);
        let namespace = text(&object["metadata"]["namespace"]);
        let api = if namespace.is_empty() {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), &namespace, &resource)
        };
        (api, text(&object["metadata"]["name"]))
    }

    /// Makes an object, with its status where it has one; tries again while its definition is on its way.
    async fn create(&self, object: Value) {
        let (api, name) = self.api(&object);
        let made: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        let began = Instant::now();
        while let Err(error) = api.create(&PostParams::default(), &made).await {
            assert!(began.elapsed() < PATIENCE, "{name}: {error}");
            sleep(Duration::from_millis(200)).await;
        }
        if !object["status"].is_null() {
            let status = Patch::Merge(json!({"status": object["status"]}));
            let how = PatchParams::default();
            api.patch_status(&name, &how, &status).await.unwrap();
        }
    }

    async fn patch(&self, object: &Value, change: Value) {
        let (api, name) = self.api(object);
        let change = Patch::Merge(change);
        let how = PatchParams::default();
        api.patch(&name, &how, &change).await.unwrap();
    }

    async fn ingress(&self, object: &Value) -> Value {
        let (api, name) = self.api(object);
        let service = api.get(&name).await.unwrap();
        service.data["status"]["loadBalancer"]["ingress"].clone()
    }
}

async fn serves(node: &Node, wanted: &[&str]) {
    let what = format!("{wanted:?} is served");
    until(&what, PATIENCE, || node.serves() == wanted).await;
}

#[tokio::test]
async fn a_real_api_server_has_its_services_served() {
    let Some(assets) = env::var_os("KUBEBUILDER_ASSETS") else {
        eprintln!("NOT RUN: KUBEBUILDER_ASSETS names no folder with a kube-apiserver and etcd");
        return;
    };
    let real = Real::start(Path::new(&assets)).await;
    real.create(serde_json::to_value(definition()).unwrap())
        .await;
    real.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "weir"}}))
        .await;
    real.create(pool("main", "203.0.113.0/28")).await;
    for (name, address) in [("n1", "10.0.0.11"), ("n2", "10.0.0.12")] {
        real.create(node(name, address)).await;
    }
    let web = service("web", "weir.dev/xdp");
    let other = service("other", "example.com/lb");
    real.create(web.clone()).await;
    real.create(other.clone()).await;
    let mut endpoints = vec![
        endpoint("10.1.1.1", "n1"),
        endpoint("10.1.1.2", "n1"),
        endpoint("10.1.2.1", "n2"),
    ];
    let slices = slice("web", &endpoints);
    real.create(slices.clone()).await;

    let [first, second] = ["lb-1", "lb-2"]
        .map(|name| Node::start_at(real.directory.path(), &real.kubeconfig, name, ""));
    serves(&first, &[WEB]).await;
    serves(&second, &[WEB]).await;
    assert_eq!(real.ingress(&web).await[0]["ipMode"], "VIP");
    assert_eq!(real.ingress(&other).await, Value::Null);
    // The writer dies, and the other one writes.
    let (writer, heir) = if first.status().writer {
        (first, second)
    } else {
        (second, first)
    };
    writer.kill();
    until("the other one writes", PATIENCE, || heir.status().writer).await;

    endpoints[2]["conditions"] = json!({"ready": false, "serving": true, "terminating": true});
    real.patch(&slices, json!({"endpoints": endpoints})).await;
    let drained = "default.web.80-tcp 203.0.113.0:80 10.0.0.11=2 10.0.0.12=0";
    serves(&heir, &[drained]).await;
    let no_longer = json!({"spec": {"type": "ClusterIP", "loadBalancerClass": null}});
    real.patch(&web, no_longer).await;
    serves(&heir, &[]).await;
    let began = Instant::now();
    while !real.ingress(&web).await.is_null() {
        assert!(began.elapsed() < PATIENCE, "the status is not taken back");
        sleep(Duration::from_millis(100)).await;
    }
    heir.end().await;
}
