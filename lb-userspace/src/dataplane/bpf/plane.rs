//! What the rest of the daemon asks of the maps in the kernel.

use anyhow::Context as _;
use aya::{maps::MapError, util::nr_cpus};
use lb_common::{
    access::{List, PrefixKey},
    backend::Backend,
    flow::Flow,
    fragment::FragmentKey,
    gcra::ticks,
    limit::{Limits, OwnRate, OwnRates, Source, SourceKey},
    pin::{Idle, Kind, Pin},
    slot::SlotTable,
    tables::{Counters, Drops, Interface, Node, PinCounters},
    vip::{VipEntry, VipTable},
};
use rustix::time::{ClockId, clock_gettime};

use super::{
    BpfDataPlane, LEAVING_PIN, VIPS_PIN, attach, counters,
    inner::{ignore_absent, inner_map, read_pinned, remove_if_there},
    limits, lists, migrate, scan, tables,
    value::Value,
};
use crate::{
    config::XdpMode,
    dataplane::{
        DataPlane, Judged, ListPlane, ProgramRuns, ReasonCount, Scan, Sizes, peer_key, peer_of,
    },
    model::{
        attached::{AttachMode, Refused, Xdp},
        leaving::Leaving,
        slots::{Since, Slots},
    },
};

impl DataPlane for BpfDataPlane {
    fn set_node(&mut self, node: &Node) -> anyhow::Result<()> {
        let before = self.object.node.get(&0, 0);
        let Value(before) = before.context("reading the node's settings")?;
        if before.hash_keys.keys != node.hash_keys.keys {
            // Flows are marked by their hash.
            self.set_marks(false)?;
        }
        self.object
            .node
            .set(0, Value::from_ref(node), 0)
            .context("writing the node's settings")?;
        self.object.take_keys()?;
        self.observer
            .as_mut()
            .map_or(Ok(()), |observer| observer.take_keys())
    }

    fn set_backend(&mut self, id: u16, backend: &Backend) -> anyhow::Result<()> {
        let written = self
            .object
            .backends
            .set(u32::from(id), Value::from_ref(backend), 0);
        written.with_context(|| format!("writing backend {id}"))
    }

    fn set_table(&mut self, vip: u32, table: &SlotTable) -> anyhow::Result<()> {
        tables::swap(&mut self.object.tables, self.pins.as_ref(), vip, table)
    }

    fn set_tables(&mut self, tables: &[(u32, &Slots)]) -> Vec<anyhow::Result<()>> {
        tables::swap_all(&self.object.tables_fd, self.pins.as_ref(), tables)
    }

    fn table(&self, vip: u32) -> anyhow::Result<Option<Box<SlotTable>>> {
        match &self.pins {
            Some(pins) => read_pinned(&pins.tables().join(vip.to_string())),
            None => Ok(None),
        }
    }

    fn set_since(&mut self, vip: u32, since: Option<&Since>) -> anyhow::Result<()> {
        tables::note(self.pins.as_ref(), &tables::since_pin(vip), since)
    }

    fn since(&self, vip: u32) -> anyhow::Result<Option<Box<Since>>> {
        match &self.pins {
            Some(pins) => read_pinned(&pins.tables().join(tables::since_pin(vip))),
            None => Ok(None),
        }
    }

    fn set_leaving(&mut self, leaving: Option<&Leaving>) -> anyhow::Result<()> {
        tables::note(self.pins.as_ref(), LEAVING_PIN, leaving)
    }

    fn leaving(&self) -> anyhow::Result<Option<Box<Leaving>>> {
        match &self.pins {
            Some(pins) => read_pinned(&pins.tables().join(LEAVING_PIN)),
            None => Ok(None),
        }
    }

    fn set_idle(&mut self, vip: u32, idle: &Idle) -> anyhow::Result<()> {
        let set = self.object.idle.set(vip, Value::from_ref(idle), 0);
        set.with_context(|| format!("writing how long flows of VIP {vip} may be silent"))
    }

