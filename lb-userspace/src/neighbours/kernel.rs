//! Questions to the kernel, and what it tells unasked.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::Duration,
};

use futures_util::{
    Stream, StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use rtnetlink::{
    Handle, MulticastGroup,
    packet_core::NetlinkMessage,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        neighbour::{NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourState},
        route::{RouteAttribute, RouteMessage},
    },
    sys::AsyncSocket as _,
};
use rustix::io::Errno;
use tokio::{task::AbortHandle, time::timeout};

use super::{
    Link, Problem,
    message::{self, Hop, Neighbour, PROTOCOL, Route},
};

/// What can change the way to a backend.
const GROUPS: &[MulticastGroup] = &[
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
];

/// Receive buffer of the socket that listens; an overrun costs a full look.
const RECEIVE_BUFFER: u32 = 1 << 20;

/// The kernel answers at once; an answer that was lost would never come.
const ANSWER: Duration = Duration::from_secs(5);

/// Route lookups on the way at a time.
const LOOKUPS: usize = 32;

/// What the kernel tells unasked; ends where the socket broke.
pub(super) type Events = BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>;

/// Two rtnetlink sockets: one that asks, one that listens.
pub(super) struct Kernel {
    handle: Handle,
    connections: [AbortHandle; 2],
}

impl Drop for Kernel {
    fn drop(&mut self) {
        for connection in &self.connections {
            connection.abort();
        }
    }
}

impl Kernel {
    /// Opens the sockets in the network namespace of the calling thread. From now on events are kept.
    pub(super) fn open() -> io::Result<(Self, Events)> {
        let (mut listening, _, events) = rtnetlink::new_multicast_connection(GROUPS)?;
        listening
            .socket_mut()
            .socket_mut()
            .set_rx_buf_sz(RECEIVE_BUFFER)?;
        let (asking, handle, _) = rtnetlink::new_connection()?;
        let kernel = Self {
            handle,
            connections: [
                tokio::spawn(listening).abort_handle(),
                tokio::spawn(asking).abort_handle(),
            ],
        };
        Ok((kernel, events.map(|(message, _)| message).boxed()))
    }

    pub(super) async fn links(&self) -> io::Result<BTreeMap<u32, Link>> {
        let links = self.handle.link().get().execute();
        collect(links.map_ok(|message| message::link(&message))).await
    }

    pub(super) async fn neighbours(&self) -> io::Result<Vec<Neighbour>> {
        let dump = |family| {
            let request = self.handle.neighbours().get();
            request.set_address_family(family).execute()
        };
        let both = dump(AddressFamily::Inet).chain(dump(AddressFamily::Inet6));
        let found: Vec<_> = collect(both.map_ok(|message| message::neighbour(&message))).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Where the kernel would send packets for each address.
    ///
    /// Fails as a whole only where the kernel does not answer; that there is no route is an answer.
    pub(super) async fn routes(
        &self,
        addresses: &BTreeSet<IpAddr>,
    ) -> io::Result<BTreeMap<IpAddr, Result<Route, Problem>>> {
        stream::iter(addresses.iter().copied())
            .map(async |address| Ok((address, self.route(address).await?)))
            .buffer_unordered(LOOKUPS)
            .try_collect()
            .await
    }

    async fn route(&self, to: IpAddr) -> io::Result<Result<Route, Problem>> {
        let mut request = RouteMessage::default();
        (
            request.header.address_family,
            request.header.destination_prefix_length,
        ) = match to {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        request
            .attributes
            .push(RouteAttribute::Destination(to.into()));
        let mut answers = Box::pin(self.handle.route().get(request).execute());
        match answer(answers.next()).await? {
            Some(Ok(message)) => Ok(message::route(&message, to)),
            Some(Err(rtnetlink::Error::NetlinkError(error))) => {
                let error = error.to_io();
                Ok(Err(Problem::NoRoute(match error.kind() {
                    // What the kernel answers, of all things.
                    io::ErrorKind::InvalidInput => "the route is a blackhole".to_owned(),
                    _ => describe(&error),
                })))
            }
            Some(Err(error)) => Err(io::Error::other(error)),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Has the kernel resolve a neighbour and keep it resolved.
    ///
    /// Kernels before 5.16 do not know managed neighbours, and resolve it this once.
    pub(super) async fn manage(&self, hop: Hop) -> io::Result<()> {
        self.touch(hop, Some(NeighbourExtFlags::Managed)).await
    }

    /// Leaves a neighbour to its fate, as it is.
    pub(super) async fn give_up(&self, hop: Hop) -> io::Result<()> {
        self.touch(hop, None).await
    }

    /// With `NTF_USE` the entry keeps its state and MAC address; `NTF_EXT_MANAGED` becomes what is given.
    async fn touch(
        &self,
        (ifindex, address): Hop,
        flags: Option<NeighbourExtFlags>,
    ) -> io::Result<()> {
        let mut request = self
            .handle
            .neighbours()
            .add(ifindex, address)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        let attributes = &mut request.message_mut().attributes;
        attributes.push(NeighbourAttribute::Protocol(PROTOCOL));
        attributes.extend(flags.map(NeighbourAttribute::ExtFlags));
        answer(request.execute()).await?.map_err(into_io)
    }
}

/// Waits for an answer that may have been lost.
async fn answer<T>(future: impl Future<Output = T>) -> io::Result<T> {
    timeout(ANSWER, future)
        .await
        .map_err(|elapsed| io::Error::new(io::ErrorKind::TimedOut, elapsed))
}

async fn collect<T, C: Default + Extend<T>>(
    dump: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> io::Result<C> {
    answer(dump.try_collect()).await?.map_err(into_io)
}

fn into_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(error) => error.to_io(),
        error => io::Error::other(error),
    }
}

/// The error as libc tells it, without the number that Rust adds, and with what is known of its cause.
pub(super) fn describe(error: &io::Error) -> String {
    if Errno::from_io_error(error) == Some(Errno::NOBUFS) {
        return "the neighbour table is full; raise net.ipv4.neigh.default.gc_thresh3 \
            or net.ipv6.neigh.default.gc_thresh3"
            .to_owned();
    }
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_lowercase(),
        None => text,
    }
}
