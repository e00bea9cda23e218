//! A data plane whose writes fail from some one on.

use anyhow::bail;
use lb_common::{
    access::{List, PrefixKey},
    backend::Backend as Entry,
    flow::Flow,
    fragment::FragmentKey,
    limit::{Limits, OwnRate, Source, SourceKey},
    pin::{Idle, Kind, Pin},
    slot::SlotTable,
    tables::{Counters, Drops, Interface, Node as NodeEntry, PinCounters},
    vip::{VipEntry, VipTable},
};
use lb_userspace::{
    config::XdpMode,
    dataplane::{
        DataPlane, Judged, ListPlane, Observing, ProgramRuns, ReasonCount, Scan, Sizes,
        memory::Memory,
    },
    model::{
        attached::{AttachMode, Refused, Xdp},
        leaving::Leaving,
        slots::Since,
    },
};

/// A data plane that takes so many writes and then no more.
pub(crate) struct Failing {
    pub(crate) memory: Memory,
    pub(crate) writes: usize,
}

impl Failing {
    fn write(&mut self) -> anyhow::Result<&mut Memory> {
        let Some(left) = self.writes.checked_sub(1) else {
            bail!("no room");
        };
        self.writes = left;
        Ok(&mut self.memory)
    }
}

impl Observing for Failing {}

impl DataPlane for Failing {
    fn set_node(&mut self, node: &NodeEntry) -> anyhow::Result<()> {
        self.write()?.set_node(node)
    }
    fn set_backend(&mut self, id: u16, backend: &Entry) -> anyhow::Result<()> {
        self.write()?.set_backend(id, backend)
    }
    fn set_table(&mut self, vip: u32, table: &SlotTable) -> anyhow::Result<()> {
        self.write()?.set_table(vip, table)
    }
    fn clear_table(&mut self, vip: u32) -> anyhow::Result<()> {
        self.write()?.clear_table(vip)
    }
    fn set_vips(&mut self, vips: &VipTable) -> anyhow::Result<()> {
        self.write()?.set_vips(vips)
    }
    fn add_port(&mut self, ifindex: u32) -> anyhow::Result<()> {
        self.write()?.add_port(ifindex)
    }
    fn backends(&self) -> anyhow::Result<Vec<(u16, Entry)>> {
        self.memory.backends()
    }
    fn vips(&self) -> anyhow::Result<Vec<VipEntry>> {
        self.memory.vips()
    }

