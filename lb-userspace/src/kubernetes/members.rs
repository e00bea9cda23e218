//! The nodes among which addresses are shared out: this node's own Lease is held, and all are looked at. They are listed and not
//! watched: a watch that stalls would let everybody else seem to be gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, api::ListParams};
use tokio::{sync::watch, time::timeout};

use super::{
    PREFIX, digest,
    lease::{Election, Name, PATIENCE, PERIOD, observed, release, turn},
    owners::{Membership, owner},
    said,
};
use crate::announce::Owned;

/// The longest value of a label.
const LONGEST_LABEL: usize = 63;

/// Who shares addresses out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Members {
    me: String,
    /// Who is there.
    pub(super) nodes: BTreeSet<String>,
    /// Until when this node owns what falls to it.
    pub(super) until: Option<Instant>,
    /// Why it does not know better.
    pub(super) error: Option<String>,
}

impl Members {
    /// What falls to this node.
    pub(super) fn owned(&self, addresses: &BTreeSet<IpAddr>) -> Owned {
        let is_mine = |address: &&IpAddr| {
            let nodes = self.nodes.iter().map(String::as_str);
            owner(nodes, **address) == Some(self.me.as_str())
        };
        Owned {
            addresses: addresses.iter().filter(is_mine).copied().collect(),
            until: self.until,
        }
    }
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

/// Holds this node's Lease and looks at all, for as long as anybody wants to know; then lets go of it.
pub(super) async fn keep(
    client: Client,
    (namespace, group, me): (String, String, String),
    members: watch::Sender<Members>,
) {
    let leases: Api<Lease> = Api::namespaced(client, &namespace);
    let (key, value) = label(&group);
    let name = Name {
        name: format!("weir-node-{me}"),
        labels: BTreeMap::from([(key.clone(), value.clone())]),
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
    loop {
        tokio::select! {
            _ = period.tick() => {}
            () = members.closed() => break,
        }
        let round = async {
            within(turn(&leases, &name, &mut election)).await?;
            match election.renewal() {
                Some(sent) => membership.renewed(sent, Instant::now()),
                None => membership.lost(),
            }
            let sent = Instant::now();
            let listed = within(leases.list(&all)).await?;
            let of_group = listed.items.iter().filter(|lease| is_of_group(lease));
            membership.looked(of_group.map(observed), sent, Instant::now());
            Ok(())
        };
        let error = round.await.err();
        members.send_replace(Members {
            me: me.clone(),
            nodes: membership.nodes(),
            until: membership.term(Instant::now()),
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
