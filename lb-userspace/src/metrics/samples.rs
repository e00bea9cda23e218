//! Where the values of the metrics are in a status.

use std::{collections::BTreeMap, net::IpAddr};

use lb_common::{limit::Judgement, tables::Counters};

use super::table::Sample;
use crate::api::{
    AccessCount, AnnounceStatus, AnnouncementCount, AttachMode, BackendStatus, By, FleetStatus,
    HealthStatus, InterfaceStatus, KubernetesStatus, MapStatus, NodeCounts, NodeState, PinsStatus,
    ProgramStatus, Status, VipStatus,
};

/// A count, as Prometheus knows numbers.
#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus has no other numbers"
)]
pub(super) const fn whole(count: u64) -> f64 {
    count as f64
}

pub(super) fn vips(status: &Status, value: fn(&VipStatus) -> u64) -> Vec<Sample> {
    let vips = status.vips.iter();
    vips.map(|vip| (vec![vip.name.clone()], whole(value(vip))))
        .collect()
}

pub(super) fn announced(status: &Status, value: fn(&AnnounceStatus) -> bool) -> Vec<Sample> {
    let vips = status.vips.iter().filter_map(|vip| {
        let announce = vip.announce.as_ref()?;
        let labels = vec![vip.name.clone()];
        Some((labels, f64::from(u8::from(value(announce)))))
    });
    vips.collect()
}

pub(super) fn announcements(status: &Status) -> Vec<Sample> {
    let counts = status.announcement_counts.iter();
    let sample = |count: &AnnouncementCount| {
        let labels = vec![count.op.clone(), count.result.clone()];
        (labels, whole(count.count))
    };
    counts.map(sample).collect()
}

pub(super) fn backends(status: &Status, value: fn(&BackendStatus) -> u64) -> Vec<Sample> {
    let of_vip = |vip: &VipStatus| -> Vec<Sample> {
        let backends = vip.backends.iter().map(|backend| {
            let labels = vec![vip.name.clone(), backend.address.to_string()];
            (labels, whole(value(backend)))
        });
        backends.collect()
    };
    status.vips.iter().flat_map(of_vip).collect()
}

pub(super) fn healthy(status: &Status) -> Vec<Sample> {
    let of_vip = |vip: &VipStatus| -> Vec<Sample> {
        let known = vip.backends.iter().filter_map(|backend| {
            let labels = vec![vip.name.clone(), backend.address.to_string()];
            Some((labels, f64::from(u8::from(backend.healthy?))))
        });
        known.collect()
    };
    status.vips.iter().flat_map(of_vip).collect()
}

pub(super) fn attached(status: &Status) -> Vec<Sample> {
    let of_interface = |interface: &InterfaceStatus| {
        let mode = interface.mode.map_or("none", AttachMode::as_str);
        let labels = vec![interface.name.clone(), mode.to_owned()];
        (labels, f64::from(u8::from(interface.mode.is_some())))
    };
    status.interfaces.iter().map(of_interface).collect()
}

pub(super) fn checks(status: &Status) -> Vec<Sample> {
    let of_backend = |(vip, backend, health): Checked<'_>| {
        let results = [
            ("pass", health.passed),
            ("fail", health.failed + health.timed_out),
            ("skipped", health.not_asked),
        ];
        results.map(|(result, count)| {
            let labels = vec![vip.to_owned(), backend.to_string(), result.to_owned()];
            (labels, whole(count))
        })
    };
    checked(status).flat_map(of_backend).collect()
}

pub(super) fn flaps(status: &Status) -> Vec<Sample> {
    let of_backend = |(vip, backend, health): Checked<'_>| {
        let labels = vec![vip.to_owned(), backend.to_string()];
        (labels, whole(health.flaps))
    };
    checked(status).map(of_backend).collect()
}

/// A backend that is checked: its VIP's name, its address, and what came of the checks.
type Checked<'a> = (&'a str, IpAddr, &'a HealthStatus);

fn checked(status: &Status) -> impl Iterator<Item = Checked<'_>> {
    status.vips.iter().flat_map(|vip| {
        let backends = vip.backends.iter();
        backends.filter_map(|b| Some((vip.name.as_str(), b.address, b.health.as_ref()?)))
    })
}

