//! A node to show in tests.

use std::{env, fs, path::PathBuf, time::Duration};

use crate::{
    api::{
        AccessStatus, BackendStatus, ConfigStatus, HealthState, HealthStatus, InterfaceState,
        InterfaceStatus, LeavingStatus, LimitStatus, LimitUse, Limits, ObservedStatus,
        ReasonStatus, SlotsStatus, SourceStatus, Sources, Status, VipLimits, VipStatus,
    },
    cli::top::{
        model::{SampledSource, SampledSources, Top},
        rates::Sample,
    },
    config::{ForwardMode, Protocol, TableAlgorithm},
};

/// Holds text against `snapshots/NAME.txt`; `WEIR_UPDATE_EXPECTED=1` writes it.
pub(super) fn snapshot(name: &str, text: &str) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/cli/top/snapshots");
    let path = folder.join(format!("{name}.txt"));
    if env::var_os("WEIR_UPDATE_EXPECTED").is_some() {
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{} is another", path.display());
}

/// Two samples, 2 s apart.
pub(super) fn samples() -> (Sample, Sample) {
    let (before, mut now) = (sample(10), sample(12));
    for vip in &mut now.status.vips {
        let mut total = [0; 3];
        for backend in &mut vip.backends {
            // What it is by the slots, and a little more for the first.
            let more = u64::from(backend.slots) + u64::from(backend.id == 1) * 2000;
            let grown = [more, 1000 * more, more / 100];
            backend.packets += grown[0];
            backend.bytes += grown[1];
            backend.new_connections += grown[2];
            (0..3).for_each(|at| total[at] += grown[at]);
        }
        for leaving in &mut vip.leaving {
            leaving.packets += 100;
            total[0] += 100;
        }
        vip.packets += total[0];
        vip.bytes += total[1];
        vip.new_connections += total[2];
        for limit in &mut vip.limits {
            limit.allowed += total[0];
            limit.dropped += 40;
        }
    }
    for (reason, more) in now.status.reasons.iter_mut().zip([200_000, 0, 90, 40, 0]) {
        reason.packets += more;
    }
    (before, now)
}

/// What happened between the two.
pub(super) fn top() -> Top {
    let (before, now) = samples();
    let mut top = Top::new(Some(&before), &now, Some(&limits()));
    top.sampled_sources = Some(sampled());
    top
}

fn sampled() -> SampledSources {
    let source = |source: &str, rate| SampledSource {
        source: source.parse().unwrap(),
        packets_per_second: rate,
        bits_per_second: rate * 8000.0,
        error_per_second: rate / 10.0,
    };
    SampledSources {
        unavailable: None,
        sample: 128,
        samples: 1964,
        seconds: 2.0,
        overestimate_per_second: 0.0,
        top: vec![
            source("198.51.100.7", 51_200.0),
            source("2001:db8:1111:2222:3333:4444:5555:6666", 12_800.0),
            source("198.51.100.9", 640.0),
        ],
    }
}

/// What the daemon measured at the limits of sources.
pub(super) fn limits() -> Limits {
    let status = limit("packets_per_source", 500.0);
    Limits {
        seconds: 1.0,
        vips: vec![VipLimits {
            vip: "web".to_owned(),
            packets_per_second: 0.0,
            bytes_per_second: 0.0,
            new_connections_per_second: 0.0,
            limits: vec![LimitUse {
                status,
                allowed_per_second: 0.0,
                over_per_second: 0.0,
                used: 1.04,
            }],
            sources: Some(Sources {
                active: 2,
                top: vec![SourceStatus {
                    source: "198.51.100.7".to_owned(),
                    packets_per_second: 520.0,
                    new_connections_per_second: 3.0,
                    over_per_second: 20.0,
                }],
                ..Sources::default()
            }),
        }],
    }
}

fn limit(name: &str, per_second: f64) -> LimitStatus {
    LimitStatus {
        limit: name.to_owned(),
        per_second,
        burst: 50,
        action: "drop".to_owned(),
        allowed: 1000,
        dropped: 20,
        observed: 0,
    }
}

fn health(error: Option<&str>) -> HealthStatus {
    HealthStatus {
        check: "http".to_owned(),
        port: 8080,
        via: "direct".to_owned(),
        state: if error.is_some() {
            HealthState::Failed
        } else {
            HealthState::Healthy
        },
        since: "2026-11-23T21:14:12.345Z".to_owned(),
        reason: error.map(str::to_owned),
        flaps: 3,
        in_a_row: 4,
        last_time: None,
        last_seconds: None,
        last_error: error.map(str::to_owned),
        passed: 100,
        failed: 20,
        timed_out: 5,
        not_asked: 1,
    }
}

