//! One node of all writes: whoever holds a Lease. A holder that cannot renew stops writing before anybody else may begin. Nodes that
//! announce hold one each ([`super::owners`]).
//!
//! As the clocks of two nodes need not agree, none reads the other's: a Lease is over when this node has seen it unchanged
//! for as long as it lasts.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::watch, time::timeout};

use super::said;

/// How long a Lease lasts without being renewed.
pub(super) const DURATION: Duration = Duration::from_secs(10);

/// How long after its last renewal a holder writes: less than the Lease lasts, by what one write may take.
pub(super) const WRITING: Duration = Duration::from_secs(7);

/// How often it is looked at, and renewed.
pub(super) const PERIOD: Duration = Duration::from_secs(2);

/// How long one request may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What a Lease says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Observed {
    /// Who holds it; empty where nobody does.
    pub holder: String,
    /// When it was last renewed, in its holder's time: for telling one renewal from another.
    pub renewed: Option<i64>,
    /// How long it lasts.
    pub lasts: Duration,
    /// How often it went from one to another.
    pub transitions: i32,
}

/// What is to be done with a Lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// There is none: make it.
    Create,
    /// It is free or over, or this node's from before a start or a break, which others are to see: take it.
    Take,
    /// It is this node's, without a break: renew it.
    Renew,
    /// It is another's.
    Wait,
}

/// Who writes, as one node sees it. Knows no clock: every call says what time it is.
#[derive(Clone, Debug)]
pub struct Election {
    me: String,
    seen: Option<(Observed, Instant)>,
    renewed: Option<Instant>,
}

impl Election {
    /// For a node, by its name.
    #[must_use]
    pub const fn new(me: String) -> Self {
        Self {
            me,
            seen: None,
            renewed: None,
        }
    }

    /// What is to be done where a Lease was seen to be so.
    pub fn step(&mut self, observed: Option<Observed>, now: Instant) -> Step {
        let Some(observed) = observed else {
            self.seen = None;
            return Step::Create;
        };
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != observed) {
            self.seen = Some((observed.clone(), now));
        }
        if observed.holder == self.me {
            // A process that begins, or was cut off for too long, has lost what others think is still its own.
            let is_gapless = self.renewed.is_some_and(|at| now < at + WRITING);
            return if is_gapless { Step::Renew } else { Step::Take };
        }
        self.renewed = None;
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        let is_over = now.duration_since(since) >= observed.lasts;
        if observed.holder.is_empty() || is_over {
            Step::Take
        } else {
            Step::Wait
        }
    }

    /// A request that was sent at `sent` made the Lease this node's, or renewed it.
    pub const fn renewed(&mut self, sent: Instant) {
        self.renewed = Some(sent);
    }

    /// Somebody else was faster, or it is to be taken anew.
    pub const fn lost(&mut self) {
        self.renewed = None;
    }

    /// When the request was sent that last made the Lease this node's, or renewed it; `None` where it is not.
    #[must_use]
    pub const fn renewal(&self) -> Option<Instant> {
        self.renewed
    }

    /// Until when this node may write, if at all.
    #[must_use]
    pub fn writes_until(&self) -> Option<Instant> {
        self.renewed.map(|at| at + WRITING)
    }
}

/// What a Lease is, but for who holds it.
pub(super) struct Identity {
    /// Its name.
    pub(super) name: String,
    /// What it is found by.
    pub(super) labels: BTreeMap<String, String>,
    /// What it is made for: the cluster takes it away with that.
    pub(super) owner: Option<OwnerReference>,
}

/// How this node stands with the API server and the Lease.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// Until when it may write.
    pub(super) writes_until: Option<Instant>,
    /// Whether the API server answered the last time.
    pub(super) is_connected: bool,
    /// Why not, or what it said.
    pub(super) error: Option<String>,
}

impl Standing {
    /// Whether this node may write now.
    pub(super) fn is_writer(&self) -> bool {
        self.writes_until.is_some_and(|end| Instant::now() < end)
    }
}

/// Looks at the Lease and renews it, for as long as anybody wants to know; then lets go of it.
pub(super) async fn keep(
    client: Client,
    (namespace, name, me): (String, String, String),
    standing: watch::Sender<Standing>,
) {
    let leases: Api<Lease> = Api::namespaced(client, &namespace);
    let name = Identity {
        name,
        labels: BTreeMap::new(),
        owner: None,
    };
    let mut election = Election::new(me.clone());
    let mut period = tokio::time::interval(PERIOD);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = period.tick() => {}
            () = standing.closed() => break,
        }
        let turn = timeout(PATIENCE, turn(&leases, &name, &mut election)).await;
        let error = match turn {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(said(&error)),
            Err(_) => Some(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        standing.send_replace(Standing {
            writes_until: election.writes_until(),
            is_connected: error.is_none(),
            error,
        });
    }
    if election.writes_until().is_some() {
        // Whoever is next need not wait. Where it fails, it waits.
        timeout(PATIENCE, release(&leases, &name.name, &me))
            .await
            .ok();
    }
}

