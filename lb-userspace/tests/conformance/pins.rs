//! The life of a pin, on the host and in the kernel: what makes it, which map it lies in, and what ends it.

use lb_common::{
    backend::{self, Backend},
    flow::{HASH_KEYS, HashKeys},
    pin::{Idle, Kind, flags},
    slot::{Slot, SlotTable},
    tables::Node,
};
use lb_userspace::dataplane::{DataPlane, Remembered, bpf::Action};
use rustix::time::{ClockId, clock_gettime};
use std::{
    ops::ControlFlow,
    thread,
    time::{Duration, Instant},
};
use zerocopy::FromZeros as _;

use super::{
    changes::{ACK, FIN, FIRST, NEW, OLD, RST, SYN, datagram, segment},
    ip::{FAMILIES, Family, Ip, udp_to},
    planes::{World, on_host},
    world::{self, FOREVER, port},
};

const CLIENT: u16 = 50_000;
const PORT: u16 = port::MOVING;
/// Pins of closed flows count for nothing, others for ever.
const CLOSED_AT_ONCE: Idle = Idle {
    closed_ns: 0,
    ..FOREVER
};
const AT_ONCE: Idle = Idle {
    open_ns: 0,
    closed_ns: 0,
};

/// What is asked of a pin: its map, its owner, and what was seen of the end.
type Held = (Kind, u16, u16);

/// One VIP in both places, whose slots are all in one state.
struct Life {
    world: World,
    family: Family,
    protocol: u8,
}

impl Life {
    fn new(family: Family, protocol: u8) -> Self {
        Self {
            world: World::new(),
            family,
            protocol,
        }
    }

    fn planes(&mut self, mut write: impl FnMut(&mut dyn DataPlane)) {
        write(&mut self.world.host);
        if let Some(kernel) = &mut self.world.kernel {
            write(kernel);
        }
    }

    fn id(&self, which: u16) -> u16 {
        world::id(self.family, self.protocol, PORT, which)
    }

    fn slots(&mut self, slot: Slot) {
        let vip = u32::from(world::number(self.family, self.protocol, PORT));
        let mut table = SlotTable::new_box_zeroed().unwrap();
        table.slots.fill(slot);
        self.planes(|plane| plane.set_table(vip, &table).unwrap());
    }

    fn holding(&mut self) {
        self.slots(Slot::holding(self.id(OLD)));
    }

    fn moving(&mut self) {
        self.slots(Slot::moving(self.id(NEW), self.id(OLD)));
    }

    fn settling(&mut self) {
        self.slots(Slot::settling(self.id(NEW)));
    }

    fn idle(&mut self, idle: &Idle) {
        let vip = u32::from(world::number(self.family, self.protocol, PORT));
        self.planes(|plane| plane.set_idle(vip, idle).unwrap());
    }

    /// The backend's host is gone for good.
    fn kill(&mut self, which: u16) {
        let id = self.id(which);
        self.planes(|plane| {
            let (_, held) = plane
                .backends()
                .unwrap()
                .into_iter()
                .find(|(held, _)| *held == id)
                .unwrap();
            let dead = Backend {
                flags: held.flags | backend::flags::DEAD,
                ..held
            };
            plane.set_backend(id, &dead).unwrap();
        });
    }

    /// Lets the clock go on: in the kernel it is one that ticks.
    fn pass_time(&mut self) {
        let now_ns = DataPlane::now_ns(&self.world.host);
        self.world.host.set_now_ns(now_ns + 1);
        let tick = || clock_gettime(ClockId::MonotonicCoarse);
        let (before, started) = (tick(), Instant::now());
        while tick() == before {
            assert!(
                started.elapsed() < Duration::from_secs(5),
                "the clock stands still"
            );
            thread::yield_now();
        }
    }

    /// Which owner a packet goes to, in both places.
    fn owner(&mut self, ip: &Ip) -> u16 {
        let (_, judged) = on_host(&self.world.host, &ip.frame());
        assert_eq!(judged.action, Action::Tx);
        if let Some(kernel) = self.world.in_kernel(&ip.frame()) {
            assert_eq!(kernel, judged, "kernel and host");
        }
        let of_mac = |which: &u16| {
            let service = world::service(self.family, self.protocol, PORT, *which);
            service.mac == judged.packet[..6]
        };
        [NEW, OLD].into_iter().find(of_mac).unwrap()
    }

