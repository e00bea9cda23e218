//! The maps, and the pipeline's view of them.
//!
//! All lookups on the common way are of arrays, which the kernel turns into a few inline instructions. User space
//! finds the maps by these names and checks their key and value sizes.

use core::{
    cell::UnsafeCell,
    intrinsics::{AtomicOrdering, atomic_or},
};

use aya_ebpf::{
    Global,
    btf_maps::{
        Array, ArrayOfMaps, DevMapHash, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray,
        lpm_trie::Key,
    },
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    macros::btf_map,
};
use lb_common::{
    access::{COUNTERS, MAX_BLOCKS, MAX_LISTED, PrefixKey},
    backend::Backend,
    flow::{Flow, HASH_KEYS as HASH_KEYS_LEN, HashKeys},
    fragment::{FragmentKey, MAX_FRAGMENTED},
    gcra::{Limit, Ticks, ticks},
    marks::{Mark, Marks},
    noted::Noted,
    pin::{Idle, Inserted, Kind, Pin, Pins},
    pipeline::Outcome,
    slot::SlotTable,
    tables::{
        Answer, Counters, Drops, Interface, Limited, MAX_PEERS, MAX_PORTS, MAX_REASONS, Node,
        PinCounters, REASON_COUNTERS, Tables, Traced, step,
    },
    vip::{MAX_VIPS, VipTable},
};

/// Set while loading a program that only traces: it tells what became of each packet in `TRACED` and counts
/// nothing. A constant to the verifier, which cuts out the other branch.
#[unsafe(no_mangle)]
pub(crate) static TRACE: Global<u8> = Global::new(0);

/// [`TRACE`] against the maps of a running daemon: nothing at all is written to them.
pub(crate) const LIVE: u8 = 2;

/// The keys of the flow hash, as [`NODE`] has them: all packets need them, and to find a variable takes no lookup. User space writes it.
#[unsafe(no_mangle)]
static HASH_KEYS: Keys = Keys(UnsafeCell::new(HashKeys {
    keys: [0; HASH_KEYS_LEN],
}));

/// Keys that user space changes.
#[repr(transparent)]
struct Keys(UnsafeCell<HashKeys>);

// SAFETY: programs only read it, and user space writes it as it does the values of maps.
unsafe impl Sync for Keys {}

/// Settings of the node.
#[btf_map]
pub(crate) static NODE: Array<Node, 1> = Array::new();

/// The table of all VIPs, in one inner map that is swapped whole.
#[btf_map]
pub(crate) static VIP_TABLE: ArrayOfMaps<Array<VipTable, 1>, 1> = ArrayOfMaps::new();

/// The lookup table of each VIP, by the VIP's id; each an inner map that is swapped whole.
#[btf_map]
pub(crate) static TABLES: ArrayOfMaps<Array<SlotTable, 1>, { MAX_VIPS }> = ArrayOfMaps::new();

/// The backends, by id.
#[btf_map]
pub(crate) static BACKENDS: Array<Backend, 65536> = Array::new();

/// What was forwarded, by the VIP's id.
#[btf_map]
pub(crate) static VIP_COUNTERS: PerCpuArray<Counters, { MAX_VIPS }> = PerCpuArray::new();

/// What was dropped, by the VIP's id.
#[btf_map]
pub(crate) static VIP_DROPS: PerCpuArray<Drops, { MAX_VIPS }> = PerCpuArray::new();

/// What was forwarded, by the backend's id.
#[btf_map]
pub(crate) static BACKEND_COUNTERS: PerCpuArray<Counters, 65536> = PerCpuArray::new();

/// Frames, by the reason's number; those that left by another interface, by it plus [`MAX_REASONS`].
#[btf_map]
pub(crate) static OUTCOME_COUNTERS: PerCpuArray<u64, { REASON_COUNTERS }> = PerCpuArray::new();

/// The interfaces that frames may leave by, by ifindex.
#[btf_map]
pub(crate) static PORTS: DevMapHash<{ MAX_PORTS }> = DevMapHash::new();

/// The later steps of the pipeline, by [`step`].
#[btf_map]
pub(crate) static STEPS: ProgramArray<{ step::COUNT }> = ProgramArray::new();

/// Facts about the interfaces, by ifindex.
#[btf_map]
pub(crate) static INTERFACES: HashMap<u32, Interface, { MAX_PORTS }> = HashMap::new();

/// The other nodes of the fleet, by their MAC addresses and two zeros.
#[btf_map]
pub(crate) static PEERS: HashMap<[u8; 8], u32, { MAX_PEERS }> = HashMap::new();

/// The backend that the fragments of a packet follow.
#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, u32, { MAX_FRAGMENTED }> = LruHashMap::new();

/// How long the flows of each VIP may be silent, by the VIP's id.
#[btf_map]
pub(crate) static IDLE: Array<Idle, { MAX_VIPS }> = Array::new();