/// One look, and what follows.
pub(super) async fn turn(
    leases: &Api<Lease>,
    name: &Identity,
    election: &mut Election,
) -> kube::Result<()> {
    let lease = leases.get_opt(&name.name).await?;
    let sent = Instant::now();
    let now = MicroTime(Timestamp::now());
    let held = |before: Option<&LeaseSpec>, is_taken: bool| {
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        let acquired = before.and_then(|spec| spec.acquire_time.clone());
        LeaseSpec {
            holder_identity: Some(election.me.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            renew_time: Some(now.clone()),
            acquire_time: acquired.filter(|_| !is_taken).or_else(|| Some(now.clone())),
            lease_transitions: Some(
                transitions.saturating_add(i32::from(is_taken && before.is_some())),
            ),
            ..LeaseSpec::default()
        }
    };
    let mut next = lease.clone().unwrap_or_default();
    let spec = lease.as_ref().and_then(|lease| lease.spec.as_ref());
    let (taken, kept) = (held(spec, true), held(spec, false));
    let parameters = PostParams::default();
    let made = match election.step(lease.as_ref().map(observed), sent) {
        Step::Wait => return Ok(()),
        Step::Create => {
            next.metadata.name = Some(name.name.clone());
            next.metadata.labels = Some(name.labels.clone());
            // Only now: to change the owner of what is there, some clusters want the right to delete it.
            next.metadata.owner_references = name.owner.clone().map(|owner| vec![owner]);
            next.spec = Some(taken);
            leases.create(&parameters, &next).await
        }
        step @ (Step::Take | Step::Renew) => {
            next.spec = Some(if step == Step::Take { taken } else { kept });
            let labels = next.metadata.labels.get_or_insert_default();
            labels.extend(name.labels.clone());
            // Made of the version that was seen: whoever was faster wins.
            leases.replace(&name.name, &parameters, &next).await
        }
    };
    match made {
        Ok(_) => {
            election.renewed(sent);
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 409 => {
            election.lost();
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// What a Lease says.
pub(super) fn observed(lease: &Lease) -> Observed {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.unwrap_or(0);
    Observed {
        holder: spec.holder_identity.unwrap_or_default(),
        renewed: spec.renew_time.map(|time| time.0.as_microsecond()),
        lasts: Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
        transitions: spec.lease_transitions.unwrap_or(0),
    }
}

/// Lets go of a Lease, if it is this node's.
pub(super) async fn release(leases: &Api<Lease>, name: &str, me: &str) -> kube::Result<()> {
    let Some(mut lease) = leases.get_opt(name).await? else {
        return Ok(());
    };
    let Some(spec) = lease.spec.as_mut() else {
        return Ok(());
    };
    if spec.holder_identity.as_deref() == Some(me) {
        spec.holder_identity = Some(String::new());
        leases.replace(name, &PostParams::default(), &lease).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, renewed: i64) -> Observed {
        Observed {
            holder: holder.to_owned(),
            renewed: Some(renewed),
            lasts: DURATION,
            transitions: 0,
        }
    }

    #[test]
    fn takes_what_is_free_or_was_not_renewed_while_it_looked() {
        let mut election = Election::new("b".to_owned());
        let start = Instant::now();
        assert_eq!(election.step(None, start), Step::Create);
        assert_eq!(election.step(Some(lease("", 1)), start), Step::Take);
        assert_eq!(election.step(Some(lease("a", 2)), start), Step::Wait);
        let almost = start + DURATION.saturating_sub(Duration::from_millis(1));
        assert_eq!(election.step(Some(lease("a", 2)), almost), Step::Wait);
        // Renewed: it lasts as long from then on, whatever its holder's clock says.
        assert_eq!(election.step(Some(lease("a", -5)), almost), Step::Wait);
        assert_eq!(
            election.step(Some(lease("a", -5)), start + DURATION),
            Step::Wait
        );
        assert_eq!(
            election.step(Some(lease("a", -5)), almost + DURATION),
            Step::Take
        );
    }

    #[test]
    fn stops_writing_before_anybody_else_may_begin() {
        let start = Instant::now();
        let mut election = Election::new("a".to_owned());
        assert_eq!(election.writes_until(), None);
        election.renewed(start);
        let end = election.writes_until().unwrap();
        assert!(end + PATIENCE < start + DURATION);
        assert_eq!(election.step(Some(lease("a", 1)), start), Step::Renew);
        assert_eq!(election.writes_until(), Some(end));
        // Its time was over meanwhile: others are to see that it begins anew, as after a start.
        assert_eq!(election.step(Some(lease("a", 1)), end), Step::Take);
        let mut after_a_start = Election::new("a".to_owned());
        assert_eq!(after_a_start.step(Some(lease("a", 1)), start), Step::Take);
        // Another holds it: at once no more.
        assert_eq!(election.step(Some(lease("b", 2)), start), Step::Wait);
        assert_eq!(election.writes_until(), None);
        election.renewed(start);
        election.lost();
        assert_eq!(election.writes_until(), None);
    }
}
