//! The maps of rate limits, and the pipeline's view of them.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, HashMap, PerCpuArray},
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    macros::btf_map,
};
use lb_common::{
    gcra::Ticks,
    limit::{
        Judgement, Kind, Known, LimitTables, Limits, MAX_OWN_RATES, OwnRates, Share, Source,
        SourceKey, Tat, Totals,
        source::{self, Places, SETS, SourceBlock, WAYS},
    },
    tables::Tables as _,
    vip::MAX_VIPS,
};

use crate::maps::{KernelTables, LIVE, TRACE};

/// The limits of each VIP, by the VIP's id.
#[btf_map]
pub(crate) static LIMITS: Array<Limits, { MAX_VIPS }> = Array::new();

/// The TATs of limits in total, by the VIP's id.
#[btf_map]
pub(crate) static LIMIT_TOTALS: Array<Totals, { MAX_VIPS }> = Array::new();

/// Each CPU's credit and counts, by the VIP's id.
#[btf_map]
pub(crate) static LIMIT_SHARES: PerCpuArray<Share, { MAX_VIPS }> = PerCpuArray::new();

/// The sources of VIPs that limit them. User space sets how many blocks there are. What can be mapped into memory begins with a page, so
/// that each place is one line of cache.
#[btf_map]
pub(crate) static SOURCE_BLOCKS: Array<SourceBlock, 1024, { BPF_F_MMAPABLE as usize }> =
    Array::new();

/// How many sets are in [`SOURCE_BLOCKS`]. Set while loading. Not 0 before: the compiler takes a constant that it needs, such as the key of a
/// lookup, for the same word, and would have it set too.
#[unsafe(no_mangle)]
static SOURCE_SETS: Global<u32> = Global::new(u32::MAX);

/// Sources that have limits of their own.
#[btf_map]
pub(crate) static OWN_RATES: HashMap<SourceKey, OwnRates, { MAX_OWN_RATES }> = HashMap::new();

/// A TAT in a map: in a value that stays where it is while this packet is judged.
pub(crate) struct MapTat(*mut Ticks);

impl Tat for MapTat {
    #[inline(always)]
    fn load(&self) -> Ticks {
        // SAFETY: the pointer is to an aligned word of a map's value; BPF has no atomic load, and this is one.
        unsafe { self.0.read_volatile() }
    }

    #[inline(always)]
    fn exchange(&self, seen: Ticks, next: Ticks) -> Result<(), Ticks> {
        if TRACE.load() == LIVE {
            return Ok(());
        }
        // SAFETY: as above; other CPUs change the word by atomics alone.
        let (found, is_changed) = unsafe {
            atomic_cxchg::<_, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                self.0, seen, next,
            )
        };
        if is_changed { Ok(()) } else { Err(found) }
    }

    #[inline(always)]
    fn add(&self, cost: Ticks) {
        if TRACE.load() == LIVE {
            return;
        }
        // SAFETY: as above.
        let _before = unsafe { atomic_xadd::<_, _, { AtomicOrdering::SeqCst }>(self.0, cost) };
    }
}

/// A source in the map.
pub(crate) struct MapSource(*mut Source);

impl Known for MapSource {
    type Tat = MapTat;

    #[inline(always)]
    fn tat(&self, kind: Kind) -> MapTat {
        // SAFETY: the pointer is to a place in the map. If another source takes it meanwhile, what is written here counts for that
        // one: one packet.
        MapTat(unsafe {
            match kind {
                Kind::NewConnectionsPerSource => &raw mut (*self.0).connections_tat,
                _ => &raw mut (*self.0).packets_tat,
            }
        })
    }

    #[inline(always)]
    fn count(&self, is_syn: bool, is_over: bool) {
        if TRACE.load() != 0 {
            return;
        }
        // SAFETY: as above; two CPUs that count at the same time may lose a count, never more.
        unsafe {
            let source = self.0;
            (*source).packets = (*source).packets.wrapping_add(1);
            if is_syn {
                (*source).new_connections = (*source).new_connections.wrapping_add(1);
            }
            if is_over {
                (*source).over = (*source).over.wrapping_add(1);
            }
        }
    }
}

/// The places of a set, by the first of them.
struct MapSet(*mut Source);

impl MapSet {
    #[inline(always)]
    fn place(&self, way: usize) -> *mut Source {
        // SAFETY: a set has as many places, one after the other.
        unsafe { self.0.add(way & (WAYS - 1)) }
    }

    /// A function of its own, for a source that is known needs none of it.
    #[inline(never)]
    fn take(&self, tag: u64, key: &SourceKey, now: Ticks) -> Option<usize> {
        source::take(self, tag, key, now)
    }
}

impl Places for MapSet {
    #[inline(always)]
    fn tag(&self, way: usize) -> u64 {
        // SAFETY: the place is in the map, and the word is aligned: it is read whole.
        unsafe { (&raw const (*self.place(way)).tag).read_volatile() }
    }

