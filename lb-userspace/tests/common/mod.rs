//! A daemon's task that owns no data plane, for tests of what talks to it.

use lb_common::{reason::Reason, tables::Drops};
use lb_userspace::{
    agreement::Report,
    announce::Because,
    api::{
        AccessCount, AccessStatus, AgreementStatus, AnnounceStatus, AnnouncementCount,
        AnnouncementStatus, AttachMode, BackendStatus, Base, BlockList, By, Changed, Command,
        ConfigStatus, Detached, DropStatus, FailureCount, FleetStatus, Handle, HealthState,
        HealthStatus, InterfaceState, InterfaceStatus, KubernetesStatus, LimitStatus, ListStatus,
        MapStatus, NodeCounts, ObjectCount, ObservedStatus, PinsStatus, ProgramStatus,
        ReasonStatus, Refusal, ShareStatus, SlotsStatus, Status, VipAgreement, VipStatus,
    },
    config::{ForwardMode, Protocol, TableAlgorithm},
    dataplane::ReasonCount,
};

fn fleet() -> FleetStatus {
    FleetStatus {
        fleet: "edge".to_owned(),
        connected: true,
        error: None,
        seconds_since_answer: Some(0.05),
        round_trip_seconds: Some(0.001),
        live_nodes: 3,
        assumed_nodes: 3,
        answers: 7,
        failures: vec![FailureCount {
            class: "timeout".to_owned(),
            requests: 1,
        }],
        shares: vec![ShareStatus {
            limit: "web/packets".to_owned(),
            per_second: 333.0,
            burst: 34,
            origin: "lease".to_owned(),
        }],
    }
}

/// As of a node to which one of two others differs.
fn agreement() -> AgreementStatus {
    AgreementStatus {
        by: By::Redis,
        error: None,
        nodes: NodeCounts {
            agrees: 1,
            differs: 1,
            unreachable: 0,
        },
        vips: vec![VipAgreement {
            vip: "web".to_owned(),
            nodes: 1,
        }],
    }
}

/// What the node of [`status`] tells others.
pub(crate) fn report() -> Report {
    Report {
        node: "lb-1".to_owned(),
        instance: "0123456789abcdef".to_owned(),
        version: "0.1.0".to_owned(),
        generation: 3,
        vips: Vec::new(),
    }
}

fn announce() -> AnnounceStatus {
    AnnounceStatus {
        by: "route".to_owned(),
        announced: true,
        wanted: true,
        reason: "healthy".to_owned(),
        min_healthy: 1,
    }
}

fn limit() -> LimitStatus {
    LimitStatus {
        limit: "packets_per_source".to_owned(),
        per_second: 500.0,
        burst: 50,
        action: "drop".to_owned(),
        allowed: 1000,
        dropped: 20,
        observed: 0,
    }
}

/// A backend of a sample VIP.
fn backend(id: u16, address: &str, resolved: bool) -> BackendStatus {
    BackendStatus {
        id,
        address: address.parse().unwrap(),
        weight: 100,
        configured_weight: 100,
        drained: false,
        forward: ForwardMode::L2,
        slots: 32768,
        healthy: Some(resolved),
        health: Some(health(resolved)),
        pins: 0,
        empty: None,
        packets_per_second: None,
        drain_seconds_left: None,
        resolved,
        mtu: 1500,
        mac: resolved.then(|| format!("02:00:00:00:00:{id:02x}")),
        packets: 1_234_567_890 + u64::from(id),
        bytes: 987_654_321_000,
        new_connections: 17,
    }
}

fn announcements() -> Vec<AnnouncementStatus> {
    vec![AnnouncementStatus {
        address: "203.0.113.10".parse().unwrap(),
        by: "l2".to_owned(),
        on: true,
        because: Because::Start,
        vips: vec!["web".to_owned()],
    }]
}

/// A status with two VIPs; the second backend of `web` is not resolved.
pub(crate) fn status() -> Status {
    let vip = |id, name: &str, address: &str, protocol, backends| VipStatus {
        id,
        name: name.to_owned(),
        address: address.parse().unwrap(),
        port: 443,
        protocol,
        table: TableAlgorithm::Maglev,
        table_digest: format!("0badcaf{id}"),
        packets: 2_469_135_780,
        bytes: 1_975_308_642_000,
        new_connections: 34,
        dropped: DropStatus::all(&Drops {
            packets: std::array::from_fn(|index| index as u64),
        }),
        slots: SlotsStatus {
            stable: 65_000,
            moving: 536,
            ..SlotsStatus::default()
        },
        slot_moves: 536,
        seconds_left: Some(12.5),
        pins: 7,
        fails_open: false,
        announce: (id == 0).then(announce),
        limits: vec![limit()],
        backends,
        leaving: Vec::new(),
    };
    Status {
        ready: true,
        node: "lb-1".to_owned(),
        version: "0.1.0".to_owned(),
        commit: "0123456789ab".to_owned(),
        generation: 3,
        config: ConfigStatus {
            file: "/etc/weir/weir.toml".into(),
            applied: "/etc/weir/weir.toml".into(),
            by: "start".to_owned(),
            time: "2026-11-23T21:14:12Z".to_owned(),
            refused: None,
        },
        fleet: Some(fleet()),
        agreement: Some(agreement()),
        observed: ObservedStatus {
            active: true,
            watchers: 1,
            captured: 1_000,
            skipped: 23,
        },
        kubernetes: Some(kubernetes()),
        drained: false,
        announcements: announcements(),
        announcement_counts: vec![AnnouncementCount {
            op: "announce".to_owned(),
            result: "ok".to_owned(),
            count: 2,
        }],
        overrides: Vec::new(),
        interfaces: vec![InterfaceStatus {
            name: "eth0".to_owned(),
            state: InterfaceState::Attached,
            ifindex: Some(2),
            mode: Some(AttachMode::Generic),
            foreign: None,
        }],
        vips: vec![
            vip(
                0,
                "web",
                "203.0.113.10",
                Protocol::Tcp,
                vec![
                    backend(1, "10.0.0.11", true),
                    backend(2, "10.0.0.12", false),
                ],
            ),
            vip(
                1,
                "web.v6",
                "2001:db8::10",
                Protocol::Udp,
                vec![backend(3, "2001:db8:1111:2222:3333:4444:5555:6666", true)],
            ),
        ],
        reasons: reasons(),
        maps: vec![MapStatus {
            map: "pins_old".to_owned(),
            entries: 7,
            max_entries: 262_144,
        }],
        access: access(),
        programs: programs(),
        pins: pins(),
        marks_kept: true,
        problems: vec!["backend 10.0.0.12 of VIP web has no next hop yet".to_owned()],
    }
}

