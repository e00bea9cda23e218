//! What the pipeline sees of the maps in host memory.

use std::collections::hash_map::Entry;

use lb_common::{
    access::PrefixKey,
    backend::Backend,
    flow::{Flow, HashKeys},
    fragment::FragmentKey,
    gcra::Ticks,
    limit::{self, Judgement, LimitTables, Limits, OwnRates, SourceKey},
    noted::Noted,
    pin::{Idle, Inserted, Kind, Pin, Pins},
    pipeline::Outcome,
    slot::SlotTable,
    tables::{Answer, Interface, Limited, MAX_REASONS, Tables},
    vip::VipTable,
};

use super::{Memory, limits, longest};

impl Pins for Memory {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn is_marked(&self, hash: u32) -> bool {
        let counts = self.counts.borrow();
        let marks = counts.marks.as_ref();
        marks.is_none_or(|marks| marks.contains(&hash))
    }

    fn find(&self, kind: Kind, flow: &Flow) -> Option<Pin> {
        self.counts.borrow().pins.get(&kind)?.get(flow).copied()
    }

    fn refresh(&self, kind: Kind, flow: &Flow, pin: &Pin) {
        let mut counts = self.counts.borrow_mut();
        if let Some(held) = counts.pins.entry(kind).or_default().get_mut(flow) {
            *held = *pin;
        }
    }

    fn insert(&self, kind: Kind, (flow, hash): (&Flow, u32), pin: &Pin, _now_ns: u64) -> Inserted {
        let mut counts = self.counts.borrow_mut();
        if let (Kind::Proven | Kind::Old, Some(marks)) = (kind, &mut counts.marks) {
            marks.insert(hash);
        }
        match counts.pins.entry(kind).or_default().entry(*flow) {
            Entry::Occupied(held) => Inserted::Exists(*held.get()),
            Entry::Vacant(place) => {
                place.insert(*pin);
                counts.pin_counters.entry(kind).or_default().made += 1;
                Inserted::New
            }
        }
    }

    fn remove(&self, kind: Kind, flow: &Flow) {
        let mut counts = self.counts.borrow_mut();
        if counts.pins.entry(kind).or_default().remove(flow).is_some() {
            counts.pin_counters.entry(kind).or_default().removed += 1;
        }
    }

    fn is_alive(&self, backend: u16) -> bool {
        self.backends.get(&backend).is_some_and(Backend::is_alive)
    }
}

impl LimitTables for Memory {
    type Tat = limits::Word;
    type Known = limits::Known;

    fn precise_ns(&self) -> u64 {
        self.now_ns
    }

    fn coarse_ns(&self) -> u64 {
        self.now_ns
    }

    fn limits(&self, vip: u32) -> Option<&Limits> {
        self.limits.get(vip)
    }

    fn source(&self, key: &SourceKey, _now: Ticks) -> Option<limits::Known> {
        Some(self.limits.source(key))
    }

    fn own_rates(&self, key: &SourceKey) -> Option<&OwnRates> {
        self.limits.own_rates(key)
    }

    fn total(&self, vip: u32, kind: limit::Kind) -> Option<limits::Word> {
        Some(self.limits.total(vip, kind))
    }

    fn credit(&self, vip: u32, kind: limit::Kind) -> u64 {
        self.limits.credit(vip, kind).get()
    }

    fn set_credit(&self, vip: u32, kind: limit::Kind, credit: u64) {
        self.limits.credit(vip, kind).set(credit);
    }

    fn count_judged(&self, vip: u32, kind: limit::Kind, judgement: Judgement) {
        self.limits.count(vip, kind, judgement);
    }

    fn count_bytes(&self, vip: u32, bytes: u64) {
        self.limits.count_bytes(vip, bytes);
    }
}

impl Tables for Memory {
    fn hash_keys(&self) -> Option<&HashKeys> {
        self.node.as_ref().map(|node| &node.hash_keys)
    }

    fn vips(&self) -> Option<&VipTable> {
        self.vips.as_deref()
    }

    fn slots(&self, vip: u32) -> Option<&SlotTable> {
        self.tables.get(&vip).map(Box::as_ref)
    }

    fn backend(&self, id: u16) -> Option<&Backend> {
        self.backends.get(&id)
    }

    fn has_port(&self, ifindex: u32) -> bool {
        self.ports.contains(&ifindex)
    }

    fn set_answer(&self, answer: &Answer) {
        self.counts.borrow_mut().answer = Some(*answer);
    }

    fn answer(&self) -> Option<Answer> {
        self.counts.borrow().answer
    }

    fn idle(&self, vip: u32) -> Option<&Idle> {
        self.idle.get(&vip)
    }

    fn note(&self, noted: &Noted) {
        self.counts.borrow_mut().noted = Some(*noted);
    }

    fn noted(&self) -> Option<Noted> {
        self.counts.borrow().noted
    }

    fn blocks(&self, vip: u32) -> u32 {
        self.block_scopes.get(&vip).copied().unwrap_or_default()
    }

    fn lists(&self, vip: u32) -> u32 {
        let listed = self.lists.lock();
        listed.scopes.get(&vip).copied().unwrap_or_default()
    }

    fn blocked(&self, key: &PrefixKey) -> u32 {
        longest(&self.blocks, key)
    }

    fn listed(&self, key: &PrefixKey) -> u32 {
        longest(&self.lists.lock().prefixes, key)
    }

    fn count_access(&self, counter: u32) {
        *self.counts.borrow_mut().access.entry(counter).or_default() += 1;
    }

    fn count_forwarded(&self, vip: u32, backend: u16, bytes: u64, is_syn: bool) {
        let mut counts = self.counts.borrow_mut();
        counts.vips.entry(vip).or_default().add(bytes, is_syn);
        let counters = counts.backends.entry(backend).or_default();
        counters.add(bytes, is_syn);
    }

    fn interface(&self, ifindex: u32) -> Option<&Interface> {
        self.interfaces.get(&ifindex)
    }

    fn is_peer(&self, mac: &[u8; 8]) -> bool {
        self.peers.contains(mac)
    }

    fn fragment(&self, key: &FragmentKey) -> Option<u16> {
        self.counts.borrow().fragments.get(key).copied()
    }

    fn pin_fragment(&self, key: &FragmentKey, backend: u16) {
        self.counts.borrow_mut().fragments.insert(*key, backend);
    }

    fn admits(&self, _what: Limited) -> bool {
        // There is no clock here; the limit itself is tested in lb-common and in the kernel.
        true
    }

    fn count_drop(&self, vip: u32, index: u32) {
        let mut counts = self.counts.borrow_mut();
        counts.drops.entry(vip).or_default().add(index);
    }

    fn count_outcome(&self, outcome: &Outcome) {
        let other = if outcome.is_redirect {
            MAX_REASONS as u32
        } else {
            0
        };
        *self
            .counts
            .borrow_mut()
            .outcomes
            .entry(outcome.reason as u32 + other)
            .or_default() += 1;
    }
}
