//! The sweeper: reads what the maps remember of flows, deletes what counts for nothing, and finds the slots and
//! the ids that nobody names any more.
//!
//! Scans are read on a thread of their own and judged here, by the task that swaps tables, so that no table changes
//! between judgement and deletion. Pins are deleted only while their slot is Settling, and has been since before the
//! scan began: in that state no pin is made.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::ControlFlow,
    time::{Duration, Instant},
};

use lb_common::{
    backend::Backend,
    flow::Flow,
    pin::{Kind, Pin},
    tables::PinCounters,
};
use tokio::sync::mpsc;

use crate::{
    dataplane::{DataPlane, Remembered},
    model::{place::Place, plan::Held, slots::Settled, wanted::Wanted},
};

/// How many entries are judged at a time, between commands.
const CHUNK: usize = 1024;

/// Chunks that are read ahead.
const AHEAD: usize = 4;

/// Time between two scans, or more: a scan shall take a twentieth of the time at most.
pub(super) const PAUSE: Duration = Duration::from_secs(5);
pub(super) const SHARE: u32 = 20;

/// The longest time between two attempts to begin with marks.
const MARKS: Duration = Duration::from_mins(5);

/// The packet path's idle limit is shorter by this: what it still follows is never deleted.
const MARGIN_NS: u64 = 60 * 1_000_000_000;

/// How long the fragments of a packet may be apart: reassembly gives up by then (RFC 8200, section 4.5).
const FRAGMENTS: Duration = Duration::from_mins(1);

/// What is known of the pins since the last whole scan.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Pins by VIP id.
    pub(super) by_vip: BTreeMap<u32, u64>,
    /// Pins by backend id.
    pub(super) by_backend: BTreeMap<u16, u64>,
    /// Pins by kind.
    pub(super) by_kind: [u64; 3],
    /// Fragmented packets.
    pub(super) fragments: u64,
}

/// What became of the pins of one kind, besides what packets count.
///
/// The kernel evicts without a word. What was made and neither removed nor swept must be there: what is not was evicted. Counters
/// and scans are not of one moment, so each is read when it makes the number smaller, and the number never goes back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    /// Pins that the sweeper removed.
    pub(super) swept: u64,
    /// Pins that were evicted.
    pub(super) evicted: u64,
    /// What was missing already when the first scan ended: of earlier daemons.
    missing_before: Option<u64>,
}

impl Losses {
    /// Notes what the counters said when a scan began and when it ended, and how many pins it saw.
    fn note(&mut self, began: &PinCounters, ended: &PinCounters, seen: u64) {
        let there = self.swept.wrapping_add(seen);
        let missing = |made: u64, removed: u64| made.saturating_sub(removed.wrapping_add(there));
        // What is taken off for ever is what may have been missing at most.
        let most = missing(ended.made, began.removed);
        let before = *self.missing_before.get_or_insert(most);
        let least = missing(began.made, ended.removed);
        self.evicted = self.evicted.max(least.saturating_sub(before));
    }
}

/// What a whole scan has shown.
pub(super) struct Findings {
    pub(super) settled: Settled,
    /// Ids that nothing names.
    pub(super) unnamed: BTreeSet<u16>,
}

/// What a reader sends.
pub(super) enum Message {
    Chunk(Vec<Remembered>),
    End(anyhow::Result<()>),
}

/// One scan under way.
struct Scan {
    receiver: mpsc::Receiver<Message>,
    began: Instant,
    began_ms: u32,
    foreign: HashSet<(u32, u16)>,
    /// Leaving ids that no slot names.
    candidates: BTreeSet<u16>,
    tally: Tally,
    /// The counters when it began, by [`Kind`].
    counters: [PinCounters; Kind::ALL.len()],
}

/// The sweeper.
#[derive(Default)]
pub(super) struct Sweeper {
    scan: Option<Scan>,
    /// When the next scan may begin.
    next: Option<Instant>,
    /// Since when ids are leaving and no slot names them.
    candidates: BTreeMap<u16, Instant>,
    pub(super) tally: Tally,
    /// By [`Kind`].
    pub(super) losses: [Losses; Kind::ALL.len()],
    marks: Marking,
}

/// Whether flows are marked that have pins (`lb_common::marks`).
#[derive(Default)]
enum Marking {
    /// Slots change hands, or did just now.
    #[default]
    Unclear,
    /// No slot changes hands, and pins that are not marked may be left. When to look again, and the pause before that.
    Waiting(Instant, Duration),
    /// All are, as long as no slot changes hands: none.
    Kept,
}

