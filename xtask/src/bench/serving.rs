//! A weir that serves the VIPs of the measured packets, to backends that are not there.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::Result;

use crate::{
    lab::{Backend, Lab, Namespace, Nic, Protocol, Segment, VIP_V4, VIP_V6, Vip, Weir, WeirConfig},
    progress::step,
};

/// Port of the VIPs that are measured with backends reached by `l2`, in benches/src/cases.rs.
pub(super) const PORT: u16 = 443;
/// Backends of each VIP, as there.
const BACKENDS: u8 = 16;
/// Number of the first backend in its segment; the host's is 1.
const FIRST: u8 = 11;

/// Starts a binary on an interface of its own, which is named as it; `number` is that of its segment. The binary does not know some
/// keys of the config.
pub(super) fn start(
    lab: &Lab,
    host: &Namespace,
    segment: &Segment,
    (name, number): (&str, u8),
    binary: PathBuf,
    unknown_keys: &[&str],
) -> Result<(Weir, Nic)> {
    let nic = segment.plug(host, name, &addresses(number))?;
    let config = config(name, number);
    for vip in &config.vips {
        for backend in &vip.backends {
            // Nobody is there: the programs only run, and send nothing.
            host.ip(&format!(
                "neighbour replace {} lladdr 02:00:00:00:01:01 dev {name} nud permanent",
                backend.address
            ))?;
        }
    }
    let weir = step(&format!("start the weir of {name}"), || {
        Weir::start_binary(binary, lab, host, &config, unknown_keys)
    })?;
    Ok((weir, nic))
}

fn v4(segment: u8, number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, segment, number)
}

fn v6(segment: u8, number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd78, 0, 0, segment.into(), 0, 0, 0, number.into())
}

fn addresses(segment: u8) -> [String; 2] {
    [
        format!("{}/24", v4(segment, 1)),
        format!("{}/64", v6(segment, 1)),
    ]
}

/// The VIPs of the measured packets, with backends in a segment.
fn config(name: &str, segment: u8) -> WeirConfig {
    let families = [("v4", VIP_V4), ("v6", VIP_V6)];
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let vips = families.into_iter().flat_map(|(family, address)| {
        protocols.map(|(word, protocol)| Vip {
            name: format!("{word}-{family}"),
            address,
            port: PORT,
            protocol,
            flows: None,
            checked: None,
            backends: (FIRST..FIRST + BACKENDS)
                .map(|number| Backend {
                    address: match address {
                        IpAddr::V4(_) => v4(segment, number).into(),
                        IpAddr::V6(_) => v6(segment, number).into(),
                    },
                    weight: 100,
                })
                .collect(),
        })
    });
    WeirConfig {
        node: name.to_owned(),
        interfaces: vec![name.to_owned()],
        metrics: SocketAddr::from((Ipv4Addr::LOCALHOST, 9406 + u16::from(segment))),
        on_exit: "keep",
        forward: "l2",
        encap_source: Vec::new(),
        announce: "",
        vips: vips.collect(),
        more: String::new(),
    }
}