fn programs() -> Vec<ProgramStatus> {
    vec![ProgramStatus {
        program: "weir_xdp".to_owned(),
        runs: 1_000_000,
        seconds: 0.0625,
    }]
}

/// A cluster of which each field tells another.
fn kubernetes() -> KubernetesStatus {
    KubernetesStatus {
        class: "weir.dev/xdp".to_owned(),
        node: "lb-1".to_owned(),
        connected: true,
        synced: true,
        writer: false,
        announcers: vec!["lb-1".to_owned()],
        objects: vec![ObjectCount {
            kind: "services".to_owned(),
            objects: 21,
        }],
        problems: Vec::new(),
    }
}

/// Pins of which each field tells another.
fn pins() -> Vec<PinsStatus> {
    vec![PinsStatus {
        kind: "old".to_owned(),
        made: 11,
        removed: 1,
        swept: 2,
        evicted: 1,
        failed: 0,
        over_budget: 3,
    }]
}

/// Lists of which each field tells another.
fn access() -> AccessStatus {
    AccessStatus {
        in_force: true,
        blocks: 2,
        refused_files: 1,
        lists: vec![ListStatus {
            vip: Some("web".to_owned()),
            list: "deny".to_owned(),
            prefixes: 9,
            file: Some("/etc/weir/feed.txt".into()),
        }],
        counts: vec![AccessCount {
            vip: "web".to_owned(),
            list: "vip_deny".to_owned(),
            result: "denied".to_owned(),
            packets: 13,
        }],
    }
}

/// How the checks of a backend do.
pub(crate) fn health(is_healthy: bool) -> HealthStatus {
    let (state, error) = if is_healthy {
        (HealthState::Healthy, None)
    } else {
        (HealthState::Failed, Some("connect: connection refused"))
    };
    HealthStatus {
        check: "http".to_owned(),
        port: 8080,
        via: "direct".to_owned(),
        state,
        since: "2026-11-23T21:14:12.345Z".to_owned(),
        reason: error.map(str::to_owned),
        flaps: 3,
        in_a_row: 4,
        last_time: Some("2026-11-23T21:15:12.345Z".to_owned()),
        last_seconds: Some(0.0025),
        last_error: error.map(str::to_owned),
        passed: 100,
        failed: 20,
        timed_out: 5,
        not_asked: 1,
    }
}

/// Answers questions with `status`, and changes as if all were new if they are based on its generation, until a detach, or until every handle is gone. Must run within tokio.
pub(crate) fn reconciler(status: Status) -> Handle {
    let (handle, mut commands) = Handle::channel();
    tokio::spawn(async move {
        while let Some(command) = commands.recv().await {
            match command {
                Command::Status(answer) => answer.send(status.clone()).unwrap(),
                Command::Generation(answer) => answer.send(status.generation).unwrap(),
                Command::Change(request, answer) => {
                    let now = status.generation;
                    let result = match request.base {
                        Base::Generation(base) if base != now => Err(Refusal::Stale { base, now }),
                        Base::Generation(_) | Base::Any => Ok(Changed {
                            changed: true,
                            generation: now + 1,
                        }),
                    };
                    answer.send(result).unwrap();
                }
                Command::FlowsBasis(answer) => {
                    drop(answer.send(Err("the maps cannot be read".to_owned())));
                }
                Command::Blocks(answer) => answer.send(BlockList::default()).unwrap(),
                Command::LimitsBasis(answer) => {
                    drop(answer.send(Err("the maps cannot be read".to_owned())));
                }
                Command::FleetReport(answer) => answer.send(report()).unwrap(),
                Command::Agreement(answer) => answer.send(None).unwrap(),
                Command::Serve(..)
                | Command::FleetReading(_)
                | Command::Watch(..)
                | Command::PlanBasis(_)
                | Command::ReloadFailed(..)
                | Command::Events(_) => {
                    panic!("nobody asks for that")
                }
                Command::Detach(answer) => {
                    let detached = Detached {
                        interfaces: vec!["eth0".to_owned()],
                        pins: 9,
                    };
                    answer.send(Ok(detached)).unwrap();
                    break;
                }
            }
        }
    });
    handle
}

fn reasons() -> Vec<ReasonStatus> {
    let count = |reason, is_redirect, packets| ReasonCount {
        reason,
        is_redirect,
        packets,
    };
    ReasonStatus::all(&[
        count(Reason::Forwarded, false, 2_469_135_780),
        count(Reason::Forwarded, true, 0),
        count(Reason::NotVip, false, 99),
        count(Reason::NoBackend, false, 0),
    ])
}
