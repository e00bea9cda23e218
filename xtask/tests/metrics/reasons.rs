//! Every reason, provoked by packets on the wire.

use std::{collections::BTreeSet, fmt::Write as _, fs, net::Ipv4Addr};

use aya::maps::{Array, Map, MapData, xdp::DevMapHash};
use etherparse::{EtherType, IpNumber};
use lb_common::{backend::Backend, reason::Reason};
use xtask::{
    lab::{Labels, Metrics, Plan, Topology, VIP_V4, VIP_V6, eventually, tagged},
    workspace,
};

use crate::{
    PATIENCE, Run,
    frames::{IP, Wire, changed, in_transport},
};

/// Reasons that no packet in the lab can provoke, and which test of the real program does.
const ELSEWHERE: &[(Reason, &str)] = &[(
    // A veth gives 256 bytes before every frame.
    Reason::NoHeadroom,
    "lb-userspace/tests/conformance/encapsulation.rs: a_frame_without_headroom_is_dropped_and_counted",
)];

/// Provoked by more frames than a few.
const FLOODS: [Reason; 2] = [Reason::IcmpLimited, Reason::Limited];

/// How many frames are sent for each of the others.
const TIMES: u16 = 3;

/// VIPs that the lab's configuration lacks, by what goes wrong with them; all are UDP.
const TUNNEL: u16 = 7001;
const EMPTY: u16 = 7002;
const UNRESOLVED: u16 = 7003;
const FAR: u16 = 7004;
const BLOCKED: u16 = 7005;
const LIMITED: u16 = 7006;
const BROKEN: u16 = 7007;
const SERVED_HERE: u16 = 7008;

/// The VIP that is announced by L2.
const ANNOUNCED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);

/// A reason, the VIP that the frames are dropped for, and the frame of a number.
type Provoked = (
    Reason,
    Option<&'static str>,
    fn(wire: &Wire, number: u16) -> Vec<u8>,
);

const PROVOKED: &[Provoked] = &[
    (Reason::Forwarded, None, |wire, number| {
        wire.udp(VIP_V4, echo(), 40_000 + number, 10)
    }),
    (Reason::FragmentOrphan, None, |wire, _| wire.orphan()),
    (Reason::IcmpError, None, |wire, _| wire.error_about(echo())),
    (Reason::Echo, None, Wire::ping),
    (Reason::NeighbourAnswered, None, |wire, _| {
        wire.arp(ANNOUNCED)
    }),
    (Reason::TooBigAnswered, None, |wire, _| {
        wire.large(TUNNEL, false)
    }),
    (Reason::TracerouteAnswered, None, |wire, _| {
        wire.udp(VIP_V4, 33_434, 40_000, 0)
    }),
    (Reason::NotVip, None, |wire, _| {
        wire.udp(VIP_V4, 9, 40_000, 10)
    }),
    (Reason::NotIp, None, |wire, _| {
        [wire.ethernet(EtherType(0x88b5)), vec![0; 46]].concat()
    }),
    (Reason::OtherProtocol, None, |wire, _| {
        wire.ipv4(IpNumber::SCTP, &[0; 32], |_| {})
    }),
    (Reason::Truncated, None, |wire, _| {
        let mut frame = wire.udp(VIP_V4, echo(), 40_000, 20);
        frame.truncate(frame.len() - 1);
        frame
    }),
    (Reason::MalformedIp, None, |wire, _| {
        changed(wire.udp(VIP_V4, echo(), 40_000, 20), IP, &[0x44])
    }),
    (Reason::MalformedTransport, None, |wire, _| {
        in_transport(wire.udp(VIP_V4, echo(), 40_000, 20), 4, &[0, 7])
    }),
    (Reason::MalformedIcmp, None, |wire, _| {
        wire.ipv4(IpNumber::ICMP, &[8, 0, 0, 0], |_| {})
    }),
    (Reason::Ipv6Extension, None, |wire, _| {
        wire.routed(VIP_V6, Topology::udp(VIP_V6).port())
    }),
    (Reason::VlanTags, None, |wire, _| {
        let tags = [(0x88a8, 3), (0x8100, 4), (0x8100, 5)];
        tagged(&wire.udp(VIP_V4, echo(), 40_000, 20), &tags)
    }),
    (Reason::IcmpOther, None, |wire, _| wire.pong()),
    (Reason::NoBackend, Some("empty"), |wire, _| {
        wire.udp(VIP_V4, EMPTY, 40_000, 10)
    }),
    (Reason::NoNextHop, Some("unresolved"), |wire, _| {
        wire.udp(VIP_V4, UNRESOLVED, 40_000, 10)
    }),
    (Reason::NoPort, Some("far"), |wire, _| {
        wire.udp(VIP_V4, FAR, 40_000, 10)
    }),
    (Reason::TooBig, Some("tunnel"), |wire, _| {
        wire.large(TUNNEL, true)
    }),
    (Reason::TableMissing, Some("broken"), |wire, _| {
        wire.udp(VIP_V4, BROKEN, 40_000, 10)
    }),
    (Reason::Local, None, |wire, _| {
        wire.udp(VIP_V4, SERVED_HERE, 40_000, 10)
    }),
    (Reason::Peer, None, |wire, _| {
        wire.by_peer(VIP_V4, SERVED_HERE)
    }),
    (Reason::Denied, Some("blocked"), |wire, _| {
        wire.udp(VIP_V4, BLOCKED, 40_000, 10)
    }),
];

