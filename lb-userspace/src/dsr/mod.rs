//! The way of health checks with `via = "dsr"`: from a socket of this node, through the code and the maps that forward
//! clients' packets, to one backend, for the VIP's own address.
//!
//! A probe's socket carries a mark that names the backend. A rule leads marked packets to a routing table of weir's own,
//! and that out of a veth of weir's own, on whose far end a program sends them to the backend ([`Dsr`]). Answers come from the
//! VIP to this node's address, by any interface, and are nobody's but the socket's.
//!
//! All of it is made when the first check wants it, looked at before each probe, made anew where somebody took a part of
//! it away, and removed with the daemon; what a killed daemon left is removed by the next one, or by `weir detach`.

mod names;
mod network;
mod offload;
mod source;
mod task;

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use crate::{
    dataplane::bpf::dsr::Dsr,
    health::{Aim, Failure, Forwarding, Through},
};
use names::Names;
use network::{Family, Network};
use task::{Command, State, Task};

/// How long a probe waits until its way is made, its backend is in the maps, and the kernel has told where packets go.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whom a probe asks, and for which VIP's address: it has one backend id, or several that lead the same way.
pub type Asked = (IpAddr, Through);

/// The way of dsr health checks of one daemon. What is made of it goes with [`Self::remove`].
#[derive(Debug)]
pub struct ProbePath {
    names: Names,
    commands: mpsc::UnboundedSender<Command>,
    state: watch::Receiver<State>,
    ids: watch::Sender<Arc<HashMap<Asked, u16>>>,
}

/// What is in the kernel.
#[derive(Debug)]
struct Made {
    // Fields are dropped in order: the programs go before their interfaces.
    _programs: Dsr,
    network: Network,
    /// The number of the veth's near end.
    ifindex: u32,
    /// Why probes of IPv6 VIPs cannot be made, if so.
    no_ipv6: Option<String>,
}

impl ProbePath {
    /// A way over the maps that a daemon has pinned below `pin_path`. Nothing is made yet.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(pin_path: &Path) -> Self {
        let names = Names::of(pin_path);
        let (commands, receiver) = mpsc::unbounded_channel();
        let (task, state) = Task::new(pin_path.to_owned(), names.clone(), receiver);
        tokio::spawn(task.run());
        Self {
            names,
            commands,
            state,
            ids: watch::Sender::default(),
        }
    }

    /// Says under which id each backend is in the maps now. With the first backend the way is made.
    pub fn follow(&self, ids: HashMap<Asked, u16>) {
        if !ids.is_empty() {
            self.send(Command::Make);
        }
        self.ids.send_if_modified(|held| {
            let changed = **held != ids;
            if changed {
                *held = Arc::new(ids);
            }
            changed
        });
    }

    /// Why probes cannot be made, if so.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Failed(error) => Some(format!("health checks with via = \"dsr\": {error}")),
            State::Nothing | State::Made(_) => None,
        }
    }

    /// Removes all of it from the kernel, also what an earlier daemon left.
    pub async fn remove(&self) {
        let (done, wait) = oneshot::channel();
        self.send(Command::Remove(done));
        // An error says that the task is gone, and with it the programs.
        wait.await.ok();
    }

    fn send(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::error!("the task that keeps the way of dsr health checks is gone");
        }
    }

    /// The id of a backend, once it is in the maps.
    async fn id(&self, asked: Asked) -> Option<u16> {
        let mut ids = self.ids.subscribe();
        let ids = ids.wait_for(|ids| ids.contains_key(&asked)).await.ok()?;
        ids.get(&asked).copied()
    }

    async fn made(&self) -> Result<Arc<Made>, String> {
        let mut state = self.state.clone();
        let state = state.wait_for(|state| !matches!(state, State::Nothing));
        match &*state.await.map_err(|error| error.to_string())? {
            State::Made(made) => Ok(Arc::clone(made)),
            State::Failed(error) => {
                self.send(Command::Make);
                Err(error.clone())
            }
            State::Nothing => Err("it is not made yet".to_owned()),
        }
    }

    async fn find(&self, vip: IpAddr, through: Through) -> Result<Aim, Failure> {
        let id = self.id((vip, through)).await;
        let id = id.ok_or_else(|| Failure::NotAsked("the daemon ends".to_owned()))?;
        let made = self.made().await.map_err(Failure::NotAsked)?;
        if let Some(error) = made.no_ipv6.as_ref().filter(|_| vip.is_ipv6()) {
            return Err(Failure::NotAsked(error.clone()));
        }
        let source = source::toward(&made.network, vip, through.backend).await;
        let mark = self.names.mark(id);
        match made.network.route(vip, Some(mark), source).await {
            Ok(route) if route.is_local => Err(Failure::NotAsked(source::refusal(vip))),
            Ok(route) if route.ifindex == made.ifindex => Ok(Aim {
                mark: Some(mark),
                source: source.or(route.source),
            }),
            _ => {
                self.send(Command::Mend(made.ifindex));
                Err(Failure::NotAsked(format!(
                    "marked packets do not leave by {}: somebody changed interfaces, routes or rules",
                    self.names.near
                )))
            }
        }
    }
}

impl Forwarding for ProbePath {
    fn aim(&self, vip: IpAddr, through: Through) -> BoxFuture<'_, Result<Aim, Failure>> {
        let found = timeout(PATIENCE, self.find(vip, through));
        Box::pin(async {
            let late = |_elapsed| Failure::NotAsked("its way is not made yet".to_owned());
            found.await.map_err(late)?
        })
    }

    fn deafness(&self, vip: IpAddr, through: Through) -> BoxFuture<'_, Option<String>> {
        let made = match &*self.state.borrow() {
            State::Made(made) => Some(Arc::clone(made)),
            State::Nothing | State::Failed(_) => None,
        };
        Box::pin(async move { source::deafness(&made?.network, vip, through.backend).await })
    }
}

/// Makes all of it, in place of what there may be.
async fn make(pin_path: PathBuf, names: Names) -> anyhow::Result<Made> {
    let network = Network::open()?;
    network.remove(&names).await?;
    let ifindex = network.make_veth(&names).await?;
    let programs = Dsr::attach(&pin_path, &names.near, &names.far)?;
    network.set_up(&names).await?;
    network.lead(&names, Family::V4, ifindex).await?;
    // Many a host goes without IPv6.
    let no_ipv6 = network.lead(&names, Family::V6, ifindex).await.err();
    tracing::info!(
        interface = names.near,
        table = names.table(),
        mark = format!("{:#x}/{:#x}", names.table(), Names::MASK),
        "the way of dsr health checks is made"
    );
    Ok(Made {
        _programs: programs,
        network,
        ifindex,
        no_ipv6: no_ipv6.map(|error| format!("{error:#}")),
    })
}

/// Removes what a daemon with its pins at `pin_path` left in this network namespace. Returns whether anything was there.
///
/// # Errors
/// The kernel does not let it, or what has its name is somebody else's.
pub async fn remove(pin_path: &Path) -> anyhow::Result<bool> {
    let network = Network::open()?;
    let names = Names::of(pin_path);
    let removed = network.remove(&names).await;
    removed.context("removing the way of dsr health checks")
}