    /// Sends a segment; says where it went.
    fn sends(&mut self, control: u8, sequence: u32) -> u16 {
        self.owner(&segment(self.family, PORT, CLIENT, control, sequence))
    }

    /// The pins that both hold, each with its owner.
    fn pins(&self) -> Vec<Held> {
        let held = |plane: &dyn DataPlane| {
            let mut held = Vec::new();
            let mut visit = |remembered| {
                if let Remembered::Pin(kind, _, pin) = remembered {
                    let which = [NEW, OLD]
                        .into_iter()
                        .find(|which| self.id(*which) == pin.backend);
                    held.push((kind, which.unwrap(), pin.flags));
                }
                ControlFlow::Continue(())
            };
            plane.scan().unwrap().walk(&mut visit).unwrap();
            held.sort_unstable();
            held
        };
        let on_host = held(&self.world.host);
        if let Some(kernel) = &self.world.kernel {
            assert_eq!(held(kernel), on_host, "kernel and host");
        }
        on_host
    }
}

/// One life of each family, while nobody keeps marks, and another while they are kept: then whatever is pinned and not marked is
/// not found again.
fn lives(protocol: u8) -> impl Iterator<Item = Life> {
    let all = FAMILIES
        .into_iter()
        .flat_map(|family| [(family, false), (family, true)]);
    all.map(move |(family, are_kept)| {
        let mut life = Life::new(family, protocol);
        if are_kept {
            life.planes(|plane| assert!(!plane.are_marks_kept()));
            life.planes(|plane| assert!(plane.keep_marks().unwrap()));
            life.planes(|plane| assert!(plane.are_marks_kept()));
        }
        life
    })
}

#[test]
fn marks_begin_where_no_pin_is_left_that_would_want_one() {
    for mut life in lives(6) {
        // What a SYN has pinned needs no mark.
        life.sends(SYN, FIRST);
        life.planes(|plane| assert!(plane.keep_marks().unwrap()));
        life.sends(ACK, FIRST + 1);
        assert_eq!(life.pins(), [(Kind::Proven, NEW, 0)]);
        life.planes(|plane| assert!(!plane.keep_marks().unwrap(), "proven"));
        // Refused, it changes nothing.
        assert_eq!(
            life.sends(SYN, FIRST),
            NEW,
            "else it would have a pin of its own"
        );
        assert_eq!(life.pins(), [(Kind::Proven, NEW, 0)]);
    }
    for mut life in lives(6) {
        life.sends(ACK, 5);
        life.planes(|plane| assert!(!plane.keep_marks().unwrap(), "old"));
        life.idle(&AT_ONCE);
        life.pass_time();
        life.settling();
        life.sends(ACK, 6);
        assert_eq!(life.pins(), []);
        life.planes(|plane| assert!(plane.keep_marks().unwrap()));
    }
}

#[test]
fn other_keys_of_the_hash_take_the_marks_away() {
    for mut life in lives(6) {
        life.planes(|plane| assert!(plane.keep_marks().unwrap()));
        life.sends(ACK, 5);
        let keys = HashKeys {
            keys: [7; HASH_KEYS],
        };
        life.planes(|plane| plane.set_node(&Node::new(keys)).unwrap());
        assert_eq!(life.sends(ACK, 6), OLD, "the pin counts as before");
        life.settling();
        assert_eq!(life.sends(ACK, 7), OLD);
    }
}

