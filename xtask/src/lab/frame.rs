//! Frames made by hand: sent as they are, tags included.

use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, ensure};
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket},
};

/// Sends a frame by an interface of the namespace that this thread is in.
pub(super) fn send(nic: &str, frame: &[u8]) -> Result<()> {
    let to = address(nic)?;
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .context("open a packet socket")?;
    let sent = sendto(socket.as_raw_fd(), frame, &to, MsgFlags::empty())
        .with_context(|| format!("send a frame of {} bytes by {nic}", frame.len()))?;
    ensure!(sent == frame.len(), "{sent} of {} bytes sent", frame.len());
    Ok(())
}

/// Puts tags (EtherType and tag control information, the outer one first) behind a frame's MAC addresses.
#[must_use]
pub fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(frame.len().min(12));
    let tags = tags
        .iter()
        .flat_map(|(kind, control)| [kind.to_be_bytes(), control.to_be_bytes()]);
    [addresses, tags.collect::<Vec<_>>().as_flattened(), rest].concat()
}

fn address(nic: &str) -> Result<LinkAddr> {
    let mut all = getifaddrs().context("list the interfaces")?;
    let found = all.find_map(|interface| {
        let address = interface
            .address
            .filter(|_| interface.interface_name == nic)?;
        address.as_link_addr().copied()
    });
    found.with_context(|| format!("there is no interface {nic}"))
}