    #[inline(always)]
    fn tats(&self, way: usize) -> [Ticks; 2] {
        let place = self.place(way);
        // SAFETY: as above.
        unsafe {
            [
                (&raw const (*place).packets_tat).read_volatile(),
                (&raw const (*place).connections_tat).read_volatile(),
            ]
        }
    }

    #[inline(always)]
    fn claim(&self, way: usize, seen: u64, tag: u64) -> Result<(), u64> {
        // SAFETY: as above; other CPUs change the word by the same exchange alone.
        let (found, is_changed) = unsafe {
            atomic_cxchg::<_, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                &raw mut (*self.place(way)).tag,
                seen,
                tag,
            )
        };
        if is_changed { Ok(()) } else { Err(found) }
    }

    #[inline(always)]
    fn begin(&self, way: usize, key: &SourceKey, now: Ticks) {
        let place = self.place(way);
        // SAFETY: as above. Another CPU that spends from the TATs in this moment loses what it spends: a packet. Readers hold the key against
        // the tag.
        unsafe {
            (*place).packets_tat = now;
            (*place).connections_tat = now;
            (*place).packets = 0;
            (*place).over = 0;
            (*place).new_connections = 0;
            (*place).vip = key.vip as u32;
            (*place).prefix = key.prefix;
        }
    }
}

impl LimitTables for KernelTables {
    type Tat = MapTat;
    type Known = MapSource;

    #[inline(always)]
    fn precise_ns(&self) -> u64 {
        // SAFETY: the helper takes nothing and only reads the clock.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn coarse_ns(&self) -> u64 {
        // SAFETY: as above.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn limits(&self, vip: u32) -> Option<&Limits> {
        LIMITS.get(vip)
    }

    #[inline(always)]
    fn source(&self, key: &SourceKey, now: Ticks) -> Option<MapSource> {
        let tag = key.tag(self.hash_keys()?);
        let set = source::set(tag, SOURCE_SETS.load()) as usize;
        let block = SOURCE_BLOCKS.get_ptr_mut((set / SETS) as u32)?;
        // SAFETY: a block has as many sets of as many places.
        let places = MapSet(unsafe { block.cast::<Source>().add((set % SETS) * WAYS) });
        if let Some(way) = source::find(&places, tag) {
            return Some(MapSource(places.place(way)));
        }
        if TRACE.load() == LIVE {
            return None;
        }
        let way = places.take(tag, key, now)?;
        Some(MapSource(places.place(way)))
    }

    #[inline(always)]
    fn own_rates(&self, key: &SourceKey) -> Option<&OwnRates> {
        // SAFETY: the daemon changes it, and a packet in that moment has the one interval with the other depth.
        unsafe { OWN_RATES.get(key) }
    }

    #[inline(always)]
    fn total(&self, vip: u32, kind: Kind) -> Option<MapTat> {
        let totals = LIMIT_TOTALS.get_ptr_mut(vip)?;
        // SAFETY: the pointer is to a value of the map, and every kind has a word in it.
        Some(MapTat(unsafe {
            (&raw mut (*totals).tats).cast::<Ticks>().add(kind as usize)
        }))
    }

    #[inline(always)]
    fn credit(&self, vip: u32, kind: Kind) -> Ticks {
        let Some(share) = LIMIT_SHARES.get_ptr_mut(vip) else {
            return 0;
        };
        // SAFETY: the value is this CPU's own, and the kind is one of a limit in total.
        unsafe {
            (&raw const (*share).credit)
                .cast::<Ticks>()
                .add(kind as usize)
                .read()
        }
    }

    #[inline(always)]
    fn set_credit(&self, vip: u32, kind: Kind, credit: Ticks) {
        if TRACE.load() == LIVE {
            return;
        }
        if let Some(share) = LIMIT_SHARES.get_ptr_mut(vip) {
            // SAFETY: as in `credit`.
            unsafe {
                (&raw mut (*share).credit)
                    .cast::<Ticks>()
                    .add(kind as usize)
                    .write(credit);
            }
        }
    }

    #[inline(always)]
    fn count_judged(&self, vip: u32, kind: Kind, judgement: Judgement) {
        if TRACE.load() != 0 {
            return;
        }
        if let Some(share) = LIMIT_SHARES.get_ptr_mut(vip) {
            let at = (kind as usize)
                .wrapping_mul(Judgement::ALL.len())
                .wrapping_add(judgement as usize);
            // SAFETY: the value is this CPU's own, and has a word for every kind and judgement.
            unsafe {
                let count = (&raw mut (*share).judged).cast::<u64>().add(at);
                *count = (*count).wrapping_add(1);
            }
        }
    }

    #[inline(always)]
    fn count_bytes(&self, vip: u32, bytes: u64) {
        if TRACE.load() != 0 {
            return;
        }
        if let Some(share) = LIMIT_SHARES.get_ptr_mut(vip) {
            // SAFETY: the value is this CPU's own.
            unsafe { (*share).bytes = (*share).bytes.wrapping_add(bytes) };
        }
    }
}
