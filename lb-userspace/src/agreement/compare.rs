//! Holds the reports of other nodes against this node's own. Pure.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{By, Heard, MOST_FOREIGN, MOST_TOLD, Report, SILENT, VipReport, report::Key};
use crate::config::{Affinity, Protocol};

/// Whether the nodes of a fleet have the same tables, as one of them sees it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Agreement {
    /// How the nodes hear of each other.
    pub by: By,
    /// Why Redis did not answer the last time; else `null`.
    pub error: Option<String>,
    /// The nodes: this one, then the others by name.
    pub nodes: Vec<NodeAgreement>,
    /// How many more nodes write into Redis, which are not compared: 64 others are.
    pub more_nodes: u64,
    /// VIPs whose tables are not the same on all nodes that are heard of, in the order of what clients dial: 512 at most,
    /// and 128 of those that only other nodes have.
    pub vips: Vec<VipDifference>,
    /// Whether there are more of them.
    pub more_vips: bool,
}

/// A node of the fleet.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct NodeAgreement {
    /// Its name; where it has never told it, its address, or its number in Redis.
    pub node: String,
    /// Where it is asked; `null` for this node, and where Redis is between them.
    #[schema(value_type = Option<String>)]
    pub address: Option<SocketAddr>,
    /// How it stands.
    pub state: NodeState,
    /// Its version; `null` where it has never told it.
    pub version: Option<String>,
    /// Its generation, which each node counts for itself; `null` where it has never told it.
    pub generation: Option<u64>,
    /// How long ago it told of itself, in seconds; `null` where it never did.
    pub seconds_since_report: Option<f64>,
    /// Why it was not heard of the last time; else `null`.
    pub error: Option<String>,
}

/// How a node stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It is the one that tells this.
    This,
    /// Its tables are this node's.
    Agrees,
    /// Some of them are not.
    Differs,
    /// It has not been heard of for a while: what it told before counts for nothing.
    Unreachable,
}

impl NodeState {
    /// Name in JSON, metrics and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::This => "this",
            Self::Agrees => "agrees",
            Self::Differs => "differs",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A VIP whose tables differ.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
pub struct VipDifference {
    /// Its name: this node's, where it has the VIP.
    pub vip: String,
    /// What clients dial.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// What clients dial; 0 for every port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Whether slots of it are on the move on some node: where nodes follow the same change, the difference passes.
    pub moving: bool,
    /// The tables that there are, and who has them.
    pub tables: Vec<TableOf>,
}

/// Nodes that have the same table of a VIP.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
pub struct TableOf {
    /// CRC32 of the lookup table, 8 hexadecimal digits; `null` for the nodes that have no such VIP.
    pub table_digest: Option<String>,
    /// What is hashed of a flow; `null` for the nodes that have no such VIP.
    pub affinity: Option<Affinity>,
    /// Names of the nodes.
    pub nodes: Vec<String>,
}

/// What a status tells of the agreement: in numbers, which are this node's view.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
pub struct AgreementStatus {
    /// How the nodes hear of each other.
    pub by: By,
    /// Why Redis did not answer the last time; else `null`.
    pub error: Option<String>,
    /// How many other nodes agree, differ and are unreachable.
    pub nodes: NodeCounts,
    /// This node's VIPs, and 128 at most that only other nodes have, as far as nodes differ in them.
    pub vips: Vec<VipAgreement>,
}

/// How many other nodes stand how.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
pub struct NodeCounts {
    /// Their tables are this node's.
    pub agrees: u64,
    /// Some of them are not.
    pub differs: u64,
    /// They have not been heard of for a while.
    pub unreachable: u64,
}

/// A VIP whose tables differ.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
pub struct VipAgreement {
    /// Its name.
    pub vip: String,
    /// How many other nodes have another table than this one: no such VIP here or there counts, too.
    pub nodes: u64,
}

/// Which table a node has, if it has the VIP.
type Has<'a> = Option<(&'a str, Affinity)>;

/// One VIP on every node that is heard of.
struct Compared<'a> {
    key: Key,
    name: &'a str,
    /// What each node has: this one first.
    has: Vec<(&'a str, Has<'a>)>,
    is_moving: bool,
}