pub(super) fn maps(status: &Status, value: fn(&MapStatus) -> u64) -> Vec<Sample> {
    let maps = status.maps.iter();
    maps.map(|map| (vec![map.map.clone()], whole(value(map))))
        .collect()
}

pub(super) fn pins(status: &Status, value: fn(&PinsStatus) -> u64) -> Vec<Sample> {
    let pins = status.pins.iter();
    pins.map(|pins| (vec![pins.kind.clone()], whole(value(pins))))
        .collect()
}

pub(super) fn access(status: &Status) -> Vec<Sample> {
    let counts = status.access.counts.iter();
    let sample = |count: &AccessCount| {
        let labels = [&count.vip, &count.list, &count.result];
        (labels.map(Clone::clone).to_vec(), whole(count.packets))
    };
    counts.map(sample).collect()
}

pub(super) fn slots(status: &Status) -> Vec<Sample> {
    let of_vip = |vip: &VipStatus| {
        let counts = [
            ("stable", vip.slots.stable),
            ("holding", vip.slots.holding),
            ("moving", vip.slots.moving),
            ("settling", vip.slots.settling),
        ];
        counts.map(|(state, count)| {
            let labels = vec![vip.name.clone(), state.to_owned()];
            (labels, f64::from(count))
        })
    };
    status.vips.iter().flat_map(of_vip).collect()
}

pub(super) fn limits(status: &Status) -> Vec<Sample> {
    let of_vip = |vip: &VipStatus| -> Vec<Sample> {
        let limits = vip.limits.iter().flat_map(|limit| {
            let counts = [
                (Judgement::Allowed, limit.allowed),
                (Judgement::Dropped, limit.dropped),
                (Judgement::Observed, limit.observed),
            ];
            counts.map(|(judgement, count)| {
                let result = judgement.as_str().to_owned();
                let labels = vec![vip.name.clone(), limit.limit.clone(), result];
                (labels, whole(count))
            })
        });
        limits.collect()
    };
    status.vips.iter().flat_map(of_vip).collect()
}

pub(super) fn fleet(status: &Status, value: fn(&FleetStatus) -> u64) -> Vec<Sample> {
    let fleet = status.fleet.iter();
    fleet.map(|fleet| (vec![], whole(value(fleet)))).collect()
}

pub(super) fn kubernetes(status: &Status, value: fn(&KubernetesStatus) -> bool) -> Vec<Sample> {
    let kubernetes = status.kubernetes.iter();
    kubernetes
        .map(|status| (vec![], whole(u64::from(value(status)))))
        .collect()
}

pub(super) fn kubernetes_objects(status: &Status) -> Vec<Sample> {
    let objects = status.kubernetes.iter().flat_map(|status| &status.objects);
    objects
        .map(|count| (vec![count.kind.clone()], whole(count.objects)))
        .collect()
}

pub(super) fn fleet_requests(status: &Status) -> Vec<Sample> {
    let of = |fleet: &FleetStatus| -> Vec<Sample> {
        let failures = fleet.failures.iter();
        let failures = failures.map(|f| (vec![f.class.clone()], whole(f.requests)));
        let answered = (vec!["answered".to_owned()], whole(fleet.answers));
        std::iter::once(answered).chain(failures).collect()
    };
    status.fleet.iter().flat_map(of).collect()
}

pub(super) fn fleet_shares(status: &Status) -> Vec<Sample> {
    let shares = status.fleet.iter().flat_map(|fleet| &fleet.shares);
    let shares = shares.filter_map(|share| {
        let (vip, limit) = share.limit.rsplit_once('/')?;
        let labels = [vip, limit, &share.origin].map(str::to_owned);
        // No packet goes through by a fraction.
        Some((labels.into(), share.per_second.floor()))
    });
    shares.collect()
}

pub(super) fn fleet_nodes(status: &Status) -> Vec<Sample> {
    let nodes = status.agreement.iter().flat_map(|agreement| {
        let NodeCounts {
            agrees,
            differs,
            unreachable,
        } = agreement.nodes;
        [
            (NodeState::Agrees, agrees),
            (NodeState::Differs, differs),
            (NodeState::Unreachable, unreachable),
        ]
    });
    nodes
        .map(|(state, nodes)| (vec![state.as_str().to_owned()], whole(nodes)))
        .collect()
}

