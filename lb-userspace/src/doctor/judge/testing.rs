//! Made-up hosts with which nothing is wrong.

use std::net::IpAddr;

use crate::{
    api::{AccessStatus, ConfigStatus, ForeignProgram, ObservedStatus, Status, VipStatus},
    config::Config,
    doctor::{
        facts::{
            Balancer, Bpffs, Carried, Conf, Daemon, Held, Host, Loaded, Net, Nic, Offload,
            Offloads, Queues, Server, XdpFeatures,
        },
        finding::{Finding, Level},
    },
    model::{
        attached::AttachMode,
        next_hop::{NextHop, Vlans},
    },
    neighbours::Snapshot,
};

/// A configuration of one VIP with an `l2`, an `ipip` and a `gue` backend.
pub(super) fn config() -> Config {
    Config::parse(
        r#"
        [node]
        interfaces = ["eth0"]
        seed = "a secret of some length"
        encap_source = ["10.0.0.1", "2001:db8::1"]
        [[vip]]
        name = "web"
        address = "203.0.113.10"
        port = 443
        protocol = "tcp"
        health = { type = "tcp" }
        [[vip.backend]]
        address = "10.0.0.11"
        [[vip.backend]]
        address = "10.0.0.12"
        forward = "ipip"
        [[vip.backend]]
        address = "2001:db8::13"
        forward = "gue"
        "#,
        "f",
    )
    .unwrap()
}

pub(super) fn balancer() -> Balancer {
    Balancer {
        host: Host {
            release: "6.18.4".to_owned(),
            has_btf: true,
            missing: Vec::new(),
            is_sys_admin: true,
            program: Ok(Loaded {
                is_jitted: Some(true),
                verified: Some(1000),
            }),
            jit: Some(1),
            descriptors: 1 << 20,
            memory: Some(1 << 32),
            cpus: 2,
        },
        net: net(),
        ways: ways(),
        daemon: Daemon::Away,
        bpffs: Bpffs::Mounted,
        unwritable: Vec::new(),
        metrics: None,
        unhealthy: Vec::new(),
        routing: None,
    }
}

pub(super) fn net() -> Net {
    let mut net = Net::default();
    net.nics.insert("eth0".to_owned(), nic());
    let lo = Nic {
        name: "lo".to_owned(),
        index: 1,
        is_up: true,
        has_carrier: true,
        is_loopback: true,
        mtu: 65_536,
        ..Nic::default()
    };
    net.nics.insert("lo".to_owned(), lo);
    net.addresses = ["10.0.0.1", "2001:db8::1"]
        .map(|address| held(address, if address.contains(':') { 64 } else { 24 }, "eth0"))
        .into();
    net
}

pub(super) fn held(address: &str, prefix: u8, interface: &str) -> Held {
    Held {
        address: address.parse().unwrap(),
        prefix,
        interface: interface.to_owned(),
        is_tentative: false,
    }
}

pub(super) fn nic() -> Nic {
    let off = Some(Offload::default());
    Nic {
        name: "eth0".to_owned(),
        index: 2,
        is_up: true,
        has_carrier: true,
        is_ethernet: true,
        mtu: 1600,
        driver: Some("mlx5_core".to_owned()),
        can: Some(XdpFeatures {
            basic: true,
            transmit: true,
            scatter: true,
        }),
        offloads: Offloads {
            lro: off,
            gro_hw: off,
            vlan_rx: off,
        },
        queues: Some(Queues {
            rx: 2,
            tx: 2,
            max_rx: 8,
            max_tx: 8,
            is_combined: true,
        }),
        ring: Some((1024, 8192)),
        conf: Conf {
            rp_filter: Some(0),
            arp_ignore: Some(1),
            arp_announce: Some(2),
            no_ipv6: false,
        },
        ..Nic::default()
    }
}

/// Somebody's program, native.
pub(super) fn carried(is_weirs: bool, mode: AttachMode) -> Carried {
    Carried {
        mode,
        program: ForeignProgram {
            id: 7,
            name: Some("other".to_owned()),
        },
        is_weirs,
    }
}

/// Every backend of [`config`] is on the link of `eth0`.
fn ways() -> Snapshot {
    let mut ways = Snapshot::default();
    for address in ["10.0.0.11", "10.0.0.12", "2001:db8::13"] {
        let address: IpAddr = address.parse().unwrap();
        let hop = NextHop {
            ifindex: 2,
            mac_source: [2, 0, 0, 0, 0, 1],
            mac_destination: Some([2, 0, 0, 0, 0, 11]),
            gateway: address,
            mtu: 1600,
            vlans: Vlans::default(),
        };
        ways.next_hops.insert(address, hop);
    }
    ways
}

/// A server with both VIPs on `lo`.
pub(super) fn server() -> Server {
    let mut net = net();
    net.addresses = vec![
        held("10.0.0.11", 24, "eth0"),
        held("2001:db8::11", 64, "eth0"),
        held("203.0.113.10", 32, "lo"),
        held("2001:db8:a::10", 128, "lo"),
    ];
    Server {
        net,
        facing: vec!["eth0".to_owned()],
        decap: Ok(Vec::new()),
        decap_pins: None,
        sockets: Vec::new(),
        is_v6_only: false,
    }
}

/// What a daemon answers with which nothing is wrong.
pub(super) fn status() -> Status {
    Status {
        fleet: None,
        agreement: None,
        kubernetes: None,
        ready: true,
        node: "lb-1".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: String::new(),
        generation: 1,
        config: ConfigStatus {
            file: "weir.toml".into(),
            applied: "weir.toml".into(),
            by: "start".to_owned(),
            time: String::new(),
            refused: None,
        },
        interfaces: Vec::new(),
        vips: Vec::new(),
        reasons: Vec::new(),
        access: AccessStatus::default(),
        maps: Vec::new(),
        pins: Vec::new(),
        marks_kept: true,
        programs: Vec::new(),
        observed: ObservedStatus::default(),
        drained: false,
        announcements: Vec::new(),
        announcement_counts: Vec::new(),
        overrides: Vec::new(),
        problems: Vec::new(),
    }
}

/// A VIP, as a daemon tells it.
pub(super) fn vip(healthy: bool, slots: u32, fails_open: bool) -> VipStatus {
    serde_json::from_value(serde_json::json!({
        "id": 1, "name": "web", "address": "203.0.113.10", "port": 443, "protocol": "tcp",
        "table": "maglev", "table_digest": "00000000", "packets": 0, "bytes": 0, "new_connections": 0,
        "slots": {"stable": 65536, "holding": 0, "moving": 0, "settling": 0}, "seconds_left": null,
        "pins": 0, "fails_open": fails_open, "limits": [], "leaving": [], "dropped": [], "slot_moves": 0,
        "backends": [{
            "id": 1, "address": "10.0.0.11", "weight": 1, "configured_weight": 1, "drained": false,
            "forward": "l2", "slots": slots, "healthy": healthy, "pins": 0, "empty": null,
            "resolved": true, "mac": null, "mtu": 1500, "packets": 0, "bytes": 0, "new_connections": 0,
        }],
    }))
    .unwrap()
}

/// The findings of a check.
pub(super) fn of<'a>(findings: &'a [Finding], check: &str) -> Vec<&'a Finding> {
    let found = findings.iter();
    found.filter(|finding| finding.check == check).collect()
}

/// The worst level of a check, which there must be.
pub(super) fn level(findings: &[Finding], check: &str) -> Level {
    let found = of(findings, check);
    let level = found.iter().map(|finding| finding.level).max();
    level.unwrap_or_else(|| panic!("{check} is not in {findings:?}"))
}
