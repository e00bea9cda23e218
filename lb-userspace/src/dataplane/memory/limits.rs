//! The maps of rate limits, in host memory, for one CPU.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use lb_common::{
    gcra::Ticks,
    limit::{Judgement, Kind, Limits, OwnRates, Source, SourceKey, Tat},
};

use crate::dataplane::Judged;

/// A word that packets change.
#[derive(Clone, Default)]
pub struct Word(Arc<AtomicU64>);

impl Word {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl Tat for Word {
    fn load(&self) -> Ticks {
        self.get()
    }

    fn exchange(&self, seen: Ticks, next: Ticks) -> Result<(), Ticks> {
        let order = Ordering::Relaxed;
        self.0.compare_exchange(seen, next, order, order)?;
        Ok(())
    }

    fn add(&self, cost: Ticks) {
        self.0.fetch_add(cost, Ordering::Relaxed);
    }
}

/// What is known of a source.
#[derive(Clone, Default)]
pub struct Known {
    packets_tat: Word,
    connections_tat: Word,
    packets: Word,
    new_connections: Word,
    over: Word,
}

impl lb_common::limit::Known for Known {
    type Tat = Word;

    fn tat(&self, kind: Kind) -> Word {
        match kind {
            Kind::NewConnectionsPerSource => self.connections_tat.clone(),
            _ => self.packets_tat.clone(),
        }
    }

    fn count(&self, is_syn: bool, is_over: bool) {
        self.packets.add(1);
        self.new_connections.add(u64::from(is_syn));
        self.over.add(u64::from(is_over));
    }
}

/// The maps.
#[derive(Default)]
pub(super) struct Maps {
    limits: BTreeMap<u32, Limits>,
    own: HashMap<SourceKey, OwnRates>,
    words: RefCell<Words>,
}

#[derive(Default)]
struct Words {
    totals: BTreeMap<(u32, Kind), Word>,
    credits: BTreeMap<(u32, Kind), Word>,
    sources: BTreeMap<([u8; 16], u64), (SourceKey, Known)>,
    judged: BTreeMap<u32, Judged>,
}

impl Maps {
    pub(super) fn set(&mut self, vip: u32, limits: &Limits) {
        self.limits.insert(vip, *limits);
    }

    pub(super) fn clear(&mut self, vip: u32) {
        self.limits.remove(&vip);
        let mut words = self.words.borrow_mut();
        words.totals.retain(|(id, _), _| *id != vip);
        words.credits.retain(|(id, _), _| *id != vip);
        words.judged.remove(&vip);
    }

    pub(super) fn get(&self, vip: u32) -> Option<&Limits> {
        self.limits.get(&vip)
    }

    pub(super) fn source(&self, key: &SourceKey) -> Known {
        let mut words = self.words.borrow_mut();
        let place = words.sources.entry((key.prefix.octets(), key.vip));
        place.or_insert((*key, Known::default())).1.clone()
    }

    pub(super) fn set_own_rates(&mut self, key: &SourceKey, rates: OwnRates) {
        if rates == OwnRates::default() {
            self.own.remove(key);
        } else {
            self.own.insert(*key, rates);
        }
    }

    pub(super) fn own_rates(&self, key: &SourceKey) -> Option<&OwnRates> {
        self.own.get(key)
    }

    pub(super) fn own_rate_keys(&self) -> Vec<SourceKey> {
        self.own.keys().copied().collect()
    }

    pub(super) fn sources(&self) -> Vec<(SourceKey, Source)> {
        let words = self.words.borrow();
        let source = |(key, known): &(SourceKey, Known)| {
            let source = Source {
                packets_tat: known.packets_tat.get(),
                connections_tat: known.connections_tat.get(),
                packets: known.packets.get(),
                // Modulo 2³², as the kernel's.
                new_connections: known.new_connections.get() as u32,
                over: known.over.get(),
                ..Source::default()
            };
            (*key, source)
        };
        words.sources.values().map(source).collect()
    }

    pub(super) fn total(&self, vip: u32, kind: Kind) -> Word {
        let mut words = self.words.borrow_mut();
        words.totals.entry((vip, kind)).or_default().clone()
    }

    pub(super) fn credit(&self, vip: u32, kind: Kind) -> Word {
        let mut words = self.words.borrow_mut();
        words.credits.entry((vip, kind)).or_default().clone()
    }

    pub(super) fn count(&self, vip: u32, kind: Kind, judgement: Judgement) {
        let mut words = self.words.borrow_mut();
        let judged = words.judged.entry(vip).or_default();
        if let Some(count) = judged
            .packets
            .get_mut(kind as usize)
            .and_then(|counts| counts.get_mut(judgement as usize))
        {
            *count += 1;
        }
    }

    pub(super) fn count_bytes(&self, vip: u32, bytes: u64) {
        let mut words = self.words.borrow_mut();
        words.judged.entry(vip).or_default().bytes += bytes;
    }

    pub(super) fn judged(&self, vip: u32) -> Judged {
        let words = self.words.borrow();
        words.judged.get(&vip).copied().unwrap_or_default()
    }
}
