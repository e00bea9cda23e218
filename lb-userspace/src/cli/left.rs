//! `weir status` without a daemon: what the pins tell.

use std::{fmt::Write as _, net::IpAddr, path::Path};

use comfy_table::Cell;
use lb_common::wire::protocol;
use serde::Serialize;

use super::table::{bytes, count, number, share, table};
use crate::{
    api::{InterfaceState, InterfaceStatus, ReasonStatus, SlotsStatus},
    config::{ForwardMode, Protocol},
    dataplane::bpf::{Left, LeftBackend, LeftVip},
    interfaces,
    model::{forward_of, ip_address, mac_text, slots::Slots},
};

/// What is known without a daemon, under the field names of [`crate::api::Status`]. Names, weights and health are not.
#[derive(Debug, Serialize)]
pub(super) struct LeftStatus {
    ready: bool,
    interfaces: Vec<InterfaceStatus>,
    vips: Vec<VipLeft>,
    reasons: Vec<ReasonStatus>,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct VipLeft {
    id: u32,
    address: IpAddr,
    port: u16,
    protocol: Option<Protocol>,
    packets: u64,
    bytes: u64,
    new_connections: u64,
    slots: SlotsStatus,
    backends: Vec<BackendLeft>,
}

#[derive(Debug, Serialize)]
struct BackendLeft {
    id: u16,
    address: IpAddr,
    forward: Option<ForwardMode>,
    slots: u32,
    alive: bool,
    resolved: bool,
    mac: Option<String>,
    mtu: u16,
    packets: u64,
    bytes: u64,
    new_connections: u64,
}

impl LeftStatus {
    /// Reads the pins below `pin_path`; `away` says why the daemon cannot be asked.
    pub(super) async fn read(pin_path: &Path, away: &str) -> anyhow::Result<Self> {
        let left = Left::read(pin_path)?;
        let mut stand = Vec::new();
        for name in &left.interfaces {
            // Without an interface or a program there is nothing to tell: it is not attached.
            let attached = interfaces::attached(name).await.ok();
            stand.push(InterfaceStatus {
                name: name.clone(),
                state: if attached.is_some() {
                    InterfaceState::Attached
                } else {
                    InterfaceState::Absent
                },
                ifindex: attached.map(|(ifindex, _)| ifindex),
                mode: attached.map(|(_, mode)| mode),
                foreign: None,
            });
        }
        Ok(Self {
            ready: false,
            interfaces: stand,
            vips: left
                .vips
                .iter()
                .map(|vip| VipLeft::new(vip, &left.backends))
                .collect(),
            reasons: ReasonStatus::all(&left.reasons),
            problems: vec![format!(
                "no daemon runs ({away}): this is read from the pins at {}, which go on forwarding as they are",
                pin_path.display()
            )],
        })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        for problem in &self.problems {
            writeln!(text, "{problem}").ok();
        }
        for interface in &self.interfaces {
            let mode = interface.mode.map_or("not attached", |mode| mode.as_str());
            writeln!(text, "interface {} ({mode})", interface.name).ok();
        }
        for vip in &self.vips {
            let protocol = vip.protocol.map_or("?", Protocol::as_str);
            writeln!(
                text,
                "\nVIP {} port {} {protocol}\n  {} packets, {}, {} new connections",
                vip.address,
                vip.port,
                count(vip.packets),
                bytes(vip.bytes),
                count(vip.new_connections)
            )
            .ok();
            let header = ["BACKEND", "MODE", "MAC", "SLOTS", "PACKETS", "BYTES", "NEW"];
            let mut shown = table(&header, 3);
            for backend in &vip.backends {
                let alive = if backend.alive { "" } else { " (dead)" };
                shown.add_row([
                    Cell::new(format!("{}{alive}", backend.address)),
                    Cell::new(backend.forward.map_or("?", ForwardMode::as_str)),
                    Cell::new(backend.mac.as_deref().unwrap_or("unresolved")),
                    number(share(backend.slots)),
                    number(count(backend.packets)),
                    number(bytes(backend.bytes)),
                    number(count(backend.new_connections)),
                ]);
            }
            writeln!(text, "{}", shown.trim_fmt()).ok();
        }
        text
    }
}

impl VipLeft {
    fn new(vip: &LeftVip, backends: &[LeftBackend]) -> Self {
        let id = vip.entry.id;
        let slots = vip
            .table
            .as_ref()
            .map(|table| Slots::adopt(table.clone(), None, 0));
        let own = backends
            .iter()
            .filter(|backend| u32::from(backend.entry.vip) == id);
        let backends = own.map(|backend| {
            let slots = vip.table.iter().flat_map(|table| &table.slots);
            BackendLeft::new(
                backend,
                slots.filter(|slot| slot.current == backend.id).count() as u32,
            )
        });
        Self {
            id,
            address: ip_address(vip.entry.key.address),
            port: u16::from_be_bytes(vip.entry.key.port),
            protocol: match vip.entry.key.protocol {
                protocol::TCP => Some(Protocol::Tcp),
                protocol::UDP => Some(Protocol::Udp),
                _ => None,
            },
            packets: vip.counters.packets,
            bytes: vip.counters.bytes,
            new_connections: vip.counters.new_connections,
            slots: slots.map(|slots| slots.census().into()).unwrap_or_default(),
            backends: backends.collect(),
        }
    }
}

impl BackendLeft {
    fn new(backend: &LeftBackend, slots: u32) -> Self {
        let entry = &backend.entry;
        let resolved = entry.is_resolved();
        Self {
            id: backend.id,
            address: ip_address(entry.address),
            forward: forward_of(entry.mode),
            slots,
            alive: entry.is_alive(),
            resolved,
            mac: resolved.then(|| mac_text(entry.mac_destination)),
            mtu: entry.mtu,
            packets: backend.counters.packets,
            bytes: backend.counters.bytes,
            new_connections: backend.counters.new_connections,
        }
    }
}
