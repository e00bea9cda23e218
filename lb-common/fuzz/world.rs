//! Maps in memory that have a bit of everything, and what holds of every frame that goes through the pipeline over them.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    sync::LazyLock,
};

use lb_common::{
    access::PrefixKey,
    backend::{Backend, flags, mode},
    flow::{Address, Flow, HASH_KEYS, HashKeys},
    fragment::FragmentKey,
    limit::{self, Judgement, Known, LimitTables, Limits, OwnRates, Rate, SourceKey, Tat},
    noted::Noted,
    packet::{HEADROOM, HostPacket},
    pin::{Idle, Inserted, Kind, Pin, Pins},
    pipeline::{self, Outcome},
    reason::Verdict,
    slot::{Slot, SlotTable},
    tables::{Answer, Interface, Limited, Tables},
    vip::{self, VipEntry, VipKey, VipTable},
};
use zerocopy::FromZeros;

/// The ports that are served, as the conformance suite has them, so that its corpus reaches them.
const PORTS: [u16; 7] = [443, 2004, 2006, 3004, 3006, 5002, 5003];
const V4: [u8; 4] = [203, 0, 113, 10];
const V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];

struct Fixed {
    keys: HashKeys,
    vips: Box<VipTable>,
    slots: Vec<Box<SlotTable>>,
    backends: Vec<Backend>,
}

static FIXED: LazyLock<Fixed> = LazyLock::new(|| {
    let mut entries = Vec::new();
    let mut slots = Vec::new();
    let mut backends = vec![Backend::default()];
    for address in [Address::from_v4(V4), Address::from_v6(V6)] {
        for protocol in [6, 17] {
            for port in PORTS {
                let (mode, is_v4) = match port {
                    2004 | 5003 => (mode::IPIP, true),
                    2006 => (mode::IPIP, false),
                    3004 => (mode::GUE, true),
                    3006 => (mode::GUE, false),
                    _ => (mode::L2, true),
                };
                let vlans = if port >= 5000 { flags::VLANS_SET } else { 0 };
                let host = |low| {
                    if is_v4 {
                        Address::from_v4([10, 0, 0, low])
                    } else {
                        Address::from_v6([low; 16])
                    }
                };
                let id = backends.len() as u16;
                backends.push(Backend {
                    mode,
                    flags: flags::RESOLVED | vlans,
                    vip: entries.len() as u16,
                    ifindex: 1,
                    mtu: 1500,
                    vlan_count: (port % 2) as u8 + 1,
                    address: host(2),
                    source: host(1),
                    ..Backend::default()
                });
                let mut table = SlotTable::new_box_zeroed().unwrap();
                // Every state that a slot can be in.
                for (index, slot) in table.slots.iter_mut().enumerate() {
                    *slot = match index % 8 {
                        0 => Slot::holding(id),
                        1 => Slot::moving(id, 1),
                        2 => Slot::settling(id),
                        _ => Slot::stable(id),
                    };
                }
                slots.push(table);
                entries.push(VipEntry {
                    key: VipKey::new(address, port.to_be_bytes(), protocol),
                    id: entries.len() as u32,
                    flags: vip::flags::ANNOUNCE_L2
                        | (vip::flags::ACCESS * u32::from(port & 1))
                        | (vip::flags::LIMITS * u32::from(port >> 1 & 1)),
                });
            }
        }
    }
    let mut vips = VipTable::new_box_zeroed().unwrap();
    vips.build(&entries).unwrap();
    let keys = HashKeys {
        keys: [0x9e37_79b9_7f4a_7c15; HASH_KEYS],
    };
    Fixed {
        keys,
        vips,
        slots,
        backends,
    }
});

static INTERFACE: Interface = Interface {
    mac: [2, 0, 0, 0, 0, 1],
    reserved: [0; 2],
};

static IDLE: Idle = Idle {
    open_ns: u64::MAX,
    closed_ns: u64::MAX,
};

#[derive(Default)]
struct Maps {
    fragments: RefCell<HashMap<FragmentKey, u16>>,
    answer: Cell<Option<Answer>>,
    noted: Cell<Option<Noted>>,
}

/// Nothing is remembered: every packet of a slot that changes hands is a miss.
impl Pins for Maps {
    fn now_ns(&self) -> u64 {
        0
    }
    fn is_marked(&self, hash: u32) -> bool {
        hash & 1 == 0
    }
    fn find(&self, _: Kind, _: &Flow) -> Option<Pin> {
        None
    }
    fn refresh(&self, _: Kind, _: &Flow, _: &Pin) {}
    fn insert(&self, _: Kind, _: (&Flow, u32), _: &Pin, _: u64) -> Inserted {
        Inserted::New
    }
    fn remove(&self, _: Kind, _: &Flow) {}
    fn is_alive(&self, _: u16) -> bool {
        true
    }
}

/// Every third packet of a limited VIP is over its limit.
impl LimitTables for Maps {
    type Tat = Word;
    type Known = Source;
    fn precise_ns(&self) -> u64 {
        0
    }

