//! A server of VIPs.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use anyhow::Context as _;
use procfs::net::{TcpState, UdpState};

use super::{look, net};
use crate::{
    dataplane::bpf::decap,
    doctor::{
        self,
        facts::{Decap, Listening, Net, Server},
    },
};

/// Everything about a server, but the interfaces that packets come by.
pub(in crate::doctor) async fn server(asked: &doctor::Server) -> anyhow::Result<Server> {
    let snapshot = look(BTreeSet::new()).await?;
    let net = net::net(&snapshot, &[]).await?;
    let attached = decap::attached(&asked.decap_pins).map_err(|error| format!("{error:#}"));
    Ok(Server {
        decap: attached.map(|attached| attached.into_iter().map(|one| told(one, &net)).collect()),
        decap_pins: asked.has_own_pins.then(|| asked.decap_pins.clone()),
        sockets: sockets().context("reading the sockets of this host")?,
        is_v6_only: net::sysctl("net/ipv6/bindv6only") == Some(1),
        facing: Vec::new(),
        net,
    })
}

fn told(attached: decap::Attached, net: &Net) -> Decap {
    let nic = net.nics.get(&attached.interface);
    Decap {
        is_attached: nic.is_some_and(|nic| nic.xdp.is_some()),
        interface: attached.interface,
        settings: attached.settings,
    }
}

/// Sockets that take connections, or datagrams from anybody.
fn sockets() -> procfs::ProcResult<Vec<Listening>> {
    let listening = |is_tcp, local: SocketAddr| Listening {
        is_tcp,
        address: canonical(local.ip()),
        port: local.port(),
    };
    // Without IPv6 the kernel has no such files.
    let tcp = [procfs::net::tcp()?, procfs::net::tcp6().unwrap_or_default()];
    let udp = [procfs::net::udp()?, procfs::net::udp6().unwrap_or_default()];
    let tcp = tcp.into_iter().flatten();
    let tcp = tcp.filter(|socket| socket.state == TcpState::Listen);
    let udp = udp.into_iter().flatten();
    let udp = udp.filter(|socket| socket.state == UdpState::Close);
    let tcp = tcp.map(|socket| listening(true, socket.local_address));
    Ok(tcp
        .chain(udp.map(|socket| listening(false, socket.local_address)))
        .collect())
}

/// An IPv4 address in its mapped form as such.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
