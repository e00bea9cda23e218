//! What the reconciler tells of the node.

use std::{net::IpAddr, time::Instant};

use lb_common::{
    access::{MAX_BLOCKS, MAX_LISTED},
    backend::Backend,
    fragment::MAX_FRAGMENTED,
    limit::Kind as LimitKind,
    pin::Kind,
    tables::Counters,
    vip::MAX_VIPS,
};

use super::{Reconciler, sweep::milliseconds};
use crate::{
    api::{
        AccessCount, AccessStatus, BackendStatus, DropStatus, HealthState, HealthStatus,
        LeavingStatus, LimitStatus, LimitsBasis, ListStatus, MapStatus, OverrideStatus, PinsStatus,
        ProgramStatus, ReasonStatus, Status, VipBasis, VipStatus,
    },
    config::{self, ForwardMode},
    dataplane::DataPlane,
    health::Check,
    model::{
        forward_of,
        ids::BACKEND_IDS,
        ip_address,
        listed::concerning,
        mac_text,
        overrides::Override,
        wanted::{WantedBackend, WantedVip},
    },
    neighbours::Problem,
};

impl<D: DataPlane> Reconciler<D> {
    /// How the node is.
    pub(super) fn status(&self) -> Status {
        let snapshot = self.snapshots.borrow();
        let own = [&self.failure, &self.lost, &self.unsaved];
        let mut problems: Vec<String> = own.into_iter().flatten().cloned().collect();
        problems.extend(self.origin.problems());
        problems.extend(self.fleet_status().and_then(|fleet| fleet.problem()));
        problems.extend(self.probe_path.problem());
        problems.extend(self.observers.problem().cloned());
        problems.extend(self.announce_problems());
        problems.extend(self.segments.problem());
        let kubernetes = self.cluster.status();
        problems.extend(kubernetes.iter().flat_map(|status| status.problems.clone()));
        problems.extend(self.desired.refused().iter().cloned());
        let interfaces = self.interfaces();
        problems.extend(
            interfaces
                .iter()
                .filter_map(|n| self.attachments.problem(n)),
        );
        problems.extend(self.desired.idle_overrides().map(|(name, _)| {
            format!(
                "{}: changed by command, but VIP {} has no such backend",
                name.backend, name.vip
            )
        }));
        problems.extend(self.idle_blocks());
        problems.extend(self.lists.progress().problem);
        problems.extend(self.refused_files.problems());
        // A peer that is silent sends nothing here either.
        let backends = self.watched_backends(&self.desired);
        problems.extend(
            snapshot
                .problems
                .iter()
                .filter(|(_, problem)| **problem != Problem::Local)
                .filter(|(address, _)| backends.contains(address))
                .map(|(address, problem)| format!("{address}: {problem}")),
        );
        let vips = self
            .wanted
            .iter()
            .flat_map(|wanted| &wanted.vips)
            .zip(&self.desired.config.vips)
            .zip(self.desired.backends());
        let vips = vips
            .map(|((vip, config), as_configured)| {
                let backends = vip.backends.iter().zip(as_configured);
                let backends = backends
                    .map(|(backend, configured)| {
                        let count = self.plane.backend_counters(backend.id);
                        let count = told(count, &mut problems);
                        let empty = self.is_empty(vip, backend);
                        self.backend_status(config, backend, empty, configured, count)
                    })
                    .collect();
                let leaving = self.leaving_of(vip).map(|(id, entry)| {
                    let count = told(self.plane.backend_counters(id), &mut problems);
                    self.leaving_status(config, id, entry, count)
                });
                let leaving = leaving.collect();
                let count = told(self.plane.vip_counters(vip.entry.id), &mut problems);
                let drops = self.plane.vip_drops(vip.entry.id);
                VipStatus {
                    dropped: DropStatus::all(&told(drops, &mut problems)),
                    limits: self.limits_of(vip, config),
                    ..self.vip_status(vip, config, backends, leaving, count)
                }
            })
            .collect();
        let reasons = told(self.plane.reason_counters(), &mut problems);
        let access = told(self.access_status(), &mut problems);
        let pins = told(self.pins_status(), &mut problems);
        let programs = told(self.plane.program_runs(), &mut problems);
        Status {
            ready: self.wanted.is_some() && self.attachments.is_any(),
            node: self.desired.config.node.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: crate::COMMIT.to_owned(),
            generation: self.generation,
            config: self.origin.status(),
            interfaces: self.attachments.status(self.interfaces()),
            vips,
            reasons: ReasonStatus::all(&reasons),
            access,
            maps: self.maps_status(),
            pins,
            marks_kept: self.plane.are_marks_kept(),
            programs: programs.into_iter().map(ProgramStatus::from).collect(),
            fleet: self.fleet_status(),
            agreement: self.agreement_status(),
            observed: self.observed_status(),
            kubernetes,
            drained: self.desired.is_node_drained(),
            announcements: self.announced(),
            announcement_counts: self.announcement_counts(),
            overrides: OverrideStatus::all(self.desired.overrides(), self.desired.file()),
            problems,
        }
    }