fn echo() -> u16 {
    Topology::udp(VIP_V4).port()
}

#[test]
fn every_reason_is_provoked_here_or_known_to_be_elsewhere() {
    for (reason, elsewhere) in ELSEWHERE {
        let (file, test) = elsewhere.split_once(": ").unwrap();
        let source = fs::read_to_string(workspace::root().join(file)).unwrap();
        let name = reason.as_str();
        assert!(
            source.contains(&format!("\nfn {test}() {{")),
            "{name}: {elsewhere}"
        );
    }
    let provoked = PROVOKED.iter().map(|(reason, ..)| *reason);
    let elsewhere = ELSEWHERE.iter().map(|(reason, _)| *reason);
    let all = provoked.chain(FLOODS).chain(elsewhere);
    let named: Vec<_> = all.map(Reason::as_str).collect();
    let once: BTreeSet<_> = named.iter().copied().collect();
    assert_eq!(once.len(), named.len(), "one is named twice: {named:?}");
    let wanted: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(once, wanted);
}

#[test]
fn every_reason_is_counted_as_often_as_it_is_provoked() {
    let plan = Plan {
        near: 1,
        far: 1,
        routed: 0,
    };
    let run = Run::start(&plan, |config| {
        // The far backend has a VIP of its own.
        for vip in &mut config.vips {
            vip.backends.truncate(1);
        }
    });
    for host in [&run.topology.client, &run.topology.lb] {
        host.nic.carry_tags().unwrap();
    }
    run.add_vips();
    run.break_the_backend_of("broken");
    run.take_a_port_away();
    let wire = Wire::new(&run.topology);
    for (reason, vip, frame) in PROVOKED {
        let before = run.weir.metrics().unwrap();
        for number in 0..TIMES {
            wire.send(&frame(&wire, number));
        }
        let sent = f64::from(TIMES);
        let after = eventually(reason.as_str(), PATIENCE, || {
            let now = run.weir.metrics()?;
            let counted = grown(&before, &now, *reason);
            anyhow::ensure!(counted >= sent, "{counted} of {sent}: {}", now.text());
            Ok(now)
        })
        .unwrap_or_else(|error| panic!("{error:#}"));
        // Hosts ask for addresses of their own accord, and what they say is no VIP's.
        if !matches!(reason, Reason::NotIp | Reason::NotVip) {
            assert_eq!(grown(&before, &after, *reason), sent, "{}", reason.as_str());
        }
        if let Some(vip) = vip {
            let of_vip = |metrics: &Metrics| dropped(metrics, vip, *reason);
            assert_eq!(of_vip(&after) - of_vip(&before), sent, "{vip}");
        }
    }
    run.floods(&wire);
    assert_drops_are_their_vips(&run.weir.metrics().unwrap());
}

