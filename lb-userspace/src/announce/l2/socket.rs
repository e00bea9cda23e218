//! The packet socket: takes `CAP_NET_RAW`.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket},
};

use super::{Interface, frame::frames};

/// Sends by any interface of its network namespace.
#[derive(Debug, Default)]
pub(super) struct Sender {
    socket: Option<OwnedFd>,
    /// Interfaces as the kernel addresses them, by name.
    known: BTreeMap<String, LinkAddr>,
}

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// There is no socket to send by.
    #[error("no packet socket can be opened ({0}; it takes CAP_NET_RAW)")]
    Socket(#[source] Errno),
    /// The interfaces cannot be listed.
    #[error("the interfaces cannot be listed ({0})")]
    Interfaces(#[source] Errno),
    /// The interface has gone.
    #[error("there is no interface {0}")]
    Absent(String),
    /// The kernel does not take the frame.
    #[error("nothing can be sent by {0} ({1})")]
    Send(String, #[source] Errno),
}

impl Sender {
    /// Forgets what is known of interfaces: they are others.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// Tells the segment of an interface that `address` is there.
    pub(super) fn tell(&mut self, interface: &Interface, address: IpAddr) -> Result<(), Failed> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open().map_err(Failed::Socket)?,
        };
        let socket = self.socket.insert(socket).as_raw_fd();
        if self.known.is_empty() {
            self.known = interfaces().map_err(Failed::Interfaces)?;
        }
        let name = &interface.name;
        let Some(to) = self.known.get(name) else {
            self.forget();
            return Err(Failed::Absent(name.clone()));
        };
        for frame in frames(address, interface.mac) {
            if let Err(error) = sendto(socket, &frame, to, MsgFlags::MSG_DONTWAIT) {
                // It may have come back under another number.
                self.forget();
                return Err(Failed::Send(name.clone(), error));
            }
        }
        Ok(())
    }
}

fn open() -> Result<OwnedFd, Errno> {
    // Of no protocol: it receives nothing.
    socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
}

fn interfaces() -> Result<BTreeMap<String, LinkAddr>, Errno> {
    let all = getifaddrs()?.filter_map(|interface| {
        let address = *interface.address?.as_link_addr()?;
        Some((interface.interface_name, address))
    });
    Ok(all.collect())
}