/// What a [`PrefixKey`] has after its number of bits.
type Prefix = [u32; 5];

/// Prefixes that commands block.
#[btf_map]
pub(crate) static BLOCKS: LpmTrie<Prefix, u32, MAX_BLOCKS> = LpmTrie::new();

/// Where blocked prefixes concern a VIP ([`lb_common::access::blocks`]), by the VIP's id.
#[btf_map]
pub(crate) static BLOCK_SCOPES: Array<u32, { MAX_VIPS }> = Array::new();

/// Prefixes of the configuration's access lists.
#[btf_map]
pub(crate) static LISTS: LpmTrie<Prefix, u32, MAX_LISTED> = LpmTrie::new();

/// Which lists concern a VIP ([`lb_common::access::lists`]), by the VIP's id.
#[btf_map]
pub(crate) static LIST_SCOPES: Array<u32, { MAX_VIPS }> = Array::new();

/// Packets that access lists decided on, by [`lb_common::access::List::counter`].
#[btf_map]
pub(crate) static ACCESS_COUNTERS: PerCpuArray<u64, COUNTERS> = PerCpuArray::new();

/// Pins made by SYNs ([`Kind::Syn`]). User space sets how many fit, here and in the next two.
#[btf_map]
pub(crate) static PINS_SYN: LruHashMap<Flow, Pin, 65536> = LruHashMap::new();

/// Pins of flows whose handshake is done ([`Kind::Proven`]).
#[btf_map]
pub(crate) static PINS_PROVEN: LruHashMap<Flow, Pin, 65536> = LruHashMap::new();

/// Pins of flows kept on the owner before ([`Kind::Old`]).
#[btf_map]
pub(crate) static PINS_OLD: LruHashMap<Flow, Pin, 65536> = LruHashMap::new();

/// Which flows may have a pin in the last two. Each daemon begins with none that are kept.
#[btf_map]
pub(crate) static MARKS: Array<Marks, 1> = Array::new();

/// What became of pins, by [`Kind`].
#[btf_map]
pub(crate) static PIN_COUNTERS: PerCpuArray<PinCounters, { Kind::ALL.len() }> = PerCpuArray::new();

/// The packet at hand: from one step to the next, on one CPU.
#[btf_map]
static NOTED: PerCpuArray<Noted, 1> = PerCpuArray::new();

/// Theoretical arrival times of the node's own limits ([`Limited`]); each CPU has its own.
#[btf_map]
pub(crate) static LIMIT_TATS: PerCpuArray<Ticks, { Limited::COUNT }> = PerCpuArray::new();

/// How the packet at hand is to be answered: from one step to the next, on one CPU.
#[btf_map]
static ANSWER: PerCpuArray<Answer, 1> = PerCpuArray::new();

/// What became of the last packet, where [`TRACE`] asks for it.
#[btf_map]
pub(crate) static TRACED: Array<Traced, 1> = Array::new();

/// The maps of the running program.
pub(crate) struct KernelTables;

/// Runs one expression on the map of a kind: each place sees one map, which lets the kernel inline its lookups.
macro_rules! on_pins {
    ($kind:expr, $map:ident => $expression:expr) => {
        match $kind {
            Kind::Syn => {
                let $map = &PINS_SYN;
                $expression
            }
            Kind::Proven => {
                let $map = &PINS_PROVEN;
                $expression
            }
            Kind::Old => {
                let $map = &PINS_OLD;
                $expression
            }
        }
    };
}

/// `EEXIST` of asm-generic/errno-base.h, as a helper returns it.
const EXISTS: i32 = -17;

/// `BPF_NOEXIST` of linux/bpf.h.
const IF_ABSENT: u64 = 1;

impl KernelTables {
    /// Counts what became of a pin.
    #[inline(always)]
    fn count_pin(kind: Kind, count: impl FnOnce(&mut PinCounters)) {
        if TRACE.load() != 0 {
            return;
        }
        if let Some(counters) = PIN_COUNTERS.get_ptr_mut(kind as u32) {
            // SAFETY: the value is this CPU's own, and nothing else on it runs meanwhile.
            count(unsafe { &mut *counters });
        }
    }
}

impl Pins for KernelTables {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: the helper takes nothing and only reads the clock.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn is_marked(&self, hash: u32) -> bool {
        MARKS.get(0).is_none_or(|marks| marks.may_hold(hash))
    }

    #[inline(always)]
    fn find(&self, kind: Kind, flow: &Flow) -> Option<Pin> {
        // SAFETY: the value is copied at once. An entry that is evicted and reused in that moment is another flow's:
        // the kernel evicts what was not looked up lately, and this one just was.
        on_pins!(kind, map => unsafe { map.get(flow) }.copied())
    }

