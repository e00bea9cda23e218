//! Which addresses this node announces: what is known of backends, program and node, handed to the rules
//! ([`crate::announce::decide`]), and what they say handed on to who tells the network.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::Reconciler;
use crate::{
    announce::{
        Announcement, Because, Op, Publisher, TERM,
        decide::{Claim, Decider, Decision, Node, Reason},
    },
    api::{Actor, AnnounceStatus, AnnouncementCount, AnnouncementStatus, Changed, Refusal, What},
    config::{self, Announce},
    dataplane::DataPlane,
    health::{Check, Snapshot, Verdict, usable},
};

/// How soon verdicts of an earlier daemon are looked at again that no check of this one has confirmed.
const LOOK: Duration = Duration::from_millis(200);

/// What is decided, and who tells the network.
pub(super) struct Announcements {
    routes: Publisher,
    decider: Decider,
    decision: Decision,
    /// Whether the daemon is about to end.
    is_ending: bool,
    /// When it ends then: at the earliest, and at the latest.
    ends: Option<(Instant, Instant)>,
    /// When something changes by time alone.
    pub(super) wake: Option<Instant>,
}

impl Default for Announcements {
    fn default() -> Self {
        Self {
            routes: Publisher::idle(),
            decider: Decider::default(),
            decision: Decision::default(),
            is_ending: false,
            ends: None,
            wake: None,
        }
    }
}

impl Announcements {
    /// Waits until the network has been told something, or could not be.
    pub(super) async fn changed(&mut self) {
        self.routes.changed().await;
    }

    /// Addresses that are not to be found here now, whoever else wants them to be. Those of which nothing is known yet stay.
    pub(super) fn withheld(&self) -> BTreeSet<IpAddr> {
        let decided = self.decision.addresses.iter();
        let withheld = decided
            .filter(|(_, reason)| !reason.is_announced() && !matches!(reason, Reason::Unknown));
        withheld.map(|(address, _)| *address).collect()
    }

    /// Gives up who tells the network.
    pub(super) fn into_routes(self) -> Publisher {
        self.routes
    }
}

impl<D: DataPlane> Reconciler<D> {
    /// Has routes published by `routes`, and goes on from what an earlier daemon has published.
    pub(crate) fn announce_by(&mut self, routes: Publisher) {
        self.announcements.decider = Decider::adopt(&routes.report().present);
        self.announcements.routes = routes;
    }

    /// Decides which addresses are announced, and has the network told.
    pub(super) fn announce(&mut self) {
        let now = Instant::now();
        let settings = &self.desired.config.announce;
        let is_ending = self.announcements.is_ending;
        let node = Node {
            is_attached: self.attachments.is_any(),
            is_drained: self.desired.is_node_drained()
                || (is_ending && settings.withdraw_delay.is_some()),
        };
        // Without a daemon nobody holds its Lease, so the others take its share even where it withdraws nothing else.
        let is_able = node.is_attached && self.segments.follows_owners();
        let is_willing = is_able && !node.is_drained && !is_ending;
        self.cluster.is_willing(is_willing);
        let claims = claims(&self.desired.config.vips, &self.checked.borrow());
        let hold_down = settings.hold_down;
        let decider = &mut self.announcements.decider;
        let decision = decider.decide(node, claims, hold_down, now);
        // A verdict that is confirmed is no other verdict, so nobody is woken by it.
        let is_unknown = decision.addresses.values().any(|r| *r == Reason::Unknown);
        let look = is_unknown.then(|| now + LOOK);
        self.announcements.wake = [decision.wake, look].into_iter().flatten().min();
        let withheld = self.announcements.withheld();
        let before = std::mem::replace(&mut self.announcements.decision, decision);
        if withheld != self.announcements.withheld() {
            // The data plane answers for other addresses from the next turn on.
            self.wake = Some(now);
        }
        let routes = self.announcements.decision.announced();
        let routes = routes.filter(|address| !self.is_l2(*address));
        self.announcements.routes.want(routes.collect());
        self.tell_decision(&before);
    }

    /// Whether an address is announced on segments.
    fn is_l2(&self, address: IpAddr) -> bool {
        let mut vips = self.desired.config.vips.iter();
        vips.any(|vip| vip.address == address && vip.announce == Announce::L2)
    }

    fn tell_decision(&self, before: &Decision) {
        let was = |address: &IpAddr| {
            let reason = before.addresses.get(address);
            reason.is_some_and(|reason| reason.is_announced())
        };
        let mut all: BTreeMap<IpAddr, Option<Reason>> = before
            .addresses
            .keys()
            .map(|address| (*address, None))
            .collect();
        let now = self.announcements.decision.addresses.iter();
        all.extend(now.map(|(address, reason)| (*address, Some(*reason))));
        for (address, reason) in all {
            let announced = reason.is_some_and(Reason::is_announced);
            // What is found on segments is told of with what else keeps it off.
            if announced == was(&address) || self.is_l2(address) {
                continue;
            }
            // One that no VIP has any more is gone from the configuration.
            let reason = reason.map_or("not_configured", Reason::as_str);
            if announced {
                tracing::info!(%address, reason, "address announced");
            } else {
                tracing::warn!(%address, reason, "address withdrawn");
            }
            self.events.tell(What::Announcement {
                address,
                announced,
                reason: reason.to_owned(),
            });
        }
    }

