//! The veth, its routing table and the rules that lead there: made, looked at and removed by rtnetlink(7).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, bail};
use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle, IpVersion, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_core::ErrorMessage,
    packet_route::{
        link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType},
        rule::{RuleAction, RuleAttribute, RuleMessage},
    },
};
use rustix::io::Errno;
use tokio::task::AbortHandle;

use super::{names::Names, offload};

/// The least that IPv6 bears, and so what fits into every tunnel with its outer headers.
const MTU: u32 = 1280;

/// Before everybody's rules but the kernel's own for local addresses, which is 0.
const PRIORITY: u32 = 50;

/// Which of the two IPs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    const fn version(self) -> IpVersion {
        match self {
            Self::V4 => IpVersion::V4,
            Self::V6 => IpVersion::V6,
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Network {
    handle: Handle,
    connection: AbortHandle,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Where the kernel would send a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Route {
    /// Whether the destination is an address of this node.
    pub(super) is_local: bool,
    /// The interface by which it leaves.
    pub(super) ifindex: u32,
    /// The source address that the kernel would give it.
    pub(super) source: Option<IpAddr>,
}

impl Network {
    pub(super) fn open() -> anyhow::Result<Self> {
        let (connection, handle, _) =
            rtnetlink::new_connection().context("opening a netlink socket")?;
        let connection = tokio::spawn(connection).abort_handle();
        Ok(Self { handle, connection })
    }

    /// Makes the veth, as yet down, and without anything that speaks on its own. Returns the near end's number.
    pub(super) async fn make_veth(&self, names: &Names) -> anyhow::Result<u32> {
        let Names { near, far, .. } = names;
        let made = self.handle.link().add(LinkVeth::new(near, far).build());
        made.execute()
            .await
            .with_context(|| format!("making the interface {near}"))?;
        let mut ifindex = 0;
        for name in [near, far] {
            let link = self.link(name).await?.context("it is gone")?;
            let quiet = LinkUnspec::new_with_index(link.header.index)
                .mtu(MTU)
                // Without ARP every neighbour is known: none need be asked for.
                .arp(false)
                .alias(&names.alias)
                .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
                    vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)],
                )]));
            self.set(quiet.build(), name).await?;
            // Nobody after the programs would close checksums, or cut up what is too large.
            offload::turn_off(name)
                .with_context(|| format!("turning the offloads of {name} off"))?;
            if name == near {
                ifindex = link.header.index;
            }
        }
        Ok(ifindex)
    }

    /// Sets the veth up.
    pub(super) async fn set_up(&self, names: &Names) -> anyhow::Result<()> {
        for name in [&names.far, &names.near] {
            let up = LinkUnspec::new_with_name(name).up();
            self.set(up.build(), name).await?;
        }
        Ok(())
    }

    async fn set(&self, message: LinkMessage, name: &str) -> anyhow::Result<()> {
        let set = self.handle.link().set(message).execute().await;
        set.with_context(|| format!("setting the interface {name}"))
    }

    /// Routes everything of a family with one of the daemon's marks out of an interface.
    pub(super) async fn lead(
        &self,
        names: &Names,
        family: Family,
        ifindex: u32,
    ) -> anyhow::Result<()> {
        let table = names.table();
        let route = match family {
            Family::V4 => RouteMessageBuilder::<Ipv4Addr>::new()
                .scope(RouteScope::Link)
                .table_id(table)
                .output_interface(ifindex)
                .build(),
            Family::V6 => RouteMessageBuilder::<Ipv6Addr>::new()
                .table_id(table)
                .output_interface(ifindex)
                .build(),
        };
        let added = self.handle.route().add(route).replace().execute().await;
        added.with_context(|| format!("making the {family} route of table {table}"))?;
        let mut rule = self.handle.rule().add();
        *rule.message_mut() = self::rule(names, family);
        let added = rule.execute().await;
        added.with_context(|| format!("making the {family} rule that leads to table {table}"))
    }

    /// Removes the veth and the rules that lead to it, if they are there. Returns whether anything was.
    ///
    /// # Errors
    /// Where an interface of that name is not this daemon's: nothing is removed then.
    pub(super) async fn remove(&self, names: &Names) -> anyhow::Result<bool> {
        let mut is_there = false;
        if let Some(link) = self.link(&names.near).await? {
            let alias = link
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    LinkAttribute::IfAlias(alias) => Some(alias.as_str()),
                    _ => None,
                });
            if alias != Some(&names.alias) {
                bail!(
                    "the interface {} is there already and is not this daemon's ({}): give this daemon another pin_path",
                    names.near,
                    alias.unwrap_or("it has no alias")
                );
            }
            let removed = self.handle.link().del(link.header.index).execute().await;
            removed.with_context(|| format!("removing the interface {}", names.near))?;
            is_there = true;
        }
        for family in [Family::V4, Family::V6] {
            is_there |= self.remove_rules(names, family).await?;
        }
        Ok(is_there)
    }

    /// Removes the rules of a family that are the daemon's in every part. Its routes went with their interface.
    async fn remove_rules(&self, names: &Names, family: Family) -> anyhow::Result<bool> {
        let rules = self.handle.rule().get(family.version()).execute();
        let rules: Vec<RuleMessage> = match rules.try_collect().await {
            Ok(rules) => rules,
            // A kernel without that family has none.
            Err(error) if is_unsupported(&error) => return Ok(false),
            Err(error) => return Err(error).context("asking for the routing rules"),
        };
        let ours = rule(names, family).attributes;
        let is_ours = |rule: &&RuleMessage| ours.iter().all(|own| rule.attributes.contains(own));
        let mut is_there = false;
        for _ in rules.iter().filter(is_ours) {
            let removed = self.handle.rule().del(rule(names, family)).execute();
            removed.await.context("removing a routing rule")?;
            is_there = true;
        }
        Ok(is_there)
    }

    /// Where the kernel would send a packet with this mark from this source.
    ///
    /// # Errors
    /// Where it would send none, or does not answer.
    pub(super) async fn route(
        &self,
        to: IpAddr,
        mark: Option<u32>,
        from: Option<IpAddr>,
    ) -> anyhow::Result<Route> {
        let bits = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
        let mut question = RouteMessageBuilder::<IpAddr>::new().destination_prefix(to, bits(to))?;
        if let Some(from) = from {
            question = question.source_prefix(from, bits(from))?;
        }
        if let Some(mark) = mark {
            question = question.mark(mark);
        }
        let answers = self.handle.route().get(question.build()).execute();
        let answer = std::pin::pin!(answers).try_next().await;
        let answer = answer.map_err(|error| match error {
            rtnetlink::Error::NetlinkError(error) => error.to_io().into(),
            error => anyhow::Error::new(error),
        })?;
        let answer = answer.context("the kernel does not answer")?;
        Ok(read(&answer))
    }

    /// The name of an interface.
    pub(super) async fn name(&self, ifindex: u32) -> Option<String> {
        let request = self.handle.link().get().match_index(ifindex);
        let link = request.execute().try_next().await.ok()??;
        link.attributes
            .into_iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            })
    }

    async fn link(&self, name: &str) -> anyhow::Result<Option<LinkMessage>> {
        let request = self.handle.link().get().match_name(name.to_owned());
        match request.execute().try_next().await {
            Ok(link) => Ok(link),
            Err(rtnetlink::Error::NetlinkError(error)) if errno(&error) == Some(Errno::NODEV) => {
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| format!("asking for {name}")),
        }
    }
}

fn rule(names: &Names, family: Family) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = match family {
        Family::V4 => rtnetlink::packet_route::AddressFamily::Inet,
        Family::V6 => rtnetlink::packet_route::AddressFamily::Inet6,
    };
    rule.header.action = RuleAction::ToTable;
    rule.attributes = vec![
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::FwMark(names.table()),
        RuleAttribute::FwMask(Names::MASK),
        RuleAttribute::Table(names.table()),
    ];
    rule
}

fn read(message: &RouteMessage) -> Route {
    let mut route = Route {
        is_local: message.header.kind == RouteType::Local,
        ifindex: 0,
        source: None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => route.ifindex = *ifindex,
            RouteAttribute::PrefSource(RouteAddress::Inet(v4)) => route.source = Some((*v4).into()),
            RouteAttribute::PrefSource(RouteAddress::Inet6(v6)) => {
                route.source = Some((*v6).into());
            }
            _ => {}
        }
    }
    route
}

fn is_unsupported(error: &rtnetlink::Error) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(error)
        if matches!(errno(error), Some(Errno::AFNOSUPPORT | Errno::OPNOTSUPP)))
}

fn errno(error: &ErrorMessage) -> Option<Errno> {
    Errno::from_io_error(&error.to_io())
}