    fn maps_status(&self) -> Vec<MapStatus> {
        let tally = &self.sweeper.tally;
        let vips = self.wanted.as_ref().map_or(0, |wanted| wanted.vips.len());
        let most_backends = BACKEND_IDS.count();
        let own = [
            ("vips", vips as u64, MAX_VIPS as u64),
            (
                "backends",
                self.held.backends().count() as u64,
                most_backends as u64,
            ),
            ("fragments", tally.fragments, MAX_FRAGMENTED as u64),
            ("blocks", self.held.blocks() as u64, MAX_BLOCKS as u64),
            (
                "lists",
                self.lists.progress().prefixes as u64,
                MAX_LISTED as u64,
            ),
        ];
        let own = own.map(|(map, entries, max_entries)| (map.to_owned(), entries, max_entries));
        let is_by_source = |kind: &LimitKind| *kind as usize >= LimitKind::TOTALS;
        let mut limits = self
            .desired
            .config
            .vips
            .iter()
            .map(|vip| &vip.limits.by_kind);
        let has_sources = limits.any(|limits| limits.keys().any(is_by_source));
        let sources = has_sources.then(|| self.known.count(&self.plane)).flatten();
        let max_sources = u64::from(self.plane.sizes().max_sources);
        let sources = sources.map(|entries| ("sources".to_owned(), entries, max_sources));
        let max_pins = u64::from(self.plane.sizes().max_pins);
        let pins = Kind::ALL.into_iter().zip(tally.by_kind);
        let pins =
            pins.map(|(kind, entries)| (format!("pins_{}", kind.as_str()), entries, max_pins));
        let status = |(map, entries, max_entries)| MapStatus {
            map,
            entries,
            max_entries,
        };
        own.into_iter()
            .chain(pins)
            .chain(sources)
            .map(status)
            .collect()
    }

    fn access_status(&self) -> anyhow::Result<AccessStatus> {
        let mut counts = Vec::new();
        for vip in self.wanted.iter().flat_map(|wanted| &wanted.vips) {
            let id = vip.entry.id;
            for list in concerning(vip.blocks, self.lists.wanted().scopes_of(id)) {
                counts.push(AccessCount::new(
                    &vip.name,
                    list,
                    self.plane.access_counter(id, list)?,
                ));
            }
        }
        Ok(AccessStatus {
            in_force: self.lists.is_in_force(),
            blocks: self.held.blocks() as u64,
            refused_files: self.refused_files.len() as u64,
            lists: ListStatus::all(&self.desired.config),
            counts,
        })
    }

    fn pins_status(&self) -> anyhow::Result<Vec<PinsStatus>> {
        let kinds = Kind::ALL.into_iter().zip(self.sweeper.losses);
        let status = kinds.map(|(kind, losses)| {
            let counters = self.plane.pin_counters(kind)?;
            Ok(PinsStatus {
                kind: kind.as_str().to_owned(),
                made: counters.made,
                removed: counters.removed,
                swept: losses.swept,
                evicted: losses.evicted,
                failed: counters.failed,
                over_budget: counters.over_budget,
            })
        });
        status.collect()
    }

    /// Of a backend that takes no new flows: whether nothing names it any more.
    fn is_empty(&self, vip: &WantedVip, backend: &WantedBackend) -> Option<bool> {
        if backend.weight != 0 {
            return None;
        }
        let slots = self.held.slots(vip.entry.id)?;
        Some(self.pins_of(backend.id) == 0 && slots.named().binary_search(&backend.id).is_err())
    }

    fn vip_status(
        &self,
        vip: &WantedVip,
        config: &config::Vip,
        backends: Vec<BackendStatus>,
        leaving: Vec<LeavingStatus>,
        count: Counters,
    ) -> VipStatus {
        let id = vip.entry.id;
        let slots = self.held.slots(id);
        let deadline_ms = slots.and_then(|slots| slots.deadline_ms(&vip.times));
        let left_ms = deadline_ms.map(|end| end.wrapping_sub(milliseconds(&self.plane)));
        VipStatus {
            id,
            name: vip.name.clone(),
            address: config.address,
            port: config.port,
            protocol: config.protocol,
            table: config.table,
            table_digest: vip.table.digest().to_string(),
            packets: count.packets,
            bytes: count.bytes,
            new_connections: count.new_connections,
            slots: slots.map(|slots| slots.census().into()).unwrap_or_default(),
            slot_moves: self.held.moves(id),
            // What is over already counts as a great number.
            seconds_left: left_ms.map(|ms| {
                if ms > u32::MAX / 2 {
                    0.0
                } else {
                    f64::from(ms) / 1000.0
                }
            }),
            pins: self
                .sweeper
                .tally
                .by_vip
                .get(&id)
                .copied()
                .unwrap_or_default(),
            fails_open: self.keeper.failing_open.contains(&vip.name),
            announce: self.announce_status(config),
            dropped: Vec::new(),
            limits: Vec::new(),
            backends,
            leaving,
        }
    }

