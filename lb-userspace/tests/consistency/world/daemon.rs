//! What the daemon does: it wants, swaps, scans and restarts; and backends die.

use super::*;

impl World {
    pub(super) fn daemon_events(&self, events: &mut Vec<Event>) {
        let candidates = (1..=BACKENDS).filter(|id| self.is_alive(*id));
        for wanted in candidates.chain([NOBODY]).filter(|id| *id != self.wanted) {
            events.push(self.event(say!(self, "{wanted} is wanted"), |world| {
                world.wanted = wanted;
            }));
        }
        for backend in (1..=BACKENDS).filter(|id| self.is_alive(*id)) {
            events.push(self.event(say!(self, "{backend} dies"), |world| world.kill(backend)));
        }
        for elapsed_ms in [0, 1] {
            if elapsed_ms == 0 || self.may_time_pass() {
                self.swap(elapsed_ms, events);
            }
        }
        self.scan_events(events);
        if self.scan.is_some() || self.flows.iter().any(|flow| flow.is_heard) {
            events.push(self.event(say!(self, "the daemon restarts"), |world| {
                world.scan = None;
                for flow in &mut world.flows {
                    flow.is_heard = false;
                }
            }));
        }
    }

    fn kill(&mut self, backend: u16) {
        self.dead |= bit(backend);
        if self.wanted == backend {
            self.wanted = (1..=BACKENDS)
                .find(|id| self.is_alive(*id))
                .unwrap_or(NOBODY);
        }
        for flow in &mut self.flows {
            match flow.client {
                Client::Handshake(half) => flow.client = Client::Handshake(half & !bit(backend)),
                // Its own backend died: this may break.
                Client::Answered(own) | Client::Open(own) if own == backend => {
                    flow.client = Client::Idle;
                    flow.flying = None;
                }
                Client::Idle | Client::Answered(_) | Client::Open(_) => {}
            }
        }
    }

    /// Whether the slot's state may have lasted its time: those who are not silent for so long have been heard.
    fn may_time_pass(&self) -> bool {
        let state = self.slot.state();
        let is_excused = match state {
            State::Holding => self.scope.broken == Some(Broken::ShortHold),
            State::Moving => self.scope.broken == Some(Broken::ShortWindow),
            State::Stable | State::Settling => return false,
        };
        is_excused
            || self.flows.iter().all(|flow| match flow.client {
                Client::Idle | Client::Handshake(0) => true,
                Client::Handshake(_) | Client::Answered(_) => flow.is_heard,
                Client::Open(_) => flow.is_heard || state == State::Holding,
            })
    }

    fn swap(&self, elapsed_ms: u32, events: &mut Vec<Event>) {
        let is_alive = |id| self.is_alive(id);
        let mut slot = slots::next(self.slot, elapsed_ms, self.wanted, &is_alive, &TIMES);
        if self.scope.broken == Some(Broken::NoHold)
            && slot.state() == State::Holding
            && self.wanted != slot.current
        {
            slot = Slot::moving(self.wanted, slot.current);
        }
        if slot != self.slot {
            events.push(self.event(say!(self, "swap to {slot:?}"), |world| world.set_slot(slot)));
        }
    }

    fn set_slot(&mut self, slot: Slot) {
        if !slots::is_same_state(self.slot, slot) {
            for flow in &mut self.flows {
                flow.is_heard = false;
            }
            if let Some(scan) = &mut self.scan {
                scan.is_same = false;
            }
        }
        self.slot = slot;
    }

    fn scan_events(&self, events: &mut Vec<Event>) {
        let flows = self.scope.flows;
        let places = (3 * flows) as u8;
        let is_settling = self.slot.state() == State::Settling;
        let Some(scan) = self.scan else {
            if self.scope.broken == Some(Broken::NoScan) && is_settling {
                let slot = Slot::stable(self.slot.current);
                events.push(self.event(say!(self, "Stable unseen"), |world| world.set_slot(slot)));
            } else if is_settling {
                events.push(self.event(say!(self, "a scan begins"), |world| {
                    world.scan = Some(Scan {
                        position: 0,
                        read: None,
                        is_foreign: false,
                        is_same: true,
                    });
                }));
            }
            return;
        };
        let is_backwards = self.scope.broken == Some(Broken::ScanBackwards);
        let place = |position: u8| {
            let position = usize::from(if is_backwards {
                places - 1 - position
            } else {
                position
            });
            (Kind::ALL[position / flows], position % flows)
        };
        if let Some(read) = scan.read {
            let (kind, flow) = place(scan.position - 1);
            // Without this pin, another one of the flow would count.
            let is_in_doubt = self.scope.broken != Some(Broken::LonelyJudgement)
                && self.flows[flow].pins.iter().flatten().any(|other| {
                    other.backend != self.slot.current
                        && self.is_alive(other.backend)
                        && !other.is_expired
                });
            // What was read may be another pin by now: it is read once more before it is deleted.
            let found = if self.scope.broken == Some(Broken::LateDeletion) {
                Some(read)
            } else {
                self.flows[flow].pins[kind as usize]
            };
            let useless = found.is_some_and(|found| {
                found.is_expired
                    || !self.is_alive(found.backend)
                    || (found.backend == self.slot.current && !is_in_doubt)
            });
            let may =
                is_settling && (scan.is_same || self.scope.broken == Some(Broken::LateDeletion));
            let text = say!(self, "{} pin of flow {flow} is judged", kind.as_str());
            events.push(self.event(text, |world| {
                if may && useless {
                    world.flows[flow].pins[kind as usize] = None;
                }
                world.scan = Some(Scan {
                    read: None,
                    is_foreign: scan.is_foreign || !(may && useless),
                    ..scan
                });
            }));
        } else if scan.position < places {
            let (kind, flow) = place(scan.position);
            let read = self.flows[flow].pins[kind as usize];
            events.push(self.event(say!(self, "the scan goes on"), |world| {
                world.scan = Some(Scan {
                    position: scan.position + 1,
                    read,
                    ..scan
                });
            }));
        } else {
            events.push(self.event(say!(self, "the scan ends"), |world| {
                world.scan = None;
                if is_settling && scan.is_same && !scan.is_foreign {
                    world.set_slot(Slot::stable(world.slot.current));
                }
            }));
        }
    }
}