/// What is known of the fleet, held against this node's own report.
#[must_use]
pub fn compare(own: &Report, heard: &Heard, now: Instant) -> Agreement {
    let others = others(own, heard, now);
    let mut vips = Vec::new();
    let mut is_more = false;
    let is_cut = differences(own, &others, |vip| {
        if vips.len() < MOST_TOLD {
            vips.push(vip.told());
        } else {
            is_more = true;
        }
    });
    let this = NodeAgreement {
        node: own.node.clone(),
        address: None,
        state: NodeState::This,
        version: Some(own.version.clone()),
        generation: Some(own.generation),
        seconds_since_report: Some(0.0),
        error: None,
    };
    let others = others.into_iter().map(|other| other.agreement);
    Agreement {
        by: heard.by,
        error: heard.error.clone(),
        nodes: std::iter::once(this).chain(others).collect(),
        more_nodes: heard.more,
        vips,
        more_vips: is_more || is_cut,
    }
}

/// The same in numbers, as of a turn.
#[derive(Debug)]
pub(crate) struct Summary {
    by: By,
    error: Option<String>,
    /// How each other node stood, and when it was last heard.
    nodes: Vec<(NodeState, Option<Instant>)>,
    vips: Vec<VipAgreement>,
}

/// Holds the reports against each other as [`compare()`] does, and keeps the numbers.
pub(crate) fn summary(own: &Report, heard: &Heard, now: Instant) -> Summary {
    let others = others(own, heard, now);
    let mut vips = Vec::new();
    differences(own, &others, |vip| vips.push(vip.counted()));
    let nodes = others.iter();
    Summary {
        by: heard.by,
        error: heard.error.clone(),
        nodes: nodes
            .map(|other| (other.agreement.state, other.heard))
            .collect(),
        vips,
    }
}

impl Summary {
    /// What a status tells of it now: a node may have become silent since. Compares nothing.
    pub(crate) fn status(&self, now: Instant) -> AgreementStatus {
        let mut nodes = NodeCounts::default();
        for (state, heard) in &self.nodes {
            match state {
                NodeState::This => {}
                _ if is_silent(*heard, now) => nodes.unreachable += 1,
                NodeState::Agrees => nodes.agrees += 1,
                NodeState::Differs => nodes.differs += 1,
                NodeState::Unreachable => nodes.unreachable += 1,
            }
        }
        let vips = if nodes.differs > 0 {
            self.vips.clone()
        } else {
            Vec::new()
        };
        AgreementStatus {
            by: self.by,
            error: self.error.clone(),
            nodes,
            vips,
        }
    }
}

/// Whether a node that was last heard then is unreachable.
fn is_silent(heard: Option<Instant>, now: Instant) -> bool {
    heard.is_none_or(|heard| now.saturating_duration_since(heard) >= SILENT)
}

/// Another node, and what it told if that still counts.
struct Other<'a> {
    agreement: NodeAgreement,
    heard: Option<Instant>,
    report: Option<&'a Report>,
}

/// The other nodes by name, without this one, which hears itself where every node has the same list of peers.
fn others<'a>(own: &Report, heard: &'a Heard, now: Instant) -> Vec<Other<'a>> {
    let nodes = heard.nodes.iter().filter(|node| {
        let instance = node.report.as_ref().map(|report| &report.instance);
        instance != Some(&own.instance)
    });
    let nodes = nodes.map(|node| {
        let age = node.heard.map(|heard| now.saturating_duration_since(heard));
        let told = node.report.as_deref();
        let report = told.filter(|_| !is_silent(node.heard, now));
        let state = match report {
            None => NodeState::Unreachable,
            Some(report) if is_same(own, report) => NodeState::Agrees,
            Some(_) => NodeState::Differs,
        };
        let name = told.map_or(&node.called, |report| &report.node);
        Other {
            agreement: NodeAgreement {
                node: name.clone(),
                address: node.address,
                state,
                version: told.map(|report| report.version.clone()),
                generation: told.map(|report| report.generation),
                seconds_since_report: age.map(|age| age.as_secs_f64()),
                error: node.error.clone(),
            },
            heard: node.heard,
            report,
        }
    });
    let mut nodes: Vec<_> = nodes.collect();
    let order = |other: &Other<'_>| (other.agreement.node.clone(), other.agreement.address);
    nodes.sort_by_cached_key(order);
    nodes
}

/// Whether two nodes send every flow to the same backends. Reports list VIPs in the order of what clients dial.
fn is_same(own: &Report, other: &Report) -> bool {
    let decides = |vip: &VipReport| (vip.key(), vip.affinity);
    own.vips.len() == other.vips.len()
        && own.vips.iter().zip(&other.vips).all(|(own, other)| {
            decides(own) == decides(other) && own.table_digest == other.table_digest
        })
}

