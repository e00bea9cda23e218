//! The maps of rate limits, and the pipeline's view of them.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

use aya_ebpf::{
    btf_maps::{Array, LruHashMap, PerCpuArray},
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    macros::btf_map,
};
use lb_common::{
    gcra::Ticks,
    limit::{
        Judgement, Kind, Known, LimitTables, Limits, OwnRate, Share, Source, SourceKey, Tat, Totals,
    },
    vip::MAX_VIPS,
};

use crate::maps::{IF_ABSENT, KernelTables, LIVE, TRACE};

/// The limits of each VIP, by the VIP's id.
#[btf_map]
pub(crate) static LIMITS: Array<Limits, { MAX_VIPS }> = Array::new();

/// The TATs of limits in total, by the VIP's id.
#[btf_map]
pub(crate) static LIMIT_TOTALS: Array<Totals, { MAX_VIPS }> = Array::new();

/// Each CPU's credit and counts, by the VIP's id.
#[btf_map]
pub(crate) static LIMIT_SHARES: PerCpuArray<Share, { MAX_VIPS }> = PerCpuArray::new();

/// The sources of VIPs that limit them. User space sets how many fit.
#[btf_map]
pub(crate) static SOURCES: LruHashMap<SourceKey, Source, 65536> = LruHashMap::new();

/// What is known of a source that sends its first packet: nothing. From a map, since on the stack it would be a call of memset.
#[btf_map]
static NEW_SOURCE: Array<Source, 1> = Array::new();

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
        // SAFETY: the pointer is to a value of the map, of this type. If the source is evicted meanwhile, what is written
        // here counts for the one that takes its place: one packet.
        MapTat(unsafe {
            match kind {
                Kind::NewConnectionsPerSource => &raw mut (*self.0).connections_tat,
                _ => &raw mut (*self.0).packets_tat,
            }
        })
    }

    #[inline(always)]
    fn own(&self, kind: Kind) -> OwnRate {
        // SAFETY: as above; the daemon changes it, and a packet in that moment has the one interval with the other depth.
        unsafe {
            match kind {
                Kind::NewConnectionsPerSource => (*self.0).own_connections,
                _ => (*self.0).own_packets,
            }
        }
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
    fn source(&self, key: &SourceKey) -> Option<MapSource> {
        if let Some(source) = SOURCES.get_ptr_mut(key) {
            return Some(MapSource(source));
        }
        if TRACE.load() == LIVE {
            return None;
        }
        // Where another CPU was first, its entry is found below, as this one's own is.
        let _inserted = SOURCES.insert(key, NEW_SOURCE.get(0)?, IF_ABSENT);
        SOURCES.get_ptr_mut(key).map(MapSource)
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