    /// The limits of a VIP; without counts where they cannot be read, which other counters then tell of.
    fn limits_of(&self, vip: &WantedVip, config: &config::Vip) -> Vec<LimitStatus> {
        if config.limits.by_kind.is_empty() {
            return Vec::new();
        }
        let judged = self.plane.judged(vip.entry.id).unwrap_or_default();
        LimitStatus::all(&config.limits, &judged)
    }

    /// What is known of the limits of every VIP.
    pub(super) fn limits_basis(&self) -> anyhow::Result<LimitsBasis> {
        let wanted = self.wanted.iter().flat_map(|wanted| &wanted.vips);
        let vips = wanted.zip(&self.desired.config.vips).map(|(vip, config)| {
            Ok(VipBasis {
                id: vip.entry.id,
                name: vip.name.clone(),
                limits: config.limits.clone(),
                judged: self.plane.judged(vip.entry.id)?,
                counters: self.plane.vip_counters(vip.entry.id)?,
            })
        });
        Ok(LimitsBasis {
            vips: vips.collect::<anyhow::Result<_>>()?,
            scan: self.plane.scan_sources()?,
            now_ns: self.plane.now_ns(),
        })
    }

    fn backend_status(
        &self,
        vip: &config::Vip,
        backend: &WantedBackend,
        empty: Option<bool>,
        (config, command): (&config::Backend, Override),
        count: Counters,
    ) -> BackendStatus {
        let entry = &backend.entry;
        let health = self.health_of(vip, backend.address, config.forward);
        BackendStatus {
            id: backend.id,
            address: backend.address,
            weight: backend.weight,
            configured_weight: config.weight,
            drained: command.is_drained,
            forward: config.forward,
            slots: backend.slots,
            healthy: health.as_ref().and_then(|health| match health.state {
                HealthState::Healthy => Some(true),
                HealthState::Failed => Some(false),
                HealthState::Unknown => None,
            }),
            health,
            pins: self.pins_of(backend.id),
            empty,
            // Where nothing names it, there are no more scans, and no more packets.
            packets_per_second: match empty {
                Some(true) => Some(0.0),
                Some(false) => self.ebb.rate(backend.id),
                None => None,
            },
            drain_seconds_left: self.drain_seconds_left(vip, backend.id),
            resolved: entry.is_resolved() || entry.is_local(),
            mac: entry.is_resolved().then(|| mac_text(entry.mac_destination)),
            mtu: backend.entry.mtu,
            packets: count.packets,
            bytes: count.bytes,
            new_connections: count.new_connections,
        }
    }

    /// The backends of a VIP that are leaving, by id.
    fn leaving_of(&self, vip: &WantedVip) -> impl Iterator<Item = (u16, &Backend)> {
        let vip = vip.entry.id;
        let leaving = self.wanted.iter().flat_map(|wanted| &wanted.leaving);
        leaving
            .filter(move |(_, entry)| u32::from(entry.vip) == vip)
            .map(|(id, entry)| (*id, entry))
    }

    /// What the checks of a VIP's backend have come to, where it is checked.
    fn health_of(
        &self,
        vip: &config::Vip,
        backend: IpAddr,
        forward: ForwardMode,
    ) -> Option<HealthStatus> {
        let check = Check::new(vip.health.as_ref()?, backend, forward);
        let snapshot = self.checked.borrow();
        Some(HealthStatus::new(&check, snapshot.states.get(&check)?))
    }

    /// When a backend's `drain_timeout` ends, in seconds from now.
    fn drain_seconds_left(&self, vip: &config::Vip, id: u16) -> Option<f64> {
        let timeout = vip.flows.drain_timeout?;
        let gone = self.keeper.quiet_for(id, Instant::now())?;
        Some(timeout.saturating_sub(gone).as_secs_f64())
    }

    fn leaving_status(
        &self,
        vip: &config::Vip,
        id: u16,
        entry: &Backend,
        count: Counters,
    ) -> LeavingStatus {
        let address = ip_address(entry.address);
        LeavingStatus {
            id,
            address,
            alive: entry.is_alive(),
            health: forward_of(entry.mode)
                .and_then(|forward| self.health_of(vip, address, forward)),
            packets: count.packets,
            bytes: count.bytes,
            new_connections: count.new_connections,
            packets_per_second: self.ebb.rate(id),
            pins: self.pins_of(id),
            drain_seconds_left: self.drain_seconds_left(vip, id),
        }
    }

    fn pins_of(&self, id: u16) -> u64 {
        let pins = self.sweeper.tally.by_backend.get(&id);
        pins.copied().unwrap_or_default()
    }
}

/// What could be read; of what could not, a problem is told.
fn told<T: Default>(read: anyhow::Result<T>, problems: &mut Vec<String>) -> T {
    read.unwrap_or_else(|error| {
        problems.push(format!("{error:#}"));
        T::default()
    })
}