    fn clear_table(&mut self, vip: u32) -> anyhow::Result<()> {
        // The kernel's map of maps keeps the entry; it points to the one table that has no backend.
        let set = self.object.tables.set(vip, &self.empty_table, 0);
        set.with_context(|| format!("clearing the table of VIP {vip}"))?;
        match &self.pins {
            Some(pins) => {
                remove_if_there(&pins.tables().join(tables::since_pin(vip)))?;
                remove_if_there(&pins.tables().join(vip.to_string()))
            }
            None => Ok(()),
        }
    }

    fn set_vips(&mut self, vips: &VipTable) -> anyhow::Result<()> {
        let inner = inner_map(vips)?;
        self.object
            .vips
            .set(0, &inner, 0)
            .context("swapping the table of VIPs")?;
        tables::pin(self.pins.as_ref(), VIPS_PIN, |path| {
            inner.pin(path).context("pinning the table of VIPs")
        })
    }

    fn add_port(&mut self, ifindex: u32) -> anyhow::Result<()> {
        let added = self.object.ports.insert(ifindex, ifindex, None, 0);
        added.with_context(|| format!("letting frames leave by interface {ifindex}"))
    }

    fn set_interface(&mut self, ifindex: u32, interface: &Interface) -> anyhow::Result<()> {
        let set = self
            .object
            .interfaces
            .insert(ifindex, Value::from_ref(interface), 0);
        set.with_context(|| format!("writing interface {ifindex}"))
    }

    fn clear_interface(&mut self, ifindex: u32) -> anyhow::Result<()> {
        ignore_absent(self.object.interfaces.remove(&ifindex))
            .with_context(|| format!("forgetting interface {ifindex}"))
    }

    fn interfaces(&self) -> anyhow::Result<Vec<u32>> {
        let keys = self.object.interfaces.keys();
        keys.collect::<Result<_, _>>()
            .context("reading the interfaces")
    }

    fn set_peer(&mut self, mac: [u8; 6], is_one: bool) -> anyhow::Result<()> {
        let key = peer_key(mac);
        let set = if is_one {
            self.object.peers.insert(key, 1, 0)
        } else {
            ignore_absent(self.object.peers.remove(&key))
        };
        set.context("writing the fleet's MAC addresses")
    }

    fn peers(&self) -> anyhow::Result<Vec<[u8; 6]>> {
        let keys = self.object.peers.keys();
        keys.map(|key| Ok(peer_of(key?)))
            .collect::<Result<_, MapError>>()
            .context("reading the fleet's MAC addresses")
    }

    fn attach(
        &mut self,
        interface: &str,
        mode: XdpMode,
        there: Option<Xdp>,
    ) -> Result<AttachMode, Refused> {
        let failed = |error: anyhow::Error| Refused::Failed(format!("{error:#}"));
        let pin = self.link_pin(interface);
        if let (Some(pins), Some(pin)) = (&self.pins, &pin) {
            migrate::adopt_link(pins, pin).map_err(failed)?;
        }
        let carries = Some(there.map_or(0, |xdp| xdp.program));
        let program = self.current().map_err(failed)?;
        let attached = attach::attach(program, interface, mode, pin.as_deref(), carries)?;
        // A link that is kept stays as it is attached.
        attached
            .or(there.map(|xdp| xdp.mode))
            .ok_or_else(|| Refused::Failed(format!("it is not known how {interface} is attached")))
    }

    fn take_off(&mut self, interface: &str) -> anyhow::Result<()> {
        match self.link_pin(interface) {
            Some(pin) => remove_if_there(&pin),
            None => Ok(()),
        }
    }

    fn program_id(&self) -> anyhow::Result<u32> {
        self.object.program_id()
    }