#[test]
fn holding_pins_every_flow_to_the_owner_that_still_is() {
    for mut life in lives(6) {
        life.holding();
        assert_eq!(life.sends(SYN, FIRST), OLD);
        assert_eq!(life.pins(), [(Kind::Syn, OLD, 0)]);
        // The slot moves before the handshake ends: the flow stays.
        life.moving();
        assert_eq!(life.sends(SYN, FIRST), OLD, "the SYN again");
        assert_eq!(life.sends(ACK, FIRST + 1), OLD);
        assert_eq!(life.pins(), [(Kind::Proven, OLD, 0)]);
    }
    for mut life in lives(6) {
        life.holding();
        assert_eq!(life.sends(ACK, 5), OLD);
        assert_eq!(life.pins(), [(Kind::Old, OLD, 0)]);
    }
    for mut life in lives(17) {
        life.holding();
        assert_eq!(life.owner(&datagram(life.family, PORT, CLIENT)), OLD);
        assert_eq!(life.pins(), [(Kind::Old, OLD, 0)]);
    }
}

#[test]
fn moving_pins_what_begins_to_the_owner_after_and_all_else_to_the_owner_before() {
    for mut life in lives(6) {
        assert_eq!(life.sends(SYN, FIRST), NEW);
        assert_eq!(life.pins(), [(Kind::Syn, NEW, 0)]);
        assert_eq!(life.sends(ACK, FIRST + 1), NEW);
        assert_eq!(
            life.pins(),
            [(Kind::Proven, NEW, 0)],
            "the SYN's pin is promoted"
        );
    }
    for mut life in lives(6) {
        assert_eq!(life.sends(ACK, 5), OLD);
        assert_eq!(life.pins(), [(Kind::Old, OLD, 0)]);
    }
    for mut life in lives(17) {
        assert_eq!(life.owner(&datagram(life.family, PORT, CLIENT)), OLD);
        assert_eq!(life.pins(), [(Kind::Old, OLD, 0)]);
    }
}

#[test]
fn a_packet_that_does_not_fit_a_syn_is_an_old_flows() {
    for mut life in lives(6) {
        life.sends(SYN, FIRST);
        assert_eq!(life.sends(ACK, 77_000_000), OLD);
        assert_eq!(life.pins(), [(Kind::Syn, NEW, 0), (Kind::Old, OLD, 0)]);
    }
}

#[test]
fn a_reset_that_answers_a_challenge_follows_the_syn_and_leaves_its_pin_as_it_is() {
    for mut life in lives(6) {
        life.sends(SYN, FIRST);
        assert_eq!(life.sends(RST, 77_000_000), NEW);
        assert_eq!(life.pins(), [(Kind::Syn, NEW, 0)]);
        assert_eq!(life.sends(SYN, FIRST), NEW, "the SYN again");
        assert_eq!(life.sends(ACK, FIRST + 1), NEW);
        assert_eq!(life.pins(), [(Kind::Proven, NEW, 0)]);
    }
}

#[test]
fn settling_keeps_what_is_pinned_and_pins_nothing() {
    for mut life in lives(6) {
        life.sends(ACK, 5);
        life.settling();
        assert_eq!(life.sends(ACK, 6), OLD);
        assert_eq!(life.sends(SYN, FIRST), OLD, "a hit, also of a SYN");
        let other = segment(life.family, PORT, CLIENT + 1, ACK, 5);
        assert_eq!(life.owner(&other), NEW);
        assert_eq!(life.pins(), [(Kind::Old, OLD, 0)]);
    }
    // A handshake that began before is still proven, so that its pin lives as long as the flow.
    for mut life in lives(6) {
        life.sends(SYN, FIRST);
        life.slots(Slot::settling(life.id(OLD)));
        assert_eq!(life.sends(ACK, FIRST + 1), NEW);
        assert_eq!(life.pins(), [(Kind::Proven, NEW, 0)]);
    }
}

#[test]
fn an_expired_pin_counts_for_nothing() {
    for mut life in lives(6) {
        life.sends(ACK, 5);
        life.idle(&AT_ONCE);
        life.pass_time();
        assert_eq!(life.sends(SYN, FIRST), NEW, "else it would follow the pin");
        assert_eq!(life.pins(), [(Kind::Syn, NEW, 0)]);
    }
    for mut life in lives(6) {
        life.sends(ACK, 5);
        life.settling();
        life.idle(&AT_ONCE);
        life.pass_time();
        assert_eq!(life.sends(ACK, 6), NEW);
        assert_eq!(life.pins(), []);
    }
}