/// Every drop of this lab is some VIP's, and no VIP has any other.
fn assert_drops_are_their_vips(metrics: &Metrics) {
    for reason in Reason::DROPS {
        let name = reason.as_str();
        let vips = metrics.sum("weir_vip_dropped_packets_total", &[("reason", name)]);
        let all = metrics.sum("weir_packets_total", &[("reason", name)]);
        assert_eq!(vips, all, "{name}");
        assert_eq!(all == Some(0.0), reason == Reason::NoHeadroom, "{name}");
    }
    let of_others = metrics.series().filter(|(name, labels, value)| {
        let is_usual =
            |labels: &Labels| ["echo", "web"].iter().any(|n| labels["vip"].starts_with(n));
        *name == "weir_vip_dropped_packets_total" && is_usual(labels) && *value > 0.0
            // Of pings, which one VIP of the address is asked for all.
            && labels["reason"] != "icmp_limited"
    });
    assert_eq!(of_others.collect::<Vec<_>>(), []);
}

/// By how much a reason's count has grown.
fn grown(before: &Metrics, now: &Metrics, reason: Reason) -> f64 {
    let count = |metrics: &Metrics| {
        let labels = [("reason", reason.as_str())];
        metrics.sum("weir_packets_total", &labels).unwrap()
    };
    count(now) - count(before)
}

fn dropped(metrics: &Metrics, vip: &str, reason: Reason) -> f64 {
    let labels = [("vip", vip), ("reason", reason.as_str())];
    metrics
        .sum("weir_vip_dropped_packets_total", &labels)
        .unwrap()
}