    fn backends(&self) -> anyhow::Result<Vec<(u16, Backend)>> {
        let mut found = Vec::new();
        for id in 1..=u16::MAX {
            let Value(backend) = self
                .object
                .backends
                .get(&u32::from(id), 0)
                .context("reading the backends")?;
            if backend.mode != 0 {
                found.push((id, backend));
            }
        }
        Ok(found)
    }

    fn vips(&self) -> anyhow::Result<Vec<VipEntry>> {
        let Some(pins) = &self.pins else {
            return Ok(Vec::new());
        };
        let vips: Option<Box<VipTable>> = read_pinned(&pins.tables().join(VIPS_PIN))?;
        Ok(vips.iter().flat_map(|vips| vips.entries()).collect())
    }

    fn vip_counters(&self, vip: u32) -> anyhow::Result<Counters> {
        let counted = counters::counters(&self.object.vip_counters, vip);
        counted.context("reading a VIP's counters")
    }

    fn vip_drops(&self, vip: u32) -> anyhow::Result<Drops> {
        counters::drops(&self.object, vip)
    }

    fn clear_vip_counters(&mut self, vip: u32) -> anyhow::Result<()> {
        counters::clear_vip(&mut self.object, vip)
    }

    fn backend_counters(&self, id: u16) -> anyhow::Result<Counters> {
        let (counted, inherited) = (&self.object.backend_counters, &self.object.inherited);
        counters::backend(counted, inherited, id).context("reading a backend's counters")
    }

    fn clear_backend_counters(&mut self, id: u16) -> anyhow::Result<()> {
        counters::clear_backend(&mut self.object, id)
    }

    fn inherit_counters(&mut self, from: u16, to: u16) -> anyhow::Result<()> {
        counters::inherit(&mut self.object, from, to)
    }

    fn program_runs(&self) -> anyhow::Result<Vec<ProgramRuns>> {
        counters::runs(&self.object)
    }

    fn reason_counters(&self) -> anyhow::Result<Vec<ReasonCount>> {
        ReasonCount::all(|index| {
            let values = self
                .object
                .outcome_counters
                .get(&index, 0)
                .context("reading the reasons' counters")?;
            Ok(values
                .iter()
                .fold(0u64, |sum, value| sum.wrapping_add(*value)))
        })
    }

    fn scan(&self) -> anyhow::Result<Scan> {
        scan::scan(&self.object)
    }

    fn pin(&self, kind: Kind, flow: &Flow) -> anyhow::Result<Option<Pin>> {
        let Some(map) = self.object.pins.get(kind as usize) else {
            return Ok(None);
        };
        match map.get(Value::from_ref(flow), 0) {
            Ok(Value(pin)) => Ok(Some(pin)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).context("reading a pin"),
        }
    }

    fn remove_pin(&mut self, kind: Kind, flow: &Flow) -> anyhow::Result<()> {
        let map = self.object.pins.get_mut(kind as usize);
        ignore_absent(map.map_or(Ok(()), |map| map.remove(Value::from_ref(flow))))
            .context("removing a pin")
    }

    fn remove_fragment(&mut self, key: &FragmentKey) -> anyhow::Result<()> {
        ignore_absent(self.object.fragments.remove(Value::from_ref(key)))
            .context("letting a fragmented packet go")
    }

    fn keep_marks(&mut self) -> anyhow::Result<bool> {
        if !self.is_alone {
            return Ok(false);
        }
        for kind in [Kind::Proven, Kind::Old] {
            let map = self.object.pins.get(kind as usize);
            match map.and_then(|map| map.keys().next()) {
                None => {}
                Some(Ok(_)) => return Ok(false),
                Some(Err(error)) => return Err(error).context("looking for a pin"),
            }
        }
        self.set_marks(true)?;
        Ok(true)
    }

    fn are_marks_kept(&self) -> bool {
        self.are_marks_kept
    }