fn backend(id: u16, address: &str, slots: u32) -> BackendStatus {
    let error = (slots == 0).then_some("connect: connection refused");
    BackendStatus {
        id,
        address: address.parse().unwrap(),
        weight: 100,
        configured_weight: 100,
        drained: false,
        forward: ForwardMode::L2,
        slots,
        healthy: Some(error.is_none()),
        health: Some(health(error)),
        pins: u64::from(id),
        empty: None,
        packets_per_second: None,
        drain_seconds_left: None,
        resolved: true,
        mac: None,
        mtu: 1500,
        packets: 1_000_000,
        bytes: 1_000_000_000,
        new_connections: 1000,
    }
}

fn vip(id: u32, name: &str, address: &str, backends: Vec<BackendStatus>) -> VipStatus {
    VipStatus {
        id,
        name: name.to_owned(),
        address: address.parse().unwrap(),
        port: 443,
        protocol: Protocol::Tcp,
        table: TableAlgorithm::Maglev,
        table_digest: "0badcafe".to_owned(),
        packets: 2_000_000,
        bytes: 2_000_000_000,
        new_connections: 2000,
        dropped: Vec::new(),
        slots: SlotsStatus::default(),
        slot_moves: 0,
        seconds_left: None,
        pins: 7,
        fails_open: false,
        announce: None,
        limits: Vec::new(),
        backends,
        leaving: Vec::new(),
    }
}

fn vips() -> Vec<VipStatus> {
    let mut web = vip(
        0,
        "web",
        "203.0.113.10",
        vec![
            backend(1, "10.0.0.11", 21_846),
            backend(2, "10.0.0.12", 43_690),
            backend(3, "10.0.0.13", 0),
        ],
    );
    web.slots.moving = 536;
    web.limits = vec![
        limit("packets", 60_000.0),
        limit("packets_per_source", 500.0),
    ];
    web.leaving = vec![LeavingStatus {
        id: 4,
        address: "10.0.0.14".parse().unwrap(),
        alive: true,
        health: None,
        packets: 5000,
        bytes: 5_000_000,
        new_connections: 50,
        packets_per_second: None,
        pins: 12,
        drain_seconds_left: None,
    }];
    let address = "2001:db8:1111:2222:3333:4444:5555:6666";
    let mail = vip(1, "mail", address, vec![backend(5, address, 65_536)]);
    let mut silent = vip(2, "silent", "203.0.113.11", Vec::new());
    (silent.protocol, silent.port) = (Protocol::Udp, 0);
    vec![web, mail, silent]
}

fn sample(seconds: u64) -> Sample {
    let reason = |reason: &str, verdict: &str, packets| ReasonStatus {
        reason: reason.to_owned(),
        verdict: verdict.to_owned(),
        packets,
    };
    let status = Status {
        ready: true,
        node: "lb-1".to_owned(),
        version: "0.1.0".to_owned(),
        commit: "unknown".to_owned(),
        generation: 3,
        config: ConfigStatus {
            file: "/etc/weir/weir.toml".into(),
            applied: "/etc/weir/weir.toml".into(),
            by: "start".to_owned(),
            time: "2026-11-23T21:14:12Z".to_owned(),
            refused: None,
        },
        interfaces: vec![InterfaceStatus {
            name: "eth0".to_owned(),
            state: InterfaceState::Attached,
            ifindex: Some(2),
            mode: None,
            foreign: None,
        }],
        vips: vips(),
        reasons: vec![
            reason("forwarded", "tx", 4_000_000),
            reason("forwarded", "redirect", 0),
            reason("not_vip", "pass", 99),
            reason("limited", "drop", 20),
            reason("no_backend", "drop", 0),
        ],
        access: AccessStatus::default(),
        maps: Vec::new(),
        pins: Vec::new(),
        marks_kept: true,
        programs: Vec::new(),
        fleet: None,
        agreement: None,
        kubernetes: None,
        observed: ObservedStatus::default(),
        drained: false,
        announcements: Vec::new(),
        announcement_counts: Vec::new(),
        overrides: Vec::new(),
        problems: Vec::new(),
    };
    Sample {
        at: Duration::from_secs(seconds),
        time: format!("2026-11-23T21:14:{seconds}Z"),
        status,
    }
}
