//! Metrics end to end: what was sent is what is counted, to the packet, whatever becomes of packets and daemons.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_cmp,
    clippy::cast_precision_loss,
    reason = "helpers of tests fail like tests, and counts are whole numbers"
)]

mod frames;
mod lives;
mod page;
mod reasons;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::ensure;
use frames::{Wire, mac};
use xtask::lab::{
    Lab, Metrics, Plan, Protocol, Recorder, Topology, VIP_V4, VIP_V6, Weir, WeirConfig, eventually,
};

const PATIENCE: Duration = Duration::from_secs(100);

/// A lab in which weir balances.
struct Run {
    // Fields are dropped in order: the lab, which kills what still runs, comes last.
    weir: Weir,
    topology: Topology,
    lab: Lab,
}

impl Run {
    fn start(plan: &Plan, change: impl FnOnce(&mut WeirConfig)) -> Self {
        let lab = Lab::new().unwrap();
        let topology = Topology::build(&lab, plan).unwrap();
        let mut config = WeirConfig::for_topology(&topology, &[]);
        change(&mut config);
        let weir = Weir::start(&lab, &topology.lb.namespace, &config)
            .unwrap_or_else(|error| panic!("{error:#}"));
        Self {
            weir,
            topology,
            lab,
        }
    }
}

/// What was forwarded: frames, bytes and new connections, in the order of [`COUNTERS`].
type Count = [u64; 3];

const COUNTERS: [&str; 3] = ["packets", "bytes", "new_connections"];

/// What backends got, by the VIP's name and the backend's address.
type Arrived = BTreeMap<(String, String), Count>;

/// A VIP's name in the lab's configuration.
fn name(vip: IpAddr, protocol: Protocol) -> String {
    let service = match protocol {
        Protocol::Tcp => "web",
        Protocol::Udp => "echo",
    };
    let family = if vip.is_ipv4() { "v4" } else { "v6" };
    format!("{service}-{family}")
}

/// Notes a frame that arrived, if it is for a VIP and from the load balancer.
fn note(frame: &[u8], lb: [u8; 6], backend: impl Fn(IpAddr) -> IpAddr, arrived: &mut Arrived) {
    if frame[6..12] != lb {
        return;
    }
    let word = |at: usize| u64::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let (vip, protocol, transport, len) = match word(12) {
        0x0800 => (VIP_V4, frame[23], 34, 14 + word(16)),
        0x86dd => (VIP_V6, frame[20], 54, 14 + 40 + word(18)),
        _ => return,
    };
    let (protocol, is_syn) = match protocol {
        6 => (Protocol::Tcp, frame[transport + 13] == 2),
        17 => (Protocol::Udp, false),
        _ => return,
    };
    let key = (name(vip, protocol), backend(vip).to_string());
    let count = arrived.entry(key).or_default();
    for (count, more) in count.iter_mut().zip([1, len, u64::from(is_syn)]) {
        *count += more;
    }
}

