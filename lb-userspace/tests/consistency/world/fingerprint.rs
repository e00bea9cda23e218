//! Worlds as numbers, equal for worlds that differ in names alone.

use super::*;

/// Packs numbers of a few bits each.
struct Packer(u128);

impl Packer {
    fn put(&mut self, value: usize, bits: u32) {
        assert!(value >> bits == 0, "{value} in {bits} bits");
        self.0 = self.0 << bits | value as u128;
    }

    fn slot(&mut self, slot: Slot) {
        self.put(usize::from(slot.current), 2);
        self.put(
            match slot.previous {
                HOLDING => 4,
                SETTLING => 5,
                id => usize::from(id),
            },
            3,
        );
    }

    fn held(&mut self, held: Option<Held>) {
        self.put(held.map_or(0, |held| usize::from(held.backend)), 2);
        self.put(usize::from(held.is_some_and(|held| held.is_forged)), 1);
        self.put(usize::from(held.is_some_and(|held| held.is_expired)), 1);
        self.put(usize::from(held.is_some_and(|held| held.is_closed)), 1);
    }
}

impl World {
    /// The world under other names of its backends and flows.
    fn renamed(&self, names: [u16; 4], swap_flows: bool) -> Self {
        let name = |id: u16| names.get(usize::from(id)).copied().unwrap_or(id);
        let mask = |mask: u8| {
            (1..=BACKENDS)
                .filter(|id| mask & bit(*id) != 0)
                .fold(0, |mask, id| mask | bit(name(id)))
        };
        let slot = |slot: Slot| Slot {
            current: name(slot.current),
            previous: name(slot.previous),
        };
        let held = |held: Held| Held {
            backend: name(held.backend),
            ..held
        };
        let mut flows = self.flows.map(|flow| Tracked {
            client: match flow.client {
                Client::Idle => Client::Idle,
                Client::Handshake(half) => Client::Handshake(mask(half)),
                Client::Answered(id) => Client::Answered(name(id)),
                Client::Open(id) => Client::Open(name(id)),
            },
            pins: flow.pins.map(|pin| pin.map(held)),
            flying: flow.flying.map(|flying| Flying {
                slot: slot(flying.slot),
                ..flying
            }),
            is_heard: flow.is_heard,
        });
        if swap_flows {
            flows.reverse();
        }
        Self {
            slot: slot(self.slot),
            wanted: name(self.wanted),
            dead: mask(self.dead),
            flows,
            scan: self.scan.map(|scan| Scan {
                read: scan.read.map(held),
                ..scan
            }),
            scope: self.scope,
        }
    }

    fn pack(&self) -> u128 {
        let mut packer = Packer(0);
        packer.slot(self.slot);
        packer.put(usize::from(self.wanted), 2);
        packer.put(usize::from(self.dead), 3);
        for flow in &self.flows {
            packer.put(
                match flow.client {
                    Client::Idle => 0,
                    Client::Open(id) => usize::from(id),
                    Client::Handshake(half) => 4 + usize::from(half),
                    Client::Answered(id) => 11 + usize::from(id),
                },
                4,
            );
            for pin in flow.pins {
                packer.held(pin);
            }
            packer.put(flow.flying.map_or(0, |f| 1 + usize::from(f.is_syn)), 2);
            packer.slot(flow.flying.map_or(Slot::default(), |f| f.slot));
            packer.put(usize::from(flow.is_heard), 1);
        }
        packer.put(
            self.scan.map_or(0, |scan| 1 + usize::from(scan.position)),
            3,
        );
        packer.held(self.scan.and_then(|scan| scan.read));
        packer.put(usize::from(self.scan.is_some_and(|s| s.is_foreign)), 1);
        packer.put(usize::from(self.scan.is_some_and(|s| s.is_same)), 1);
        packer.0
    }

    /// Equal for worlds that differ only in the names of backends and flows.
    pub(crate) fn fingerprint(&self) -> u128 {
        const NAMES: [[u16; 4]; 6] = [
            [0, 1, 2, 3],
            [0, 1, 3, 2],
            [0, 2, 1, 3],
            [0, 2, 3, 1],
            [0, 3, 1, 2],
            [0, 3, 2, 1],
        ];
        // A scan takes the flows in an order.
        let swaps: &[bool] = if self.scope.flows < 2 || self.scan.is_some() {
            &[false]
        } else {
            &[false, true]
        };
        let all = NAMES
            .iter()
            .flat_map(|names| swaps.iter().map(|swap| self.renamed(*names, *swap).pack()));
        all.min().unwrap()
    }
}