    #[inline(always)]
    fn refresh(&self, kind: Kind, flow: &Flow, pin: &Pin) {
        if TRACE.load() == LIVE {
            return;
        }
        if let Some(held) = on_pins!(kind, map => map.get_ptr_mut(flow)) {
            // SAFETY: the pointer is to a value of the map, of this type; other CPUs that write it write the same flow's.
            unsafe { *held = *pin };
        }
    }

    #[inline(always)]
    fn insert(&self, kind: Kind, (flow, hash): (&Flow, u32), pin: &Pin, now_ns: u64) -> Inserted {
        if TRACE.load() == LIVE {
            return Inserted::New;
        }
        if matches!(kind, Kind::Old) && !Self::admits_pin(now_ns) {
            Self::count_pin(kind, |count| count.over_budget += 1);
            return Inserted::Failed;
        }
        if !matches!(kind, Kind::Syn) {
            Self::mark(hash);
        }
        match on_pins!(kind, map => map.insert(flow, pin, IF_ABSENT)) {
            Ok(()) => {
                Self::count_pin(kind, |count| count.made += 1);
                Inserted::New
            }
            Err(EXISTS) => self
                .find(kind, flow)
                .map_or(Inserted::Failed, Inserted::Exists),
            Err(_) => {
                Self::count_pin(kind, |count| count.failed += 1);
                Inserted::Failed
            }
        }
    }

    #[inline(always)]
    fn remove(&self, kind: Kind, flow: &Flow) {
        if TRACE.load() == LIVE {
            return;
        }
        if on_pins!(kind, map => map.remove(flow)).is_ok() {
            Self::count_pin(kind, |count| count.removed += 1);
        }
    }

    #[inline(always)]
    fn is_alive(&self, backend: u16) -> bool {
        BACKENDS
            .get(u32::from(backend))
            .is_some_and(Backend::is_alive)
    }
}

impl KernelTables {
    /// Marks the flow of a hash.
    #[inline(always)]
    fn mark(hash: u32) {
        let Some(marks) = MARKS.get_ptr_mut(0) else {
            return;
        };
        let mark = Mark::of(hash);
        // SAFETY: the index is below the number of words. Other CPUs change the word by this very operation alone, and user space
        // when no packet marks any flow.
        unsafe {
            let word = (&raw mut (*marks).words).cast::<u64>().add(mark.index);
            if word.read_volatile() & mark.bits != mark.bits {
                let _before = atomic_or::<_, _, { AtomicOrdering::SeqCst }>(word, mark.bits);
            }
        }
    }

    /// Whether this CPU may make one more pin of [`Kind::Old`].
    #[inline(always)]
    fn admits_pin(now_ns: u64) -> bool {
        let Some(node) = NODE.get(0) else {
            return false;
        };
        Self::spend(
            Limited::Pin,
            now_ns,
            node.pin_interval_ns,
            node.pin_tolerance_ns,
        )
    }

    /// Whether this CPU may do one more of what is limited.
    #[inline(always)]
    fn spend(what: Limited, now_ns: u64, interval_ns: u64, tolerance_ns: u64) -> bool {
        let Some(tat) = LIMIT_TATS.get_ptr_mut(what as u32) else {
            return false;
        };
        let limit = Limit {
            depth: ticks(tolerance_ns.wrapping_add(interval_ns)),
        };
        // SAFETY: the value is this CPU's own, and nothing else on it runs meanwhile.
        match limit.admit(unsafe { *tat }, ticks(now_ns), ticks(interval_ns)) {
            Some(next) => {
                // SAFETY: as above.
                unsafe { *tat = next };
                true
            }
            None => false,
        }
    }
}

impl Tables for KernelTables {
    #[inline(always)]
    fn hash_keys(&self) -> Option<&HashKeys> {
        // SAFETY: user space alone writes it, and a packet that sees some keys of the old and some of the new goes astray as all of
        // its flow's packets do in that moment.
        Some(unsafe { &*HASH_KEYS.0.get() })
    }

    #[inline(always)]
    fn vips(&self) -> Option<&VipTable> {
        VIP_TABLE.get_value(0, &0)
    }

    #[inline(always)]
    fn slots(&self, vip: u32) -> Option<&SlotTable> {
        TABLES.get_value(vip, &0)
    }

    #[inline(always)]
    fn backend(&self, id: u16) -> Option<&Backend> {
        BACKENDS.get(u32::from(id))
    }

    #[inline(always)]
    fn has_port(&self, ifindex: u32) -> bool {
        PORTS.get_ifindex(ifindex).is_some()
    }

    #[inline(always)]
    fn is_peer(&self, mac: &[u8; 8]) -> bool {
        PEERS.get_ptr(mac).is_some()
    }