/// Tells the VIPs whose tables differ, in the order of what clients dial, by one walk over all reports, which is in that
/// order, too: it takes no more room for more VIPs. Answers whether there are more that only other nodes have: of these,
/// [`MOST_FOREIGN`] are told.
fn differences<'a>(
    own: &'a Report,
    others: &[Other<'a>],
    mut tell: impl FnMut(Compared<'a>),
) -> bool {
    let is_different = |other: &Other<'_>| other.agreement.state == NodeState::Differs;
    if !others.iter().any(is_different) {
        return false;
    }
    let mut own_left: &[VipReport] = &own.vips;
    let reports = others.iter().filter_map(|other| other.report);
    let mut left: Vec<(&str, &[VipReport])> = reports
        .map(|report| (report.node.as_str(), report.vips.as_slice()))
        .collect();
    let mut foreign = 0;
    let mut is_more = false;
    loop {
        let next_own = own_left.first().map(VipReport::key);
        let firsts = left.iter().filter_map(|(_, vips)| vips.first());
        let next_foreign = firsts
            .map(VipReport::key)
            .min()
            .filter(|key| next_own.is_none_or(|own| *key < own));
        let next = match next_foreign {
            Some(key) if foreign < MOST_FOREIGN => {
                foreign += 1;
                Some(key)
            }
            Some(_) => {
                is_more = true;
                next_own
            }
            None => next_own,
        };
        let Some(key) = next else {
            return is_more;
        };
        let of_own = (own.node.as_str(), take(&mut own_left, key));
        let of_others = left.iter_mut().map(|(node, vips)| (*node, take(vips, key)));
        let vips: Vec<_> = std::iter::once(of_own).chain(of_others).collect();
        if let Some(compared) = Compared::of(key, &vips) {
            tell(compared);
        }
    }
}

/// Takes a VIP out of a list in the order of what clients dial, and what is before it.
fn take<'a>(vips: &mut &'a [VipReport], key: Key) -> Option<&'a VipReport> {
    while let Some((first, rest)) = vips.split_first().filter(|(first, _)| first.key() <= key) {
        *vips = rest;
        if first.key() == key {
            return Some(first);
        }
    }
    None
}

impl<'a> Compared<'a> {
    /// What nodes have of a VIP, this one first; `None` where it is the same.
    fn of(key: Key, vips: &[(&'a str, Option<&'a VipReport>)]) -> Option<Self> {
        let has = |vip: &'a VipReport| (vip.table_digest.as_str(), vip.affinity);
        let (_, first) = vips.first()?;
        let first = first.map(has);
        if vips.iter().all(|(_, vip)| vip.map(has) == first) {
            return None;
        }
        let mut known = vips.iter().filter_map(|(_, vip)| *vip);
        let is_moving = known.clone().any(|vip| !vip.stable);
        let name = known.next()?.name.as_str();
        let has = vips.iter().map(|(node, vip)| (*node, vip.map(has)));
        Some(Self {
            key,
            name,
            has: has.collect(),
            is_moving,
        })
    }

    fn told(self) -> VipDifference {
        let (address, port, protocol) = self.key;
        // This node's table first, then in the order of the nodes.
        let mut tables: Vec<(Has<'_>, TableOf)> = Vec::new();
        for (node, has) in self.has {
            match tables.iter_mut().find(|(known, _)| *known == has) {
                Some((_, table)) => table.nodes.push(node.to_owned()),
                None => tables.push((
                    has,
                    TableOf {
                        table_digest: has.map(|(digest, _)| digest.to_owned()),
                        affinity: has.map(|(_, affinity)| affinity),
                        nodes: vec![node.to_owned()],
                    },
                )),
            }
        }
        VipDifference {
            vip: self.name.to_owned(),
            address,
            port,
            protocol,
            moving: self.is_moving,
            tables: tables.into_iter().map(|(_, table)| table).collect(),
        }
    }

    fn counted(&self) -> VipAgreement {
        let own = self.has.first().and_then(|(_, has)| *has);
        let others = self.has.iter().skip(1).filter(|(_, has)| *has != own);
        VipAgreement {
            vip: self.name.to_owned(),
            nodes: others.count() as u64,
        }
    }
}

#[cfg(test)]
mod tests;