    fn coarse_ns(&self) -> u64 {
        0
    }
    fn limits(&self, _: u32) -> Option<&Limits> {
        Some(&LIMITS)
    }
    fn source(&self, key: &SourceKey, _: u64) -> Option<Source> {
        Some(Source(key.prefix.low % 3))
    }
    fn own_rates(&self, _: &SourceKey) -> Option<&OwnRates> {
        None
    }
    fn total(&self, _: u32, _: limit::Kind) -> Option<Word> {
        Some(Word(0))
    }
    fn credit(&self, _: u32, _: limit::Kind) -> u64 {
        0
    }
    fn set_credit(&self, _: u32, _: limit::Kind, _: u64) {}
    fn count_judged(&self, _: u32, _: limit::Kind, _: Judgement) {}
    fn count_bytes(&self, _: u32, _: u64) {}
}

struct Word(u64);

impl Tat for Word {
    fn load(&self) -> u64 {
        self.0
    }
    fn exchange(&self, _: u64, _: u64) -> Result<(), u64> {
        Ok(())
    }
    fn add(&self, _: u64) {}
}

struct Source(u64);

impl Known for Source {
    type Tat = Word;
    fn tat(&self, _: limit::Kind) -> Word {
        Word(self.0 / 2 * 1000)
    }
    fn count(&self, _: bool, _: bool) {}
}

static LIMITS: Limits = Limits {
    rates: [Rate {
        interval: 1,
        depth: 1000,
        batch: 10,
        flags: 0,
    }; 5],
    mask_v6: EVERY_BIT,
    mask_v4: EVERY_BIT,
};

const EVERY_BIT: Address = Address {
    high: u64::MAX,
    low: u64::MAX,
};

impl Tables for Maps {
    fn hash_keys(&self) -> Option<&HashKeys> {
        Some(&FIXED.keys)
    }
    fn vips(&self) -> Option<&VipTable> {
        Some(&FIXED.vips)
    }
    fn slots(&self, vip: u32) -> Option<&SlotTable> {
        FIXED.slots.get(vip as usize).map(Box::as_ref)
    }
    fn backend(&self, id: u16) -> Option<&Backend> {
        FIXED.backends.get(usize::from(id))
    }
    fn has_port(&self, _: u32) -> bool {
        false
    }
    fn interface(&self, _: u32) -> Option<&Interface> {
        Some(&INTERFACE)
    }
    // Locally administered sources of one kind are peers'.
    fn is_peer(&self, mac: &[u8; 8]) -> bool {
        mac[0] & 3 == 2
    }
    fn fragment(&self, key: &FragmentKey) -> Option<u16> {
        self.fragments.borrow().get(key).copied()
    }
    fn pin_fragment(&self, key: &FragmentKey, backend: u16) {
        self.fragments.borrow_mut().insert(*key, backend);
    }
    fn admits(&self, _what: Limited) -> bool {
        true
    }
    fn set_answer(&self, answer: &Answer) {
        self.answer.set(Some(*answer));
    }
    fn answer(&self) -> Option<Answer> {
        self.answer.get()
    }
    fn idle(&self, _: u32) -> Option<&Idle> {
        Some(&IDLE)
    }
    fn note(&self, noted: &Noted) {
        self.noted.set(Some(*noted));
    }
    fn noted(&self) -> Option<Noted> {
        self.noted.get()
    }
    // Some VIPs are blocked or listed in some way, each in another.
    fn blocks(&self, vip: u32) -> u32 {
        vip & 3
    }
    fn lists(&self, vip: u32) -> u32 {
        vip & 7
    }
    fn blocked(&self, key: &PrefixKey) -> u32 {
        u32::from(key.high.is_multiple_of(5))
    }
    fn listed(&self, key: &PrefixKey) -> u32 {
        (key.high % 3) as u32
    }
    fn count_access(&self, _: u32) {}
    fn count_forwarded(&self, _: u32, _: u16, _: u64, _: bool) {}
    fn count_drop(&self, _: u32, _: u32) {}
    fn count_outcome(&self, _: &Outcome) {}
}

/// Where the IP packet of a frame begins.
fn ip_offset(frame: &[u8]) -> usize {
    let is_tag = |at| matches!(frame.get(at..at + 2), Some([0x81, 0] | [0x88, 0xa8]));
    match (is_tag(12), is_tag(16)) {
        (false, _) => 14,
        (true, false) => 18,
        (true, true) => 22,
    }
}

/// Sends a frame through, and holds what became of it against what may.
pub(crate) fn judge(frame: &[u8]) {
    let mut buffer = vec![0; HEADROOM + frame.len() + 320];
    let Some(mut packet) = HostPacket::new(&mut buffer, frame) else {
        return;
    };
    let outcome = pipeline::run(&mut packet, &Maps::default(), 1);
    match outcome.verdict() {
        Verdict::Pass | Verdict::Drop => assert_eq!(packet.bytes(), frame),
        Verdict::Forward => {
            let kept = frame.get(ip_offset(frame)..).unwrap_or_default();
            assert!(packet.bytes().ends_with(kept));
        }
        Verdict::Tx => {}
    }
}