/// Sends known traffic to all VIPs, and counts it where it is sent, by VIP, and where it arrives.
fn known_traffic(run: &Run) -> (BTreeMap<String, Count>, Arrived) {
    const FLOWS: u16 = 60;
    let backends = run.topology.backends.iter();
    let mut recorders: Vec<Recorder> = backends.map(|host| host.nic.record().unwrap()).collect();
    // The last one is behind the load balancer's other interface.
    let near = mac(&run.topology.lb);
    let macs = [near, near, second_mac(run)];
    let wire = Wire::new(&run.topology);
    let mut sent: BTreeMap<String, Count> = BTreeMap::new();
    let mut arrived = Arrived::new();
    let services = [VIP_V4, VIP_V6]
        .into_iter()
        .flat_map(|vip| [(vip, Protocol::Tcp), (vip, Protocol::Udp)]);
    for ((vip, protocol), flow) in
        services.flat_map(|service| (0..FLOWS).map(move |n| (service, n)))
    {
        let from = 20_000 + flow;
        for part in 0..3 {
            let len = usize::from(flow % 7) * 11 + part * 5;
            let is_syn = part == 0 && protocol == Protocol::Tcp;
            let frame = match protocol {
                Protocol::Tcp => wire.tcp(vip, Topology::http(vip).port(), from, is_syn, len),
                Protocol::Udp => wire.udp(vip, Topology::udp(vip).port(), from, len),
            };
            let count = sent.entry(name(vip, protocol)).or_default();
            let more = [1, frame.len() as u64, u64::from(is_syn)];
            for (count, more) in count.iter_mut().zip(more) {
                *count += more;
            }
            wire.send(&frame);
        }
        if flow % 20 < 19 {
            continue;
        }
        // What a veth's queue does not hold, nobody sees.
        let wanted: u64 = sent.values().map(|[packets, ..]| packets).sum();
        eventually("the frames to arrive", PATIENCE, || {
            let hosts = run.topology.backends.iter().zip(macs);
            for (recorder, (host, lb)) in recorders.iter_mut().zip(hosts) {
                for frame in recorder.take() {
                    note(&frame, lb, |vip| host.address(vip), &mut arrived);
                }
            }
            let seen: u64 = arrived.values().map(|[packets, ..]| packets).sum();
            ensure!(seen == wanted, "{seen} of {wanted}");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error:#}"));
    }
    (sent, arrived)
}

/// The MAC address of the load balancer's second interface.
fn second_mac(run: &Run) -> [u8; 6] {
    let link = run.topology.lb.namespace.ip("-j link show dev eth1");
    let link: serde_json::Value = serde_json::from_str(&link.unwrap()).unwrap();
    let bytes = link[0]["address"].as_str().unwrap().split(':');
    let bytes = bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap());
    bytes.collect::<Vec<_>>().try_into().unwrap()
}

#[test]
fn every_counter_is_what_was_sent() {
    let plan = Plan {
        near: 2,
        far: 1,
        routed: 0,
    };
    let run = Run::start(&plan, |config| {
        for vip in &mut config.vips {
            vip.backends[1].weight = 300;
        }
    });
    let before = run.weir.metrics().unwrap();
    let (sent, arrived) = known_traffic(&run);
    let after = run.weir.metrics().unwrap();
    let grown = |name: &str, labels: &[(&str, &str)]| {
        let count = |metrics: &Metrics| metrics.sum(name, labels).unwrap();
        count(&after) - count(&before)
    };
    assert_eq!(arrived.len(), 12, "{arrived:?}");
    for ((vip, backend), counts) in &arrived {
        for (counter, count) in COUNTERS.iter().zip(counts) {
            let metric = format!("weir_backend_{counter}_total");
            let counted = grown(&metric, &[("vip", vip), ("backend", backend)]);
            assert_eq!(counted, *count as f64, "{metric} of {vip} at {backend}");
        }
    }
    for (vip, counts) in &sent {
        for (counter, count) in COUNTERS.iter().zip(counts) {
            let of_vip = grown(&format!("weir_vip_{counter}_total"), &[("vip", vip)]);
            assert_eq!(of_vip, *count as f64, "{counter} of {vip}");
            let of_backends = grown(&format!("weir_backend_{counter}_total"), &[("vip", vip)]);
            assert_eq!(of_backends, of_vip, "{counter} of {vip}'s backends");
        }
    }
    // And by reason: those of the last backend left by the other interface.
    let forwarded = |verdict| {
        let labels = [("reason", "forwarded"), ("verdict", verdict)];
        grown("weir_packets_total", &labels)
    };
    let far = |(_, backend): &(String, String)| {
        let host = &run.topology.backends[2];
        [host.v4, host.v6]
            .iter()
            .any(|address| address.to_string() == *backend)
    };
    let other: u64 = arrived
        .iter()
        .filter(|(key, _)| far(key))
        .map(|(_, count)| count[0])
        .sum();
    let all: u64 = sent.values().map(|[packets, ..]| packets).sum();
    assert!(other > 0 && other < all);
    assert_eq!(forwarded("redirect"), other as f64);
    assert_eq!(forwarded("tx"), (all - other) as f64);
    for verdict in ["drop", "aborted"] {
        let dropped = after.sum("weir_packets_total", &[("verdict", verdict)]);
        assert_eq!(dropped.unwrap_or_default(), 0.0, "{verdict}");
    }
    page::assert_clean(&after);
}