impl Marking {
    /// Begins with marks anew where pins are gone. Returns when to ask again.
    fn follow(
        &mut self,
        plane: &mut impl DataPlane,
        is_moving: bool,
    ) -> anyhow::Result<Option<Instant>> {
        let now = Instant::now();
        let pause = match self {
            _ if is_moving => {
                *self = Self::Unclear;
                return Ok(None);
            }
            // Other keys of the flow hash take them away.
            Self::Kept if plane.are_marks_kept() => return Ok(None),
            Self::Waiting(next, _) if *next > now => return Ok(Some(*next)),
            Self::Waiting(_, pause) => MARKS.min(*pause * 2),
            Self::Kept | Self::Unclear => PAUSE,
        };
        if plane.keep_marks()? {
            *self = Self::Kept;
            return Ok(None);
        }
        let next = now + pause;
        *self = Self::Waiting(next, pause);
        Ok(Some(next))
    }
}

impl Sweeper {
    /// Begins a scan where there is something to be found and the pause is over. Returns when to ask again.
    pub(super) fn begin(
        &mut self,
        plane: &mut impl DataPlane,
        held: &Held,
        wanted: &Wanted,
    ) -> anyhow::Result<Option<Instant>> {
        // Who came back meanwhile may have got pins that the scan under way has passed by, also if it leaves again.
        self.candidates
            .retain(|id, _| wanted.leaving.contains_key(id));
        let is_moving = held.all_slots().any(|(_, slots)| !slots.is_stable());
        let is_empty = self.tally.by_vip.is_empty();
        let marks = self.marks.follow(plane, is_moving)?;
        if self.scan.is_some() || (!is_moving && wanted.leaving.is_empty() && is_empty) {
            return Ok(marks);
        }
        let now = Instant::now();
        if let Some(next) = self.next.filter(|next| *next > now) {
            return Ok(marks.into_iter().chain([next]).min());
        }
        self.find_candidates(held, wanted, now);
        let scan = plane.scan()?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        tokio::task::spawn_blocking(move || {
            let mut chunk = Vec::with_capacity(CHUNK);
            let walked = scan.walk(&mut |entry| {
                chunk.push(entry);
                if chunk.len() < CHUNK {
                    return ControlFlow::Continue(());
                }
                let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK));
                match sender.blocking_send(Message::Chunk(full)) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            });
            // An error says that the daemon ends.
            drop(sender.blocking_send(Message::Chunk(chunk)));
            drop(sender.blocking_send(Message::End(walked)));
        });
        let mut counters = [PinCounters::default(); Kind::ALL.len()];
        for (counters, kind) in counters.iter_mut().zip(Kind::ALL) {
            *counters = plane.pin_counters(kind)?;
        }
        self.scan = Some(Scan {
            receiver,
            counters,
            began: now,
            began_ms: milliseconds(plane),
            foreign: HashSet::new(),
            candidates: self.candidates.keys().copied().collect(),
            tally: Tally::default(),
        });
        Ok(marks)
    }

    /// Leaving ids that no slot names, and since when.
    fn find_candidates(&mut self, held: &Held, wanted: &Wanted, now: Instant) {
        let mut named = vec![false; 1 << 16];
        if !wanted.leaving.is_empty() {
            for id in held.all_slots().flat_map(|(_, slots)| slots.named()) {
                if let Some(named) = named.get_mut(usize::from(*id)) {
                    *named = true;
                }
            }
        }
        let is_named = |id: u16| named.get(usize::from(id)).copied().unwrap_or(true);
        let leaving = wanted.leaving.keys().copied();
        self.candidates = leaving
            .filter(|id| !is_named(*id))
            .map(|id| (id, self.candidates.get(&id).copied().unwrap_or(now)))
            .collect();
    }

    /// The next part of the scan under way; never, where there is none.
    pub(super) async fn next(&mut self) -> Message {
        match &mut self.scan {
            Some(scan) => scan.receiver.recv().await.unwrap_or_else(|| {
                Message::End(Err(anyhow::anyhow!("the thread that scans has ended")))
            }),
            None => std::future::pending().await,
        }
    }

    /// Judges a part of a scan; at its end tells what was found.
    pub(super) fn judge(
        &mut self,
        message: Message,
        plane: &mut impl DataPlane,
        held: &Held,
    ) -> anyhow::Result<Option<Findings>> {
        match message {
            Message::Chunk(entries) => {
                for entry in &entries {
                    self.judge_entry(entry, plane, held)?;
                }
                Ok(None)
            }
            Message::End(walked) => {
                let Some(scan) = self.scan.take() else {
                    return Ok(None);
                };
                let took = scan.began.elapsed();
                self.next = Some(Instant::now() + PAUSE.max(took * SHARE));
                walked?;
                self.note_losses(&scan, plane)?;
                self.tally = scan.tally;
                let unnamed = scan
                    .candidates
                    .into_iter()
                    .filter(|id| self.candidates.contains_key(id))
                    .collect();
                Ok(Some(Findings {
                    settled: Settled {
                        began_ms: scan.began_ms,
                        foreign: scan.foreign,
                    },
                    unnamed,
                }))
            }
        }
    }

    /// Finds out what was evicted.
    fn note_losses(&mut self, scan: &Scan, plane: &impl DataPlane) -> anyhow::Result<()> {
        let kinds = Kind::ALL.into_iter().zip(&scan.counters);
        for (((kind, began), seen), losses) in kinds.zip(scan.tally.by_kind).zip(&mut self.losses) {
            losses.note(began, &plane.pin_counters(kind)?, seen);
        }
        Ok(())
    }

    fn judge_entry(
        &mut self,
        entry: &Remembered,
        plane: &mut impl DataPlane,
        held: &Held,
    ) -> anyhow::Result<()> {
        let Some(scan) = &mut self.scan else {
            return Ok(());
        };
        match entry {
            Remembered::Fragment(key, id) => {
                // No fragment of a packet of so long ago is on its way.
                let is_old = self
                    .candidates
                    .get(id)
                    .is_some_and(|since| since.elapsed() > FRAGMENTS);
                if is_old {
                    return plane.remove_fragment(key);
                }
                scan.tally.fragments += 1;
            }
            Remembered::Pin(kind, flow, pin) => {
                let losses = self.losses.get_mut(*kind as usize);
                let remove = |plane: &mut _| {
                    if let Some(losses) = losses {
                        losses.swept += 1;
                    }
                    DataPlane::remove_pin(plane, *kind, flow)
                };
                let Some(home) = Place::of(flow, held) else {
                    // Nobody's any more.
                    return remove(plane);
                };
                let now_ms = milliseconds(plane);
                let settles = home.slots.settles_since(home.index, scan.began_ms, now_ms);
                if settles && is_useless(&home, *kind, flow, pin, plane, held)? {
                    // It may be another pin by now: a handshake that was done meanwhile takes the home of an old one.
                    match plane.pin(*kind, flow)? {
                        Some(pin) if is_useless(&home, *kind, flow, &pin, plane, held)? => {
                            return remove(plane);
                        }
                        Some(_) => {}
                        None => return Ok(()),
                    }
                }
                if pin.backend != home.slot().current {
                    scan.foreign.insert((home.vip.id, home.index));
                }
                *scan.tally.by_vip.entry(home.vip.id).or_default() += 1;
                *scan.tally.by_backend.entry(pin.backend).or_default() += 1;
                if let Some(count) = scan.tally.by_kind.get_mut(*kind as usize) {
                    *count += 1;
                }
            }
        }
        scan.candidates.remove(&entry.backend());
        Ok(())
    }
}

/// Whether a pin of a slot that is Settling counts for nothing: expired, to a dead backend, or to the slot's owner.
///
/// One to the owner stays while another pin of the flow names somebody else, who would count without it.
fn is_useless(
    home: &Place<'_>,
    kind: Kind,
    flow: &Flow,
    pin: &Pin,
    plane: &impl DataPlane,
    held: &Held,
) -> anyhow::Result<bool> {
    let is_alive = |id: u16| held.backend(id).is_some_and(Backend::is_alive);
    let now_ns = plane.now_ns().saturating_sub(MARGIN_NS);
    if home.idle.is_over(pin, now_ns) || !is_alive(pin.backend) {
        return Ok(true);
    }
    let owner = home.slot().current;
    if pin.backend != owner {
        return Ok(false);
    }
    for other in Kind::ALL.into_iter().filter(|other| *other != kind) {
        if let Some(pin) = plane.pin(other, flow)?
            && pin.backend != owner
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Now, in milliseconds of the monotonic clock, modulo 2³².
pub(super) fn milliseconds(plane: &impl DataPlane) -> u32 {
    (plane.now_ns() / 1_000_000) as u32
}

#[cfg(test)]
mod tests;
