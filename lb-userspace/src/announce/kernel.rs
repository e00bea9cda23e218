//! Routes for VIPs in a table of the kernel that no rule leads to, by rtnetlink(7).
//!
//! They are blackholes of one address: no packet ever looks at them, they need no interface and no next hop, and go with none.
//! Their routing protocol's number tells them from everybody else's.

use std::{collections::BTreeSet, io, net::IpAddr, time::Duration};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream::BoxStream};
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder,
    packet_core::NetlinkPayload,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType},
    },
};
use rustix::io::Errno;
use tokio::{task::AbortHandle, time::timeout};

use crate::config::Announcing;

/// The kernel answers at once; an answer that was lost would never come.
const ANSWER: Duration = Duration::from_secs(5);

/// Where weir's routes are, and what marks them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    /// The routing table.
    pub(crate) table: u32,
    /// The routing protocol's number.
    pub(crate) protocol: u8,
}

impl From<&Announcing> for Place {
    fn from(announcing: &Announcing) -> Self {
        Self {
            table: announcing.table,
            protocol: announcing.protocol,
        }
    }
}

/// What happened to a route of weir's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Event {
    /// There is one now.
    New(IpAddr),
    /// There is none any more.
    Gone(IpAddr),
    /// The kernel had more to tell than was read: anything may have happened.
    Lost,
}

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Routes {
    place: Place,
    handle: Handle,
    connection: AbortHandle,
}

impl Drop for Routes {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Routes {
    /// Opens the socket, within tokio.
    pub(crate) fn open(place: Place) -> io::Result<Self> {
        // Strict: the kernel filters by table and protocol, which matters where it holds the whole Internet's routes.
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()?;
        Ok(Self {
            place,
            handle,
            connection: tokio::spawn(connection).abort_handle(),
        })
    }

    /// What happens to weir's routes from now on; ends where the socket broke.
    pub(super) fn watch(place: Place) -> io::Result<(BoxStream<'static, Event>, AbortHandle)> {
        const GROUPS: &[MulticastGroup] = &[MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(GROUPS)?;
        let connection = tokio::spawn(connection).abort_handle();
        let events = messages.filter_map(move |(message, _)| {
            std::future::ready(match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
                    place.address_of(&route).map(Event::New)
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route)) => {
                    place.address_of(&route).map(Event::Gone)
                }
                NetlinkPayload::Overrun(_) => Some(Event::Lost),
                _ => None,
            })
        });
        Ok((events.boxed(), connection))
    }

    /// The addresses that there is a route for.
    pub(crate) async fn list(&self) -> io::Result<BTreeSet<IpAddr>> {
        let mut found = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            request.header.protocol = RouteProtocol::from(self.place.protocol);
            request
                .attributes
                .push(RouteAttribute::Table(self.place.table));
            let dump = self.handle.route().get(request).execute();
            found.extend(self.collect(dump).await?);
        }
        Ok(found)
    }

    async fn collect(
        &self,
        dump: impl Stream<Item = Result<RouteMessage, rtnetlink::Error>>,
    ) -> io::Result<Vec<IpAddr>> {
        let place = self.place;
        let own = dump.try_filter_map(async |route| Ok(place.address_of(&route)));
        match answered(own.try_collect()).await {
            Ok(found) => Ok(found),
            // A table that nobody has put anything into yet, or a kernel without IPv6.
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::NOENT | Errno::AFNOSUPPORT | Errno::OPNOTSUPP)
                ) =>
            {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the route for an address; one that is there already is as good.
    pub(crate) async fn add(&self, address: IpAddr) -> io::Result<()> {
        let request = self.handle.route().add(self.place.route(address)?);
        match answered(request.execute()).await {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if self.list().await?.contains(&address) {
                    return Ok(());
                }
                let table = self.place.table;
                Err(io::Error::other(format!(
                    "table {table} has somebody else's route for it (`ip route show table {table}`)"
                )))
            }
            result => result,
        }
    }

    /// Takes the route for an address away; none is as good.
    pub(crate) async fn remove(&self, address: IpAddr) -> io::Result<()> {
        let request = self.handle.route().del(self.place.route(address)?);
        match answered(request.execute()).await {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => Ok(()),
            result => result,
        }
    }

    /// Takes all of weir's routes away. Returns how many there were.
    pub(crate) async fn clear(&self) -> io::Result<usize> {
        let all = self.list().await?;
        for address in &all {
            self.remove(*address).await?;
        }
        Ok(all.len())
    }
}

impl Place {
    fn route(self, address: IpAddr) -> io::Result<RouteMessage> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let route = RouteMessageBuilder::<IpAddr>::new().destination_prefix(address, bits);
        Ok(route
            .map_err(io::Error::other)?
            .table_id(self.table)
            .protocol(RouteProtocol::from(self.protocol))
            .kind(RouteType::BlackHole)
            .build())
    }

    /// The address of a route that is weir's.
    fn address_of(self, route: &RouteMessage) -> Option<IpAddr> {
        let mut table = u32::from(route.header.table);
        let mut address = None;
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Destination(RouteAddress::Inet(v4)) => address = Some((*v4).into()),
                RouteAttribute::Destination(RouteAddress::Inet6(v6)) => {
                    address = Some((*v6).into());
                }
                _ => {}
            }
        }
        let bits = route.header.destination_prefix_length;
        let is_ours = table == self.table
            && u8::from(route.header.protocol) == self.protocol
            && route.header.kind == RouteType::BlackHole;
        address
            .filter(|address: &IpAddr| is_ours && bits == if address.is_ipv4() { 32 } else { 128 })
    }
}

async fn answered<T>(request: impl Future<Output = Result<T, rtnetlink::Error>>) -> io::Result<T> {
    match timeout(ANSWER, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(rtnetlink::Error::NetlinkError(error))) => Err(error.to_io()),
        Ok(Err(error)) => Err(io::Error::other(error)),
        Err(elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, elapsed)),
    }
}