    /// Gets ready for the daemon's end: withdraws everything, if that is how it is to end, and gives the share of the Services'
    /// addresses away. Returns how long it is to go on at most, if at all; [`Self::run`] ends before, once others have the share.
    pub(crate) fn leave(&mut self) -> Option<Duration> {
        self.announcements.is_ending = true;
        self.announce();
        let withdraw_delay = self.desired.config.announce.withdraw_delay;
        let term = self.segments.is_owner().then_some(TERM);
        let most = withdraw_delay.max(term)?;
        let now = Instant::now();
        let least = now + withdraw_delay.unwrap_or_default();
        self.announcements.ends = Some((least, now + most));
        Some(most)
    }

    /// When a daemon that is about to end has nothing left to wait for, as it looks now.
    pub(super) fn ends(&self) -> Option<Instant> {
        let (least, most) = self.announcements.ends?;
        Some(if self.segments.is_owner() {
            most
        } else {
            least
        })
    }

    /// Withdraws every address until [`Self::undrain_node`], or lets this node announce again.
    pub(super) fn drain_node(&mut self, is_drained: bool, by: Actor) -> Result<Changed, Refusal> {
        if self.desired.is_node_drained() == is_drained {
            return Ok(Changed {
                changed: false,
                generation: self.generation,
            });
        }
        let next = self.desired.with_node_drained(is_drained);
        // What cannot be kept is not done, as with backends.
        let state = super::change::state(self.generation + 1, &next, self.fleet.nodes);
        let failed = |error: anyhow::Error| Refusal::Failed(format!("{error:#}"));
        self.state.save(&state).map_err(failed)?;
        self.desired = next;
        self.generation = state.generation;
        self.unsaved = None;
        let generation = self.generation;
        tracing::info!(cause = %by, generation, drained = is_drained, "node changed by command");
        let by = by.to_string();
        self.events.tell(if is_drained {
            What::NodeDrained { generation, by }
        } else {
            What::NodeUndrained { generation, by }
        });
        self.announce();
        Ok(Changed {
            changed: true,
            generation,
        })
    }

    /// How a VIP is announced, if it is to be.
    pub(super) fn announce_status(&self, vip: &config::Vip) -> Option<AnnounceStatus> {
        let reason = self.announcements.decision.addresses.get(&vip.address)?;
        let (announced, wanted, reason) = match vip.announce {
            Announce::None => return None,
            Announce::L2 => {
                let stands = self.segments.get(vip.address)?;
                let reason = match stands.because {
                    Because::Withheld => reason.as_str(),
                    _ if stands.is_on => reason.as_str(),
                    because => because.as_str(),
                };
                (stands.is_on, stands.is_on, reason)
            }
            Announce::Route => {
                let report = self.announcements.routes.report();
                let announced = report.present.contains(&vip.address);
                (announced, reason.is_announced(), reason.as_str())
            }
        };
        Some(AnnounceStatus {
            by: vip.announce.as_str().to_owned(),
            announced,
            wanted,
            reason: reason.to_owned(),
            min_healthy: vip.min_healthy,
        })
    }

    /// Every address that is announced, now or at other times, whatever the way.
    pub(super) fn announced(&self) -> Vec<AnnouncementStatus> {
        let report = self.announcements.routes.report();
        let mut routes: BTreeMap<IpAddr, Announcement> = BTreeMap::new();
        let vips = self.desired.config.vips.iter();
        for vip in vips.filter(|vip| vip.announce == Announce::Route) {
            let stands = routes.entry(vip.address).or_insert_with(|| Announcement {
                by: vip.announce,
                is_on: report.present.contains(&vip.address),
                because: Because::Health,
                vips: Vec::new(),
            });
            stands.vips.push(vip.name.clone());
        }
        let routes = routes.iter();
        let routes = routes.map(|(address, stands)| AnnouncementStatus::new(*address, stands));
        self.segments.status().into_iter().chain(routes).collect()
    }

    /// How often the network was told what.
    pub(super) fn announcement_counts(&self) -> Vec<AnnouncementCount> {
        let report = self.announcements.routes.report();
        let count = |op: Op| {
            let [done, failed] = report.counts.get(&op).copied().unwrap_or_default();
            [("ok", done), ("failed", failed)].map(|(result, count)| AnnouncementCount {
                op: op.as_str().to_owned(),
                result: result.to_owned(),
                count,
            })
        };
        Op::ALL.into_iter().flat_map(count).collect()
    }

    /// Why the network is not told what it should be, in sentences.
    pub(super) fn announce_problems(&self) -> Vec<String> {
        let report = self.announcements.routes.report();
        let table = self.desired.config.announce.table;
        let refused = report.refused.iter();
        let refused = refused.map(|(address, error)| {
            format!("{address}: its route in table {table} is not as it should be: {error}; tried again every second")
        });
        let failure = report.failure.iter();
        let failure = failure.map(|error| {
            format!(
                "routes of VIPs in table {table} cannot be kept: {error}; tried again every second"
            )
        });
        refused.chain(failure).collect()
    }
}

/// What the VIPs that are announced say of their addresses.
fn claims(vips: &[config::Vip], health: &Snapshot) -> Vec<Claim> {
    // What an earlier daemon knew is no ground for coming back: it does not tell backends that passed from backends that
    // were used because all had failed.
    let verdict = |check: &Check| match health.states.get(check) {
        None => Verdict::Unknown,
        Some(state) if state.verdict == Verdict::Healthy && state.record.read().passed == 0 => {
            Verdict::Unknown
        }
        Some(state) => state.verdict,
    };
    let announced = vips.iter().filter(|vip| vip.announce != Announce::None);
    announced
        .map(|vip| {
            let usable = usable(vip, verdict);
            Claim {
                address: vip.address,
                passing: usable.passing,
                unknown: usable.unknown,
                min_healthy: vip.min_healthy.into(),
            }
        })
        .collect()
}