#[test]
fn a_pin_to_a_dead_backend_counts_for_nothing() {
    for mut life in lives(6) {
        life.sends(ACK, 5);
        life.kill(OLD);
        life.settling();
        assert_eq!(life.sends(ACK, 6), NEW);
        assert_eq!(life.pins(), []);
    }
    // A proven one too.
    for mut life in lives(6) {
        life.sends(SYN, FIRST);
        life.sends(ACK, FIRST + 1);
        life.kill(NEW);
        life.slots(Slot::settling(life.id(OLD)));
        assert_eq!(life.sends(ACK, FIRST + 2), OLD);
        assert_eq!(life.pins(), []);
    }
}

#[test]
fn fin_and_rst_shorten_a_pins_life_and_a_later_packet_takes_the_rst_back() {
    for mut life in lives(6) {
        life.sends(SYN, FIRST);
        life.sends(ACK, FIRST + 1);
        assert_eq!(life.sends(FIN | ACK, FIRST + 2), NEW);
        assert_eq!(life.pins(), [(Kind::Proven, NEW, flags::FIN)]);
        assert_eq!(life.sends(ACK, FIRST + 3), NEW);
        assert_eq!(
            life.pins(),
            [(Kind::Proven, NEW, flags::FIN)],
            "a FIN stays"
        );
        life.idle(&CLOSED_AT_ONCE);
        life.pass_time();
        assert_eq!(life.sends(ACK, FIRST + 4), OLD);
    }
    for mut life in lives(6) {
        life.sends(SYN, FIRST);
        life.sends(ACK, FIRST + 1);
        assert_eq!(life.sends(RST, FIRST + 2), NEW);
        assert_eq!(life.pins(), [(Kind::Proven, NEW, flags::RST)]);
        assert_eq!(life.sends(ACK, FIRST + 2), NEW);
        assert_eq!(
            life.pins(),
            [(Kind::Proven, NEW, 0)],
            "whoever forged it gains nothing"
        );
        life.idle(&CLOSED_AT_ONCE);
        life.pass_time();
        assert_eq!(life.sends(ACK, FIRST + 3), NEW, "an open flow stays");
    }
}

#[test]
fn an_icmp_error_makes_no_pin() {
    for family in FAMILIES {
        let life = Life::new(family, 6);
        let mut world = life.world;
        for case in super::icmp_errors::cases()
            .iter()
            .chain(&super::changes::cases())
        {
            if case.reason == lb_common::reason::Reason::IcmpError && case.before.is_empty() {
                case.check(&mut world);
            }
        }
        let life = Life {
            world,
            ..Life::new(family, 6)
        };
        assert_eq!(life.pins(), []);
    }
}

#[test]
fn a_fragment_whose_first_was_not_seen_goes_where_flows_without_a_pin_are() {
    for family in FAMILIES {
        let mut world = World::new();
        let id = |which| world::id(family, 17, port::L2, which);
        // Backend 1 of this service is none, so another service's stands in.
        let old = world::id(family, 17, PORT, OLD);
        let vip = u32::from(world::number(family, 17, port::L2));
        let mut table = SlotTable::new_box_zeroed().unwrap();
        for (slot, owner) in [
            (Slot::moving(id(0), old), old),
            (Slot::holding(id(0)), id(0)),
            (Slot::settling(old), old),
        ] {
            table.slots.fill(slot);
            world.host.set_table(vip, &table).unwrap();
            if let Some(kernel) = &mut world.kernel {
                kernel.set_table(vip, &table).unwrap();
            }
            let whole = udp_to(family, family.vip(), port::L2, &[0x77; 64]);
            let later = whole.fragment(900, 40, 16, true).frame();
            let (outcome, host) = world.on_host(&later);
            assert_eq!(outcome.backend, owner, "{slot:?}");
            assert_eq!(outcome.reason, lb_common::reason::Reason::FragmentOrphan);
            if let Some(kernel) = world.in_kernel(&later) {
                assert_eq!(kernel, host, "{slot:?}");
            }
        }
    }
}