/// Of this node's VIPs only: others' are for them to tell.
pub(super) fn vip_nodes_differing(status: &Status) -> Vec<Sample> {
    let Some(agreement) = &status.agreement else {
        return Vec::new();
    };
    // A name may stand for two: a VIP here, and another one elsewhere.
    let mut differing = BTreeMap::new();
    for vip in &agreement.vips {
        let nodes: &mut u64 = differing.entry(&vip.vip).or_default();
        *nodes = vip.nodes.max(*nodes);
    }
    let vips = status.vips.iter().map(|vip| {
        let nodes = differing.get(&vip.name).copied().unwrap_or_default();
        (vec![vip.name.clone()], whole(nodes))
    });
    vips.collect()
}

pub(super) fn agreement(status: &Status) -> Vec<Sample> {
    let by_redis = status.agreement.iter().filter(|told| told.by == By::Redis);
    by_redis
        .map(|told| (vec![], whole(u64::from(told.error.is_none()))))
        .collect()
}

pub(super) fn reasons(status: &Status) -> Vec<Sample> {
    let reasons = status.reasons.iter().map(|reason| {
        let labels = vec![reason.verdict.clone(), reason.reason.clone()];
        (labels, whole(reason.packets))
    });
    reasons.collect()
}

pub(super) fn digests(status: &Status) -> Vec<Sample> {
    let vips = status.vips.iter();
    vips.map(|vip| (vec![vip.name.clone(), vip.table_digest.clone()], 1.0))
        .collect()
}

/// What was forwarded to each backend, those that are leaving included. One that came back under another id is known
/// under both for a while.
pub(super) fn counted(status: &Status, value: fn(&Counters) -> u64) -> Vec<Sample> {
    let of_vip = |vip: &VipStatus| -> Vec<Sample> {
        let backends = vip.backends.iter().map(|backend| {
            let count = Counters {
                packets: backend.packets,
                bytes: backend.bytes,
                new_connections: backend.new_connections,
                reserved: 0,
            };
            (backend.address, value(&count))
        });
        let leaving = vip.leaving.iter().map(|leaving| {
            let count = Counters {
                packets: leaving.packets,
                bytes: leaving.bytes,
                new_connections: leaving.new_connections,
                reserved: 0,
            };
            (leaving.address, value(&count))
        });
        let mut sums: BTreeMap<IpAddr, u64> = BTreeMap::new();
        for (address, count) in backends.chain(leaving) {
            *sums.entry(address).or_default() += count;
        }
        let sums = sums.into_iter().map(|(address, sum)| {
            let labels = vec![vip.name.clone(), address.to_string()];
            (labels, whole(sum))
        });
        sums.collect()
    };
    status.vips.iter().flat_map(of_vip).collect()
}

pub(super) fn drops(status: &Status) -> Vec<Sample> {
    let of_vip = |vip: &VipStatus| -> Vec<Sample> {
        let drops = vip.dropped.iter().map(|drop| {
            let labels = vec![vip.name.clone(), drop.reason.clone()];
            (labels, whole(drop.packets))
        });
        drops.collect()
    };
    status.vips.iter().flat_map(of_vip).collect()
}

pub(super) fn last_durations(status: &Status) -> Vec<Sample> {
    let seconds = |(vip, backend, health): Checked<'_>| {
        let labels = vec![vip.to_owned(), backend.to_string()];
        Some((labels, health.last_seconds?))
    };
    checked(status).filter_map(seconds).collect()
}

pub(super) fn build(status: &Status) -> Vec<Sample> {
    let labels = [&status.version, &status.commit];
    vec![(labels.map(Clone::clone).to_vec(), 1.0)]
}

pub(super) fn runs(status: &Status, value: fn(&ProgramStatus) -> f64) -> Vec<Sample> {
    let programs = status.programs.iter();
    programs
        .map(|program| (vec![program.program.clone()], value(program)))
        .collect()
}
