//! Interfaces, addresses and settings of this network namespace.

use std::{collections::BTreeSet, fs, net::IpAddr, path::Path};

use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::{
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
};

use super::ethtool;
use crate::{
    dataplane::bpf::foreign,
    doctor::facts::{Carried, Conf, Held, Net, Nic},
    interfaces::own,
    neighbours::Snapshot,
};

/// Everything; `linked` are the interfaces that weir's links are pinned for.
pub(super) async fn net(snapshot: &Snapshot, linked: &[String]) -> anyhow::Result<Net> {
    let (connection, handle, _) =
        rtnetlink::new_connection().context("opening a netlink socket")?;
    let connection = tokio::spawn(connection);
    let links: Vec<_> = handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .context("asking for interfaces")?;
    let addresses: Vec<_> = handle
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .context("asking for addresses")?;
    connection.abort();

    let mut net = Net {
        all: conf("all"),
        ..Net::default()
    };
    let with_vlans: BTreeSet<u32> = snapshot
        .links
        .values()
        .filter_map(|link| link.vlan?.lower)
        .collect();
    for message in &links {
        let mut nic = nic(message);
        nic.has_vlans = with_vlans.contains(&nic.index);
        nic.xdp = snapshot
            .links
            .get(&nic.index)
            .and_then(|link| link.xdp)
            .map(|xdp| Carried {
                mode: xdp.mode,
                program: foreign(xdp.program),
                is_weirs: linked.contains(&nic.name),
            });
        nic.conf = conf(&nic.name);
        net.nics.insert(nic.name.clone(), nic);
    }
    ethtool::ask(net.nics.values_mut()).await?;
    net.addresses = addresses
        .iter()
        .filter_map(|message| held(message, &net))
        .collect();
    Ok(net)
}

fn nic(message: &LinkMessage) -> Nic {
    let flags = message.header.flags;
    let mut nic = Nic {
        index: message.header.index,
        is_up: flags.contains(LinkFlags::Up),
        has_carrier: flags.contains(LinkFlags::LowerUp),
        is_loopback: flags.contains(LinkFlags::Loopback),
        is_ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        ..Nic::default()
    };
    let (mut device, mut bus) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => nic.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => nic.mtu = *mtu,
            LinkAttribute::LinkInfo(infos) => {
                nic.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            LinkAttribute::ParentDevName(name) => device = Some(name),
            LinkAttribute::ParentDevBusName(name) => bus = Some(name),
            _ => {}
        }
    }
    if let (Some(device), Some(bus)) = (device, bus) {
        // By the bus: /sys/class/net shows the network namespace in which sysfs was mounted.
        let link = Path::new("/sys/bus")
            .join(bus)
            .join("devices")
            .join(device)
            .join("driver");
        let driver = fs::read_link(link).ok();
        let name = driver.as_ref().and_then(|path| path.file_name());
        nic.driver = name.map(|name| name.to_string_lossy().into_owned());
    }
    nic
}

fn held(message: &AddressMessage, net: &Net) -> Option<Held> {
    let address: IpAddr = own(&message.attributes)?;
    let header = message.header.flags;
    let is_tentative = header.contains(AddressHeaderFlags::Tentative)
        || header.contains(AddressHeaderFlags::Dadfailed)
        || message.attributes.iter().any(|attribute| match attribute {
            AddressAttribute::Flags(flags) => {
                flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed)
            }
            _ => false,
        });
    Some(Held {
        address,
        prefix: message.header.prefix_len,
        interface: net.by_index(message.header.index)?.name.clone(),
        is_tentative,
    })
}

/// The settings of an interface, or of `all`.
fn conf(interface: &str) -> Conf {
    let v4 = |key: &str| sysctl(&format!("net/ipv4/conf/{interface}/{key}"));
    Conf {
        rp_filter: v4("rp_filter"),
        arp_ignore: v4("arp_ignore"),
        arp_announce: v4("arp_announce"),
        no_ipv6: sysctl(&format!("net/ipv6/conf/{interface}/disable_ipv6")) == Some(1),
    }
}

/// A setting of the calling thread's network namespace; `None` where it is not shown, or no small number.
pub(super) fn sysctl(key: &str) -> Option<u8> {
    let text = fs::read_to_string(Path::new("/proc/sys").join(key)).ok()?;
    text.trim().parse().ok()
}
