//! The nodes among which addresses are shared out: this node's own Lease is held, and all are looked at. They are listed and not
//! watched: a watch that stalls would let everybody else seem to be gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use k8s_openapi::{
    Resource as _,
    api::{coordination::v1::Lease, core::v1 as core},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Api, Client, api::ListParams};
use tokio::{sync::watch, time::timeout};

use super::{
    PREFIX, digest,
    lease::{Election, Identity, PATIENCE, PERIOD, observed, release, turn},
    owners::Membership,
    said,
};
use crate::announce::Owned;

/// The longest value of a label.
const LONGEST_LABEL: usize = 63;

/// Who shares addresses out.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    /// Who is there.
    pub(super) nodes: BTreeSet<String>,
    /// The same as this node sees it; `None`: nobody has looked.
    membership: Option<Membership>,
    /// Whether this node has given its share away, or is about to.
    pub(super) is_leaving: bool,
    /// Why it does not know better.
    pub(super) error: Option<String>,
}

impl Members {
    /// What falls to this node.
    pub(super) fn owned(&self, addresses: &BTreeSet<IpAddr>) -> Owned {
        let now = Instant::now();
        let membership = self.membership.iter();
        let owned = membership.flat_map(|membership| {
            let until = |address: &IpAddr| Some((*address, membership.owns(*address, now)?));
            addresses.iter().filter_map(until)
        });
        Owned {
            until: owned.collect(),
            is_given_away: self.is_leaving,
        }
    }

    /// Whether there is somebody who shares addresses out and nobody who takes one.
    pub(super) fn are_none(&self) -> bool {
        self.is_leaving && self.nodes.is_empty()
    }
}

/// How a node stands with its share.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Share {
    /// It takes one.
    Taken,
    /// It lets go of its Lease, and does not know yet whether it has.
    Offered,
    /// It has let go of its Lease.
    GivenAway,
}

/// The group of nodes that share addresses out: those with the same Lease of the writer.
fn label(group: &str) -> (String, String) {
    let value = if group.len() <= LONGEST_LABEL {
        group.to_owned()
    } else {
        digest(group)
    };
    (format!("{PREFIX}group"), value)
}

/// Whether this node is able to serve a share.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Able {
    /// It has read the cluster, and serves what is there.
    pub(super) is_able: bool,
    /// The UID of its Node, if it has one.
    pub(super) uid: Option<String>,
}

/// The owner of its Lease: without it, one of a node that is gone for good would stay.
fn node(name: &str, uid: String) -> OwnerReference {
    OwnerReference {
        api_version: core::Node::API_VERSION.to_owned(),
        kind: core::Node::KIND.to_owned(),
        name: name.to_owned(),
        uid,
        ..OwnerReference::default()
    }
}

/// Holds this node's Lease while it is `willing` to take a share, and able to serve one, and looks at all, for as long as anybody wants to
/// know; then lets go of it.
pub(super) async fn keep(
    client: Client,
    (namespace, group, me): (String, String, String),
    (mut willing, mut able): (watch::Receiver<bool>, watch::Receiver<Able>),
    members: watch::Sender<Members>,
) {
    let leases: Api<Lease> = Api::namespaced(client, &namespace);
    let (key, value) = label(&group);
    let mut name = Identity {
        name: format!("weir-node-{me}"),
        labels: BTreeMap::from([(key.clone(), value.clone())]),
        owner: None,
    };
    let all = ListParams::default().labels(&format!("{key}={value}"));
    let is_of_group = |lease: &Lease| {
        let labels = lease.metadata.labels.as_ref();
        labels.is_some_and(|labels| labels.get(&key) == Some(&value))
    };
    let mut election = Election::new(me.clone());
    let mut membership = Membership::new(me.clone());
    let mut period = tokio::time::interval(PERIOD);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut share = Share::Taken;
    loop {
        tokio::select! {
            _ = period.tick() => {}
            // Whoever is to leave does so at once. Where nobody says so any more, nobody wants to know soon.
            Ok(()) = willing.changed() => {}
            Ok(()) = able.changed() => {}
            () = members.closed() => break,
        }
        let is_willing = *willing.borrow_and_update();
        let Able { is_able, uid } = able.borrow_and_update().clone();
        name.owner = uid.map(|uid| node(&me, uid));
        let is_taking = is_willing && is_able;
        if is_taking && share != Share::Taken {
            // The others may know: it begins anew, and is silent before it touches the Lease.
            membership.lost();
            election.lost();
            share = Share::Taken;
        }
        members.send_if_modified(|told| {
            let is_other = told.is_leaving == is_willing;
            told.is_leaving = !is_willing;
            told.nodes = membership.nodes(Instant::now());
            told.membership = Some(membership.clone());
            is_other
        });
        let round = async {
            if is_taking {
                within(turn(&leases, &name, &mut election)).await?;
                match election.renewal() {
                    Some(sent) if membership.renewed(sent, Instant::now()) => {}
                    _ => {
                        election.lost();
                        membership.lost();
                    }
                }
            } else if share != Share::GivenAway {
                share = Share::Offered;
                // Also one that an earlier daemon held.
                within(release(&leases, &name.name, &me)).await?;
                election.lost();
                membership.released(Instant::now());
                share = Share::GivenAway;
            }
            let sent = Instant::now();
            let listed = within(leases.list(&all)).await?;
            let of_group = listed.items.iter().filter(|lease| is_of_group(lease));
            membership.looked(of_group.map(observed), sent, Instant::now());
            Ok(())
        };
        let error = tokio::select! {
            done = round => done.err(),
            // Whoever is to leave does not wait for slow answers. What was asked for may be done all the same, and is looked at again.
            Ok(()) = willing.changed() => {
                willing.mark_changed();
                continue;
            }
        };
        let now = Instant::now();
        members.send_replace(Members {
            nodes: membership.nodes(now),
            membership: Some(membership.clone()),
            is_leaving: !is_willing,
            error,
        });
    }
    if election.renewal().is_some() {
        // Others need not wait for its end. Where it fails, they do.
        timeout(PATIENCE, release(&leases, &name.name, &me))
            .await
            .ok();
    }
}

async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match timeout(PATIENCE, request).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(said(&error)),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}
