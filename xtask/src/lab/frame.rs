//! Frames made by hand: sent as they are, tags included.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket},
};

/// Sends frames by one interface.
#[derive(Debug)]
pub struct FrameSocket {
    socket: OwnedFd,
    to: LinkAddr,
}

impl FrameSocket {
    /// Opens one for an interface of the namespace that this thread is in.
    pub fn open(nic: &str) -> Result<Self> {
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .context("open a packet socket")?;
        Ok(Self {
            socket,
            to: address(nic)?,
        })
    }

    /// Sends a frame, as it is.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = loop {
            match sendto(self.socket.as_raw_fd(), frame, &self.to, MsgFlags::empty()) {
                // The interface's queue is full: it takes a moment.
                Err(Errno::ENOBUFS) => thread::yield_now(),
                result => break result,
            }
        };
        let sent = sent.with_context(|| format!("send a frame of {} bytes", frame.len()))?;
        ensure!(sent == frame.len(), "{sent} of {} bytes sent", frame.len());
        Ok(())
    }
}

/// Sends a frame by an interface of the namespace that this thread is in.
pub(super) fn send(nic: &str, frame: &[u8]) -> Result<()> {
    FrameSocket::open(nic)?.send(frame)
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