    fn vip_counters(&self, vip: u32) -> anyhow::Result<Counters> {
        self.memory.vip_counters(vip)
    }
    fn table(&self, vip: u32) -> anyhow::Result<Option<Box<SlotTable>>> {
        self.memory.table(vip)
    }
    fn set_since(&mut self, vip: u32, since: Option<&Since>) -> anyhow::Result<()> {
        self.memory.set_since(vip, since)
    }
    fn since(&self, vip: u32) -> anyhow::Result<Option<Box<Since>>> {
        self.memory.since(vip)
    }
    fn set_leaving(&mut self, leaving: Option<&Leaving>) -> anyhow::Result<()> {
        self.memory.set_leaving(leaving)
    }
    fn leaving(&self) -> anyhow::Result<Option<Box<Leaving>>> {
        self.memory.leaving()
    }
    fn set_idle(&mut self, vip: u32, idle: &Idle) -> anyhow::Result<()> {
        self.write()?.set_idle(vip, idle)
    }
    fn scan(&self) -> anyhow::Result<Scan> {
        self.memory.scan()
    }
    fn pin(&self, kind: Kind, flow: &Flow) -> anyhow::Result<Option<Pin>> {
        DataPlane::pin(&self.memory, kind, flow)
    }
    fn remove_pin(&mut self, kind: Kind, flow: &Flow) -> anyhow::Result<()> {
        self.memory.remove_pin(kind, flow)
    }
    fn remove_fragment(&mut self, key: &FragmentKey) -> anyhow::Result<()> {
        self.memory.remove_fragment(key)
    }
    fn set_block(&mut self, key: &PrefixKey) -> anyhow::Result<()> {
        self.write()?.set_block(key)
    }
    fn clear_block(&mut self, key: &PrefixKey) -> anyhow::Result<()> {
        self.write()?.clear_block(key)
    }
    fn block_keys(&self) -> anyhow::Result<Vec<PrefixKey>> {
        self.memory.block_keys()
    }
    fn block_scopes(&self) -> anyhow::Result<Vec<(u32, u32)>> {
        self.memory.block_scopes()
    }
    fn set_block_scopes(&mut self, vip: u32, scopes: u32) -> anyhow::Result<()> {
        self.write()?.set_block_scopes(vip, scopes)
    }
    fn list_plane(&self) -> anyhow::Result<Box<dyn ListPlane>> {
        self.memory.list_plane()
    }
    fn access_counter(&self, vip: u32, list: List) -> anyhow::Result<u64> {
        self.memory.access_counter(vip, list)
    }
    fn keep_marks(&mut self) -> anyhow::Result<bool> {
        self.write()?.keep_marks()
    }
    fn are_marks_kept(&self) -> bool {
        self.memory.are_marks_kept()
    }
    fn pin_counters(&self, kind: Kind) -> anyhow::Result<PinCounters> {
        self.memory.pin_counters(kind)
    }
    fn cpus(&self) -> usize {
        self.memory.cpus()
    }
    fn sizes(&self) -> Sizes {
        self.memory.sizes()
    }
    fn set_limits(&mut self, vip: u32, limits: &Limits) -> anyhow::Result<()> {
        self.write()?.set_limits(vip, limits)
    }
    fn clear_limits(&mut self, vip: u32) -> anyhow::Result<()> {
        self.write()?.clear_limits(vip)
    }
    fn source(&self, key: &SourceKey) -> anyhow::Result<Option<Source>> {
        DataPlane::source(&self.memory, key)
    }
    fn set_own_rates(
        &mut self,
        key: &SourceKey,
        packets: OwnRate,
        connections: OwnRate,
    ) -> anyhow::Result<()> {
        self.write()?.set_own_rates(key, packets, connections)
    }
    fn own_rate_keys(&self) -> anyhow::Result<Vec<SourceKey>> {
        self.memory.own_rate_keys()
    }
    fn judged(&self, vip: u32) -> anyhow::Result<Judged> {
        self.memory.judged(vip)
    }
    fn scan_sources(&self) -> anyhow::Result<Scan<(SourceKey, Source)>> {
        self.memory.scan_sources()
    }
    fn now_ns(&self) -> u64 {
        DataPlane::now_ns(&self.memory)
    }
    fn clear_interface(&mut self, ifindex: u32) -> anyhow::Result<()> {
        self.write()?.clear_interface(ifindex)
    }
    fn interfaces(&self) -> anyhow::Result<Vec<u32>> {
        self.memory.interfaces()
    }
    fn set_peer(&mut self, mac: [u8; 6], is_one: bool) -> anyhow::Result<()> {
        self.write()?.set_peer(mac, is_one)
    }
    fn peers(&self) -> anyhow::Result<Vec<[u8; 6]>> {
        self.memory.peers()
    }
    fn attach(
        &mut self,
        interface: &str,
        mode: XdpMode,
        there: Option<Xdp>,
    ) -> Result<AttachMode, Refused> {
        self.memory.attach(interface, mode, there)
    }
    fn take_off(&mut self, interface: &str) -> anyhow::Result<()> {
        self.memory.take_off(interface)
    }
    fn program_id(&self) -> anyhow::Result<u32> {
        self.memory.program_id()
    }
    fn set_interface(&mut self, ifindex: u32, interface: &Interface) -> anyhow::Result<()> {
        self.write()?.set_interface(ifindex, interface)
    }
    fn backend_counters(&self, id: u16) -> anyhow::Result<Counters> {
        self.memory.backend_counters(id)
    }
    fn vip_drops(&self, vip: u32) -> anyhow::Result<Drops> {
        self.memory.vip_drops(vip)
    }
    fn clear_vip_counters(&mut self, vip: u32) -> anyhow::Result<()> {
        self.write()?.clear_vip_counters(vip)
    }
    fn clear_backend_counters(&mut self, id: u16) -> anyhow::Result<()> {
        self.write()?.clear_backend_counters(id)
    }
    fn inherit_counters(&mut self, from: u16, to: u16) -> anyhow::Result<()> {
        self.write()?.inherit_counters(from, to)
    }
    fn program_runs(&self) -> anyhow::Result<Vec<ProgramRuns>> {
        self.memory.program_runs()
    }
    fn reason_counters(&self) -> anyhow::Result<Vec<ReasonCount>> {
        self.memory.reason_counters()
    }
}