impl Run {
    /// Puts VIPs in force with which all goes wrong that may.
    fn add_vips(&self) {
        let near = self.topology.backends[0].v4;
        let far = self.topology.backends[1].v4;
        let mut text = fs::read_to_string(self.weir.config()).unwrap();
        let mut add = |name: &str, address: String, port: u16, keys: &str, backend: String| {
            write!(
                text,
                "\n[[vip]]\nname = {name:?}\naddress = {address:?}\nport = {port}\nprotocol = \"udp\"\n{keys}\n\
                 [[vip.backend]]\n{backend}\n"
            )
            .unwrap();
        };
        let vip = || VIP_V4.to_string();
        let backend = |address| format!("address = \"{address}\"");
        let limit = "[vip.limit]\npackets_per_source = \"1/min\"\nburst = 1\naction = \"drop\"";
        add("tunnel", vip(), TUNNEL, "forward = \"gue\"", backend(near));
        add("empty", vip(), EMPTY, "", backend(near) + "\nweight = 0");
        let nobody = "10.77.0.99".parse().unwrap();
        add("unresolved", vip(), UNRESOLVED, "", backend(nobody));
        add("far", vip(), FAR, "", backend(far));
        let deny = "deny = [\"0.0.0.0/0\"]";
        add("blocked", vip(), BLOCKED, deny, backend(near));
        add("limited", vip(), LIMITED, limit, backend(near));
        let here = self.topology.lb.v4;
        let beside = format!(
            "{}\n[[vip.backend]]\n{}\nweight = 0",
            backend(here),
            backend(near)
        );
        add("here", vip(), SERVED_HERE, "", beside);
        add("broken", vip(), BROKEN, "", backend(near));
        let announced = ANNOUNCED.to_string();
        add(
            "announced",
            announced,
            80,
            "announce = \"l2\"",
            backend(near),
        );
        let file = self.lab.write("reasons.toml", &text).unwrap();
        let apply = ["apply", &file.display().to_string()];
        self.weir.ask_degraded(&apply).unwrap();
        eventually("all but one to be resolved", PATIENCE, || {
            let status = self.weir.status()?;
            let unresolved = status.vips.iter().filter(|vip| {
                let mut backends = vip.backends.iter();
                backends.any(|backend| !backend.resolved)
            });
            let unresolved: Vec<_> = unresolved.map(|vip| vip.name.as_str()).collect();
            anyhow::ensure!(unresolved == ["unresolved"], "{unresolved:?}");
            let in_force = self.weir.metrics()?.sum("weir_access_lists_in_force", &[]);
            anyhow::ensure!(in_force == Some(1.0), "the lists are not in force");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Empties the entry of a VIP's only backend in the daemon's pinned map: a defect, as no daemon makes it.
    fn break_the_backend_of(&self, vip: &str) {
        let status = self.weir.ask_degraded(&["status", "-o", "json"]).unwrap();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let vips = status["vips"].as_array().unwrap();
        let vip = vips.iter().find(|found| found["name"] == vip).unwrap();
        let id = vip["backends"][0]["id"].as_u64().unwrap();
        let pin = self.weir.pins_in_force().unwrap().join("maps/BACKENDS");
        let map = Map::Array(MapData::from_pin(pin).unwrap());
        let mut entries = Array::<_, [u8; size_of::<Backend>()]>::try_from(map).unwrap();
        let id = u32::try_from(id).unwrap();
        entries.set(id, [0; size_of::<Backend>()], 0).unwrap();
    }

    /// Takes the way to the far backend out of the pinned map of ports, as the kernel does when an interface goes: the daemon
    /// follows a moment later.
    fn take_a_port_away(&self) {
        let link = self.topology.lb.namespace.ip("-j link show dev eth1");
        let link: serde_json::Value = serde_json::from_str(&link.unwrap()).unwrap();
        let ifindex = u32::try_from(link[0]["ifindex"].as_u64().unwrap()).unwrap();
        let pin = self.weir.pins_in_force().unwrap().join("maps/PORTS");
        let map = Map::DevMapHash(MapData::from_pin(pin).unwrap());
        DevMapHash::try_from(map).unwrap().remove(ifindex).unwrap();
    }

    /// Provokes what needs more than a few frames; each of them counts under one reason or the other.
    fn floods(&self, wire: &Wire) {
        let flood = |limited: Reason, other: Reason, frame: &dyn Fn(u16) -> Vec<u8>| {
            let before = self.weir.metrics().unwrap();
            let mut sent = 0_u16;
            eventually(limited.as_str(), PATIENCE, || {
                // No more than a veth's queue holds.
                for _ in 0..128 {
                    wire.send(&frame(sent));
                    sent += 1;
                }
                let now = self.weir.metrics()?;
                anyhow::ensure!(
                    grown(&before, &now, limited) > 0.0,
                    "{sent} were let through"
                );
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{error:#}"));
            eventually("all to be counted", PATIENCE, || {
                let now = self.weir.metrics()?;
                let counted = grown(&before, &now, limited) + grown(&before, &now, other);
                anyhow::ensure!(counted == f64::from(sent), "{counted} of {sent}");
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{error:#}"));
            before
        };
        flood(Reason::IcmpLimited, Reason::Echo, &|number| {
            wire.ping(number)
        });
        let before = flood(Reason::Limited, Reason::Forwarded, &|number| {
            wire.udp(VIP_V4, LIMITED, number, 10)
        });
        let after = self.weir.metrics().unwrap();
        // The limit's own count of them.
        let labels = [("vip", "limited"), ("result", "dropped")];
        let judged = after.sum("weir_limit_packets_total", &labels);
        assert_eq!(judged, Some(grown(&before, &after, Reason::Limited)));
        let of_vip = dropped(&after, "limited", Reason::Limited);
        assert_eq!(judged, Some(of_vip));
        assert_eq!(dropped(&after, "limited", Reason::Denied), 0.0);
    }
}
