//! What the kernel says of an interface with a program on it.

use std::net::IpAddr;

use anyhow::{Context as _, bail};
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::{
    address::AddressAttribute,
    link::{LinkAttribute, LinkXdp, XdpAttached},
};

use crate::api::AttachMode;

/// The number of an interface in this network namespace.
///
/// # Errors
/// Where there is no such interface.
pub(crate) fn index(name: &str) -> anyhow::Result<u32> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )
    .context("opening a socket to ask for an interface")?;
    rustix::net::netdevice::name_to_index(&socket, name)
        .with_context(|| format!("there is no interface {name} here"))
}

/// The number of an interface, and how the program is attached to it.
///
/// # Errors
/// Where there is no such interface, or no program on it.
pub(crate) async fn attached(name: &str) -> anyhow::Result<(u32, AttachMode)> {
    let (connection, handle, _) =
        rtnetlink::new_connection().context("opening a netlink socket")?;
    let connection = tokio::spawn(connection);
    let request = handle.link().get().match_name(name.to_owned());
    let answer = request.execute().try_next().await;
    connection.abort();
    let link = answer
        .with_context(|| format!("asking for {name}"))?
        .with_context(|| format!("{name} is gone"))?;
    let attached = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Xdp(xdp) => xdp.iter().find_map(|xdp| match xdp {
                LinkXdp::Attached(attached) => Some(*attached),
                _ => None,
            }),
            _ => None,
        });
    let mode = match attached {
        Some(XdpAttached::Driver) => AttachMode::Native,
        Some(XdpAttached::SocketBuffer) => AttachMode::Generic,
        other => bail!(
            "the program is not attached to {name} as it should be: the kernel says {other:?}"
        ),
    };
    Ok((link.header.index, mode))
}

/// The addresses of an interface, sorted.
///
/// # Errors
/// Where there is no such interface.
pub(crate) async fn addresses(name: &str) -> anyhow::Result<Vec<IpAddr>> {
    let (connection, handle, _) =
        rtnetlink::new_connection().context("opening a netlink socket")?;
    let connection = tokio::spawn(connection);
    let request = handle.link().get().match_name(name.to_owned());
    let answer = request.execute().try_next().await;
    let link = answer
        .with_context(|| format!("asking for {name}"))?
        .with_context(|| format!("there is no interface {name}"))?;
    let request = handle
        .address()
        .get()
        .set_link_index_filter(link.header.index);
    let messages: Vec<_> = request
        .execute()
        .try_collect()
        .await
        .with_context(|| format!("asking for the addresses of {name}"))?;
    connection.abort();
    let mut addresses: Vec<_> = messages
        .iter()
        .filter_map(|message| own(&message.attributes))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// This host's address: on a point-to-point link, `Address` is the other end's.
pub(crate) fn own(attributes: &[AddressAttribute]) -> Option<IpAddr> {
    let local = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}