    fn pin_counters(&self, kind: Kind) -> anyhow::Result<PinCounters> {
        let values = self
            .object
            .pin_counters
            .get(&(kind as u32), 0)
            .context("reading the pins' counters")?;
        let sum = |sum: PinCounters, Value(value): &Value<PinCounters>| PinCounters {
            made: sum.made.wrapping_add(value.made),
            removed: sum.removed.wrapping_add(value.removed),
            failed: sum.failed.wrapping_add(value.failed),
            over_budget: sum.over_budget.wrapping_add(value.over_budget),
        };
        Ok(values.iter().fold(PinCounters::default(), sum))
    }

    fn set_block(&mut self, key: &PrefixKey) -> anyhow::Result<()> {
        lists::block(&mut self.object.access.blocks, key)
    }

    fn clear_block(&mut self, key: &PrefixKey) -> anyhow::Result<()> {
        lists::clear(&mut self.object.access.blocks, key)
    }

    fn block_keys(&self) -> anyhow::Result<Vec<PrefixKey>> {
        let all = lists::entries(&self.object.access.blocks)?;
        Ok(all.into_iter().map(|(key, _)| key).collect())
    }

    fn block_scopes(&self) -> anyhow::Result<Vec<(u32, u32)>> {
        lists::scopes(&self.object.access.block_scopes)
    }

    fn set_block_scopes(&mut self, vip: u32, scopes: u32) -> anyhow::Result<()> {
        let set = self.object.access.block_scopes.set(vip, scopes, 0);
        set.with_context(|| format!("writing what is blocked for VIP {vip}"))
    }

    fn list_plane(&self) -> anyhow::Result<Box<dyn ListPlane>> {
        Ok(Box::new(lists::Kernel::new(&self.object.access)?))
    }

    fn access_counter(&self, vip: u32, list: List) -> anyhow::Result<u64> {
        let values = self.object.access.counters.get(&list.counter(vip), 0);
        let values = values.context("reading the counters of access lists")?;
        Ok(values
            .iter()
            .fold(0, |sum: u64, count| sum.wrapping_add(*count)))
    }

    fn cpus(&self) -> usize {
        // Where the kernel does not say, the batches of a large machine are right on any other.
        nr_cpus().unwrap_or(256)
    }

    fn sizes(&self) -> Sizes {
        self.object.sizes
    }

    fn set_limits(&mut self, vip: u32, limits: &Limits) -> anyhow::Result<()> {
        limits::set(&mut self.object, vip, limits)?;
        let now = ticks(self.now_ns());
        limits::forgive(&mut self.object, vip, limits, now)
    }

    fn clear_limits(&mut self, vip: u32) -> anyhow::Result<()> {
        limits::clear(&mut self.object, vip)
    }

    fn source(&self, key: &SourceKey) -> anyhow::Result<Option<Source>> {
        limits::source(&self.object, &self.object.hash_keys()?, key)
    }

    fn set_own_rates(
        &mut self,
        key: &SourceKey,
        packets: OwnRate,
        connections: OwnRate,
    ) -> anyhow::Result<()> {
        let rates = OwnRates {
            packets,
            connections,
        };
        limits::set_own_rates(&mut self.object, key, &rates)
    }

    fn own_rate_keys(&self) -> anyhow::Result<Vec<SourceKey>> {
        limits::own_rate_keys(&self.object)
    }

    fn judged(&self, vip: u32) -> anyhow::Result<Judged> {
        limits::judged(&self.object, vip)
    }

    fn scan_sources(&self) -> anyhow::Result<Scan<(SourceKey, Source)>> {
        scan::sources(&self.object)
    }

    fn now_ns(&self) -> u64 {
        // The clock of `bpf_ktime_get_coarse_ns`, and precise: the packets' may be a tick behind.
        let now = clock_gettime(ClockId::Monotonic);
        let ns = |value: i64| u64::try_from(value).unwrap_or_default();
        ns(now.tv_sec)
            .saturating_mul(1_000_000_000)
            .saturating_add(ns(now.tv_nsec))
    }
}
