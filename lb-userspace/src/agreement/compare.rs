//! Holds the reports of other nodes against this node's own. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{By, Heard, Report, SILENT, VipReport};
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
    /// VIPs whose tables are not the same on all nodes that are heard of, in the order of what clients dial.
    pub vips: Vec<VipDifference>,
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
    /// This node's VIPs, and others that only other nodes have, as far as nodes differ in them.
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

/// What clients dial: by it the VIPs of several nodes are the same one.
type Key = (IpAddr, u16, Protocol);

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
    let vips = differences(own, &others);
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
        vips: vips.into_iter().map(Compared::told).collect(),
    }
}

/// The same in numbers.
#[must_use]
pub fn summary(own: &Report, heard: &Heard, now: Instant) -> AgreementStatus {
    let others = others(own, heard, now);
    let mut nodes = NodeCounts::default();
    for other in &others {
        match other.agreement.state {
            NodeState::This => {}
            NodeState::Agrees => nodes.agrees += 1,
            NodeState::Differs => nodes.differs += 1,
            NodeState::Unreachable => nodes.unreachable += 1,
        }
    }
    let vips = differences(own, &others);
    AgreementStatus {
        by: heard.by,
        error: heard.error.clone(),
        nodes,
        vips: vips.iter().map(Compared::counted).collect(),
    }
}

/// Another node, and what it told if that still counts.
struct Other<'a> {
    agreement: NodeAgreement,
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
        let report = told.filter(|_| age.is_some_and(|age| age < SILENT));
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
    let decides = |vip: &VipReport| (key(vip), vip.affinity);
    own.vips.len() == other.vips.len()
        && own.vips.iter().zip(&other.vips).all(|(own, other)| {
            decides(own) == decides(other) && own.table_digest == other.table_digest
        })
}

const fn key(vip: &VipReport) -> Key {
    (vip.address, vip.port, vip.protocol)
}

fn differences<'a>(own: &'a Report, others: &[Other<'a>]) -> Vec<Compared<'a>> {
    let is_different = |other: &Other<'_>| other.agreement.state == NodeState::Differs;
    if !others.iter().any(is_different) {
        return Vec::new();
    }
    let reports = std::iter::once(own).chain(others.iter().filter_map(|other| other.report));
    let by_node: Vec<(&str, BTreeMap<Key, &VipReport>)> = reports
        .map(|report| {
            let vips = report.vips.iter().map(|vip| (key(vip), vip));
            (report.node.as_str(), vips.collect())
        })
        .collect();
    let keys: BTreeSet<Key> = by_node
        .iter()
        .flat_map(|(_, vips)| vips.keys().copied())
        .collect();
    let compared = keys.into_iter().filter_map(|key| {
        let vips = by_node.iter().filter_map(|(_, vips)| vips.get(&key));
        let name = vips.clone().map(|vip| vip.name.as_str()).next()?;
        let is_moving = vips.clone().any(|vip| !vip.stable);
        let has = |vip: &&'a VipReport| (vip.table_digest.as_str(), vip.affinity);
        let has = by_node
            .iter()
            .map(|(node, vips)| (*node, vips.get(&key).map(has)));
        let has: Vec<_> = has.collect();
        let (_, first) = has.first()?;
        let is_one = has.iter().all(|(_, other)| other == first);
        (!is_one).then_some(Compared {
            key,
            name,
            has,
            is_moving,
        })
    });
    compared.collect()
}

impl Compared<'_> {
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
