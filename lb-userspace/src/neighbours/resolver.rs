//! What is known, put together: pure, so that every order of events can be tested.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    Link, NextHop, Problem, Snapshot, Vlans,
    message::{Hop, Neighbour, Route},
};

/// Everything that the kernel told.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    watched: BTreeSet<IpAddr>,
    links: BTreeMap<u32, Link>,
    routes: BTreeMap<IpAddr, Result<Route, Problem>>,
    /// Gateways of watched addresses, by what was last told of them.
    gateways: BTreeMap<Hop, Gateway>,
    /// Gateways that the kernel refused to manage when last asked, with its answers.
    refused: BTreeMap<Hop, String>,
    /// The last way to each watched address that had a MAC address.
    last: BTreeMap<IpAddr, NextHop>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Gateway {
    /// The last MAC address that the kernel would have used.
    mac: Option<[u8; 6]>,
    /// Whether it did not answer when last asked.
    failed: bool,
}

/// What a change asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// A new snapshot.
    Publish,
}

impl Resolver {
    pub(super) const fn watched(&self) -> &BTreeSet<IpAddr> {
        &self.watched
    }

    pub(super) fn watch(&mut self, addresses: BTreeSet<IpAddr>) {
        self.last.retain(|address, _| addresses.contains(address));
        self.watched = addresses;
    }

    /// Takes the answers of a full look.
    pub(super) fn learn(
        &mut self,
        links: BTreeMap<u32, Link>,
        routes: BTreeMap<IpAddr, Result<Route, Problem>>,
        neighbours: &[Neighbour],
    ) {
        let hops: BTreeSet<_> = routes.values().flatten().map(|route| route.hop).collect();
        self.gateways.retain(|hop, _| hops.contains(hop));
        for hop in hops {
            self.gateways.entry(hop).or_default();
        }
        self.links = links;
        self.routes = routes;
        for neighbour in neighbours {
            self.note(neighbour);
        }
    }

    /// Takes what the kernel answered where it refused to manage a neighbour.
    pub(super) fn refuse(&mut self, refused: BTreeMap<Hop, String>) {
        self.refused = refused;
    }

    /// The neighbours that the ways lead over.
    pub(super) fn hops(&self) -> impl Iterator<Item = Hop> {
        let ethernet = |hop: &&Hop| self.links.get(&hop.0).is_some_and(|l| l.mac.is_some());
        self.gateways.keys().filter(ethernet).copied()
    }

    /// Whether a way leads over this neighbour.
    pub(super) fn leads_over(&self, hop: Hop) -> bool {
        self.gateways.contains_key(&hop)
    }

    /// Takes what was told of one neighbour.
    pub(super) fn note(&mut self, neighbour: &Neighbour) -> Effect {
        let Some(gateway) = self.gateways.get_mut(&neighbour.hop) else {
            return Effect::None;
        };
        // While the kernel asks again it has no MAC address to tell: the last one stays.
        gateway.mac = neighbour.mac.or(gateway.mac);
        if neighbour.mac.is_some() || neighbour.failed {
            gateway.failed = neighbour.failed;
        }
        Effect::Publish
    }

    /// The ways, as far as they are known.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        let mut snapshot = Snapshot {
            links: self.links.clone(),
            ..Snapshot::default()
        };
        for &address in &self.watched {
            let (found, problem) = match self.way(address) {
                Ok((hop, problem)) => (Some(hop), problem),
                Err(problem) => (None, Some(problem)),
            };
            if let Some(hop) = found.filter(|hop| hop.mac_destination.is_some()) {
                self.last.insert(address, hop);
            }
            if problem == Some(Problem::Local) {
                self.last.remove(&address);
            }
            // A new way is taken when it is known; until then the old one stands.
            if let Some(hop) = self.last.get(&address).copied().or(found) {
                snapshot.next_hops.insert(address, hop);
            }
            if let Some(problem) = problem {
                snapshot.problems.insert(address, problem);
            }
        }
        snapshot
    }

    fn way(&self, address: IpAddr) -> Result<(NextHop, Option<Problem>), Problem> {
        let not_asked = || Problem::NoRoute("not looked up yet".to_owned());
        let route = self.routes.get(&address).ok_or_else(not_asked)?;
        let Route { hop, mtu } = route.clone()?;
        let (ifindex, gateway) = hop;
        let link = self.links.get(&ifindex);
        let interface = || link.map_or_else(|| format!("#{ifindex}"), |link| link.name.clone());
        let (link, mac_source) =
            link.and_then(|link| Some((link, link.mac?)))
                .ok_or_else(|| Problem::NotEthernet {
                    interface: interface(),
                })?;
        let (leaves_by, vlans) = self.tags(ifindex, link).ok_or_else(|| Problem::Vlan {
            interface: interface(),
        })?;
        let known = self.gateways.get(&hop).copied().unwrap_or_default();
        let problem = match (known, self.refused.get(&hop)) {
            (Gateway { mac: None, .. }, Some(error)) => Some(Problem::Refused {
                gateway,
                interface: interface(),
                error: error.clone(),
            }),
            (Gateway { mac: None, .. }, None) => Some(Problem::Unresolved {
                gateway,
                interface: interface(),
            }),
            (Gateway { failed: true, .. }, _) => Some(Problem::Silent {
                gateway,
                interface: interface(),
            }),
            (Gateway { .. }, _) => None,
        };
        let next_hop = NextHop {
            ifindex: leaves_by,
            mac_source,
            mac_destination: known.mac,
            gateway,
            mtu: mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
            vlans,
        };
        Ok((next_hop, problem))
    }

    /// The interface by which frames leave for good, and the tags that the VLAN devices before it add. `None`
    /// where packets cannot be given such tags.
    fn tags(&self, ifindex: u32, link: &Link) -> Option<(u32, Vlans)> {
        let Some(vlan) = link.vlan else {
            return Some((ifindex, Vlans::default()));
        };
        let lower = vlan.lower?;
        let Some(outer) = self.links.get(&lower)?.vlan else {
            let vlans = Vlans {
                count: 1,
                ids: [vlan.id, 0],
                is_service: vlan.is_service,
            };
            return Some((lower, vlans));
        };
        let lowest = outer.lower?;
        let is_lowest = self.links.get(&lowest)?.vlan.is_none();
        let vlans = Vlans {
            count: 2,
            ids: [outer.id, vlan.id],
            is_service: outer.is_service,
        };
        (is_lowest && !vlan.is_service).then_some((lowest, vlans))
    }
}

#[cfg(test)]
mod tests;
