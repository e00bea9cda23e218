//! The way to each backend, from the kernel's routes and neighbours: nobody types MAC addresses.
//!
//! One task asks the kernel by rtnetlink(7) which interface and gateway lead to each watched address, has
//! the kernel resolve the gateways and keep them resolved ([managed neighbours], Linux 5.16), listens to
//! what changes, and publishes a [`Snapshot`]. It tells nothing twice, and it never takes a known MAC address
//! back: a gateway that fails, or a route that goes, leaves the last way standing, and says so as a
//! [`Problem`]. Whether a backend still serves is for the health checks to say.
//!
//! [managed neighbours]: https://git.kernel.org/torvalds/c/7482e3841d520a368426ac196720601687e2dc47

mod kernel;
mod message;
mod peek;
mod resolver;
mod task;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
};

use tokio::sync::{mpsc, oneshot, watch};

pub use crate::model::{
    attached::Xdp,
    next_hop::{NextHop, Vlans},
};
pub use peek::peek;
use task::{Command, Task};

/// What is known of the network.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    /// Next hops of the watched addresses to which there is, or was, a way.
    pub next_hops: BTreeMap<IpAddr, NextHop>,
    /// What is wrong with the way to a watched address. It may have a next hop all the same: the last one.
    pub problems: BTreeMap<IpAddr, Problem>,
    /// The interfaces of this network namespace, by index.
    pub links: BTreeMap<u32, Link>,
}

/// An interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its MAC address; `None` where it is no Ethernet interface.
    pub mac: Option<[u8; 6]>,
    /// The largest IP packet that it takes, in bytes; at most 65,535.
    pub mtu: u16,
    /// What makes it a VLAN device, if it is one.
    pub vlan: Option<Vlan>,
    /// How often it has got a carrier so far; `None` where it has none now.
    pub carrier: Option<u32>,
    /// The XDP program on it, be it weir's or somebody else's.
    pub xdp: Option<Xdp>,
}

/// A VLAN device: an interface whose frames leave by another one, with a tag.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Vlan {
    /// The interface that it lies on; `None` where that is in another network namespace.
    pub lower: Option<u32>,
    /// VLAN id.
    pub id: u16,
    /// Whether its tag is a service tag (802.1ad).
    pub is_service: bool,
}

/// What is wrong with the way to an address. Display is for status, after the address and a colon.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Problem {
    /// The kernel has no route.
    #[error("no route: {0}")]
    NoRoute(String),
    /// The address is this node's own.
    #[error("this is an address of this node itself")]
    Local,
    /// The route leads out of an interface without MAC addresses.
    #[error("the route leads out of {interface}, which is no Ethernet interface")]
    NotEthernet {
        /// The interface's name.
        interface: String,
    },
    /// The route leads out of a VLAN device whose tags weir cannot write.
    #[error(
        "the route leads out of {interface}, whose VLAN tags cannot be written: weir takes up to two VLAN \
         devices of this network namespace on one another, a service VLAN (802.1ad) only as the outer one"
    )]
    Vlan {
        /// The interface's name.
        interface: String,
    },
    /// The gateway's MAC address was never known.
    #[error("{gateway} on {interface} has not answered yet")]
    Unresolved {
        /// The backend itself, or the router that leads there.
        gateway: IpAddr,
        /// The interface's name.
        interface: String,
    },
    /// The kernel does not take the gateway into its neighbour table.
    #[error("the kernel refuses to resolve {gateway} on {interface}: {error}")]
    Refused {
        /// The backend itself, or the router that leads there.
        gateway: IpAddr,
        /// The interface's name.
        interface: String,
        /// What the kernel answered, and what mends it where that is known.
        error: String,
    },
    /// The gateway answered once, and now it does not.
    #[error("{gateway} on {interface} does not answer; its last MAC address is used")]
    Silent {
        /// The backend itself, or the router that leads there.
        gateway: IpAddr,
        /// The interface's name.
        interface: String,
    },
}

/// The task that watches the network. It ends when this is dropped, and the kernel goes on resolving
/// what is managed: right for a daemon that ends while its program goes on forwarding.
#[derive(Debug)]
pub struct Neighbours {
    commands: mpsc::UnboundedSender<Command>,
}

impl Neighbours {
    /// Starts the task, in the network namespace of the calling thread, and nothing watched.
    ///
    /// The receiver always holds the newest snapshot. The first one, with the interfaces, is there at once.
    ///
    /// # Errors
    /// The netlink sockets cannot be made, or the kernel does not answer.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    pub async fn start() -> io::Result<(Self, watch::Receiver<Arc<Snapshot>>)> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (task, snapshots) = Task::new(receiver).await?;
        tokio::spawn(task.run());
        Ok((Self { commands }, snapshots))
    }

    /// Watches these addresses and no others.
    pub fn watch(&self, addresses: BTreeSet<IpAddr>) {
        self.send(Command::Watch(addresses));
    }

    /// Looks at everything now; the future ends when that is published. For what the kernel does not tell unasked: it
    /// is silent about XDP programs.
    pub fn look(&self) -> impl Future<Output = ()> + Send + use<> {
        let (done, wait) = oneshot::channel();
        self.send(Command::Look(done));
        async {
            // An error says that the task is gone, which is told elsewhere.
            wait.await.ok();
        }
    }

    /// Ends the task and gives up every neighbour that it manages: for when weir leaves for good.
    pub async fn release(self) {
        let (done, wait) = oneshot::channel();
        self.send(Command::Release(done));
        if wait.await.is_err() {
            tracing::warn!("neighbours are still managed by the kernel");
        }
    }

    fn send(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::error!("the task that watches neighbours is gone");
        }
    }
}
