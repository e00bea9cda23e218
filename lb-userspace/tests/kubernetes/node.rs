//! A node that follows a cluster, with a task behind it that owns no data plane but notes what is to be served.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Instant,
};

use lb_userspace::{
    announce::Owned,
    api::{Command, Handle, KubernetesStatus},
    config::Config,
    kubernetes::{self, Start},
};
use tokio::{
    runtime::Runtime,
    sync::{oneshot, watch},
    task::JoinHandle,
};

use crate::server::Server;

pub(crate) struct Node {
    /// What was to be served, each time: VIPs with address, port and backends with weights.
    served: Arc<Mutex<Vec<Vec<String>>>>,
    status: watch::Receiver<KubernetesStatus>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
    /// Its own, so that all of it can be killed at once.
    runtime: Option<Runtime>,
    /// What it is to announce.
    owned: watch::Receiver<Owned>,
    _file: watch::Sender<Arc<BTreeSet<IpAddr>>>,
    willing: watch::Sender<bool>,
}

impl Node {
    pub(crate) fn start(server: &Server, name: &str, more: &str) -> Self {
        Self::start_at(server.directory(), &server.kubeconfig(), name, more)
    }

    /// One that takes no share of what is announced from the start on.
    pub(crate) fn start_drained(server: &Server, name: &str, more: &str) -> Self {
        let config = config(server.directory(), &server.kubeconfig(), name, more);
        Self::start_with(&config, false)
    }

    /// One that keeps its state in a directory and finds its cluster by a file.
    pub(crate) fn start_at(directory: &Path, kubeconfig: &Path, name: &str, more: &str) -> Self {
        Self::start_with(&config(directory, kubeconfig, name, more), true)
    }

    fn start_with(config: &Config, is_willing: bool) -> Self {
        let start = Start::new(config, false).unwrap();
        let served = Arc::new(Mutex::new(vec![shown(&start.services())]));
        let (handle, mut commands) = Handle::channel();
        let noted = Arc::clone(&served);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move {
            while let Some(command) = commands.recv().await {
                let Command::Serve(services, reply) = command else {
                    panic!("nobody asks for that");
                };
                noted.lock().unwrap().push(shown(&services));
                reply.send(Ok(())).unwrap();
            }
        });
        let unknown = KubernetesStatus::unknown(config.kubernetes.as_ref().unwrap());
        let (sender, status) = watch::channel(unknown);
        let (announced, owned) = watch::channel(Owned::default());
        let (file, addresses) = watch::channel(Arc::default());
        let (willing, told) = watch::channel(is_willing);
        let (stop, stopped) = oneshot::channel::<()>();
        let until = async {
            stopped.await.ok();
        };
        let task = runtime.spawn(kubernetes::run(
            start,
            handle,
            (addresses, told),
            (sender, announced),
            until,
        ));
        Self {
            served,
            status,
            stop: Some(stop),
            task: Some(task),
            runtime: Some(runtime),
            owned,
            _file: file,
            willing,
        }
    }

    /// What is served now.
    pub(crate) fn serves(&self) -> Vec<String> {
        self.served.lock().unwrap().last().unwrap().clone()
    }

    /// How often it was told what to serve, the beginning included.
    pub(crate) fn turns(&self) -> usize {
        self.served.lock().unwrap().len()
    }

    /// Which of these addresses it announces now.
    pub(crate) fn announces(&self, address: IpAddr) -> bool {
        self.owned.borrow().has(address, Instant::now())
    }

    /// Says whether it takes a share of what is announced, as a drained node does not.
    pub(crate) fn is_willing(&self, is_willing: bool) {
        self.willing.send_replace(is_willing);
    }

    pub(crate) fn status(&self) -> KubernetesStatus {
        self.status.borrow().clone()
    }

    /// Ends it as SIGTERM does.
    pub(crate) async fn end(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.take().unwrap().await.unwrap();
    }

    /// Ends it as SIGKILL does.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn config(directory: &Path, kubeconfig: &Path, name: &str, more: &str) -> Config {
    let text = format!(
        "[node]\ninterfaces = [\"lo\"]\nseed = \"x\"\nstate_file = \"{}\"\n[kubernetes]\nnode = \"{name}\"\nkubeconfig = \"{}\"\n{more}",
        directory.join(name).join("state.json").display(),
        kubeconfig.display(),
    );
    Config::parse(&text, "weir.toml").unwrap()
}

fn shown(services: &lb_userspace::model::services::Services) -> Vec<String> {
    let vips = services.iter().map(|vip| {
        let backends = vip
            .backends
            .iter()
            .map(|b| format!(" {}={}", b.address, b.weight));
        format!(
            "{} {}:{}{}",
            vip.name,
            vip.address,
            vip.port,
            backends.collect::<String>()
        )
    });
    vips.collect()
}

/// Whether a directory holds what a restart begins with.
pub(crate) fn is_kept(server: &Server, name: &str) -> bool {
    let path: &Path = &server.directory().join(name).join("state.kubernetes.json");
    path.exists()
}