    #[inline(always)]
    fn set_answer(&self, answer: &Answer) {
        if let Some(noted) = ANSWER.get_ptr_mut(0) {
            // SAFETY: the value is this CPU's own, and nothing else on it runs meanwhile.
            unsafe { *noted = *answer };
        }
    }

    #[inline(always)]
    fn answer(&self) -> Option<Answer> {
        ANSWER.get(0).copied()
    }

    #[inline(always)]
    fn idle(&self, vip: u32) -> Option<&Idle> {
        IDLE.get(vip)
    }

    #[inline(always)]
    fn note(&self, noted: &Noted) {
        if let Some(held) = NOTED.get_ptr_mut(0) {
            // SAFETY: the value is this CPU's own, and nothing else on it runs meanwhile.
            unsafe { *held = *noted };
        }
    }

    #[inline(always)]
    fn noted(&self) -> Option<Noted> {
        NOTED.get(0).copied()
    }

    #[inline(always)]
    fn blocks(&self, vip: u32) -> u32 {
        BLOCK_SCOPES.get(vip).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn lists(&self, vip: u32) -> u32 {
        LIST_SCOPES.get(vip).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn blocked(&self, key: &PrefixKey) -> u32 {
        BLOCKS.get(trie_key(key)).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn listed(&self, key: &PrefixKey) -> u32 {
        LISTS.get(trie_key(key)).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn count_access(&self, counter: u32) {
        if TRACE.load() != 0 {
            return;
        }
        if let Some(count) = ACCESS_COUNTERS.get_ptr_mut(counter) {
            // SAFETY: the value is this CPU's own, and nothing else on it runs meanwhile.
            unsafe { *count = (*count).wrapping_add(1) };
        }
    }

    #[inline(always)]
    fn count_forwarded(&self, vip: u32, backend: u16, bytes: u64, is_syn: bool) {
        if TRACE.load() != 0 {
            return;
        }
        if let Some(counters) = VIP_COUNTERS.get_ptr_mut(vip) {
            // SAFETY: the value is this CPU's own, and nothing else on it runs meanwhile.
            unsafe { (*counters).add(bytes, is_syn) };
        }
        if let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(u32::from(backend)) {
            // SAFETY: as above.
            unsafe { (*counters).add(bytes, is_syn) };
        }
    }

    #[inline(always)]
    fn interface(&self, ifindex: u32) -> Option<&Interface> {
        // SAFETY: an entry is rewritten only when the interface's MAC address changes, and removed when no packet comes by it any more.
        unsafe { INTERFACES.get(ifindex) }
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<u16> {
        // SAFETY: the value is copied at once; an entry that is reused meanwhile names another backend that lives.
        unsafe { FRAGMENTS.get(key).map(|backend| *backend as u16) }
    }

    #[inline(always)]
    fn pin_fragment(&self, key: &FragmentKey, backend: u16) {
        if TRACE.load() == LIVE {
            return;
        }
        // Without a pin the later fragments are orphans, which are counted: nothing more to do here.
        let _unpinned = FRAGMENTS.insert(key, u32::from(backend), 0);
    }

    #[inline(always)]
    fn admits(&self, what: Limited) -> bool {
        if TRACE.load() != 0 {
            return true;
        }
        let Some(node) = NODE.get(0) else {
            return false;
        };
        // SAFETY: the helper takes nothing and only reads the clock.
        let now = unsafe { bpf_ktime_get_ns() };
        Self::spend(what, now, node.icmp_interval_ns, node.icmp_tolerance_ns)
    }

    #[inline(always)]
    fn count_drop(&self, vip: u32, index: u32) {
        if TRACE.load() != 0 {
            return;
        }
        if let Some(drops) = VIP_DROPS.get_ptr_mut(vip) {
            // SAFETY: as in `count_forwarded`.
            unsafe { (*drops).add(index) };
        }
    }

    #[inline(always)]
    fn count_outcome(&self, outcome: &Outcome) {
        if TRACE.load() != 0 {
            if let Some(traced) = TRACED.get_ptr_mut(0) {
                // SAFETY: the map has this one entry, and one packet is traced at a time.
                unsafe { *traced = Traced::new(outcome) };
            }
            return;
        }
        let other_interface = if outcome.is_redirect {
            MAX_REASONS as u32
        } else {
            0
        };
        if let Some(count) = OUTCOME_COUNTERS.get_ptr_mut(outcome.reason as u32 + other_interface) {
            // SAFETY: the value is this CPU's own, and nothing else on it runs meanwhile.
            unsafe { *count = (*count).wrapping_add(1) };
        }
    }
}

/// A key as the tries take it. It stays where it is: a packed copy on the stack might lie across words.
#[inline(always)]
const fn trie_key(key: &PrefixKey) -> &Key<Prefix> {
    // SAFETY: both are 24 bytes without padding, the number of bits first, and a packed type needs no alignment.
    unsafe { &*core::ptr::from_ref(key).cast() }
}
