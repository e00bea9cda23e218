//! What is told to those who listen to events: what has become otherwise since the last time.
//!
//! It is told when the maps follow, so that whoever hears of it finds them so, and after the command that was its cause. Verdicts that came and went between
//! two times are in the counts of flaps alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use lb_common::slot::SLOTS;

use super::Reconciler;
use crate::{
    api::What,
    dataplane::DataPlane,
    health::{Check, Snapshot, Verdict},
    model::{ip_address, overrides::BackendName},
};

/// What was told the last time.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The snapshot that the verdicts are of.
    snapshot: Arc<Snapshot>,
    verdicts: BTreeMap<BackendName, Verdict>,
    failing_open: BTreeSet<String>,
    /// Ids of VIPs whose slots change hands.
    moving: BTreeSet<u32>,
    leaving: BTreeMap<u16, Leaving>,
}

/// A backend that is leaving.
#[derive(Clone, Debug)]
struct Leaving {
    vip: Option<String>,
    backend: IpAddr,
    alive: bool,
}

impl<D: DataPlane> Reconciler<D> {
    /// Tells all that has become otherwise.
    pub(super) fn tell_changes(&mut self) {
        let mut told = std::mem::take(&mut self.told);
        self.tell_health(&mut told);
        self.tell_failing_open(&mut told);
        self.tell_moves(&mut told);
        self.tell_leaving(&mut told);
        self.told = told;
        self.tell_announced();
    }

    fn tell_health(&self, told: &mut Told) {
        let snapshot = Arc::clone(&self.checked.borrow());
        if Arc::ptr_eq(&snapshot, &told.snapshot) {
            return;
        }
        let mut verdicts = BTreeMap::new();
        for vip in &self.desired.config.vips {
            let Some(health) = &vip.health else {
                continue;
            };
            for backend in &vip.backends {
                let check = Check::new(health, backend.address, backend.forward);
                let Some(state) = snapshot.states.get(&check) else {
                    continue;
                };
                let name = BackendName {
                    vip: vip.name.clone(),
                    backend: backend.address,
                };
                let before = told.verdicts.get(&name).copied().unwrap_or_default();
                if state.verdict != before && state.verdict != Verdict::Unknown {
                    self.events.tell(What::Health {
                        vip: name.vip.clone(),
                        backend: name.backend,
                        state: state.verdict.into(),
                        reason: state.reason.as_deref().map(str::to_owned),
                    });
                }
                verdicts.insert(name, state.verdict);
            }
        }
        told.verdicts = verdicts;
        told.snapshot = snapshot;
    }

    fn tell_failing_open(&self, told: &mut Told) {
        let now = &self.keeper.failing_open;
        for vip in now.symmetric_difference(&told.failing_open) {
            self.events.tell(What::FailsOpen {
                vip: vip.clone(),
                fails_open: now.contains(vip),
            });
        }
        told.failing_open.clone_from(now);
    }

    fn tell_moves(&self, told: &mut Told) {
        let mut moving = BTreeSet::new();
        for vip in self.wanted.iter().flat_map(|wanted| &wanted.vips) {
            let id = vip.entry.id;
            let Some(slots) = self.held.slots(id) else {
                continue;
            };
            if slots.is_stable() {
                if told.moving.contains(&id) {
                    let vip = vip.name.clone();
                    self.events.tell(What::Settled { vip });
                }
                continue;
            }
            if !told.moving.contains(&id) {
                self.events.tell(What::Moving {
                    vip: vip.name.clone(),
                    slots: SLOTS as u32 - slots.census().stable,
                });
            }
            moving.insert(id);
        }
        told.moving = moving;
    }

    fn tell_leaving(&self, told: &mut Told) {
        let Some(wanted) = &self.wanted else {
            return;
        };
        for (id, entry) in &wanted.leaving {
            let alive = entry.is_alive();
            if told.leaving.get(id).is_some_and(|was| was.alive == alive) {
                continue;
            }
            // The name of a VIP that is gone is remembered from when it was there.
            let vip = wanted.vips.iter();
            let mut vip = vip.filter(|vip| vip.entry.id == u32::from(entry.vip));
            let known = told.leaving.get(id).and_then(|known| known.vip.clone());
            let leaving = Leaving {
                vip: vip.next().map(|vip| vip.name.clone()).or(known),
                backend: ip_address(entry.address),
                alive,
            };
            self.events.tell(What::Leaving {
                vip: leaving.vip.clone(),
                backend: leaving.backend,
                id: *id,
                alive,
            });
            told.leaving.insert(*id, leaving);
        }
        let events = &self.events;
        told.leaving.retain(|id, leaving| {
            let is_leaving = wanted.leaving.contains_key(id);
            if !is_leaving {
                events.tell(What::Left {
                    vip: leaving.vip.take(),
                    backend: leaving.backend,
                    id: *id,
                });
            }
            is_leaving
        });
    }
}
