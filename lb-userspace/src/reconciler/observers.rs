//! Who watches packets. The first one has the observing program loaded, on a thread of its own; while somebody watches it
//! is in on every interface, and with the last one the normal program comes back.

use std::{collections::HashMap, sync::Arc, time::Duration};

use lb_common::observe::{MAX_WATCHES, Watches};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};

use super::Reconciler;
use crate::{
    api::{ObservedStatus, Refusal},
    dataplane::{DataPlane, bpf::Observer},
    model::ip_address,
    observe::{Hub, Names, Reader, Subscription, Wanted},
};

/// How many places whoever may only read can take: the others are for captures.
const READERS: usize = 4;

/// How long after a failure the normal program is tried again.
const RETRY: Duration = Duration::from_secs(1);

type Reply = oneshot::Sender<Result<Subscription, Refusal>>;
type Loaded = anyhow::Result<Box<Observer>>;

/// Who watches.
pub(super) struct Observers {
    hub: Arc<Hub>,
    /// Takes records out of the ring; there is one once the program is loaded.
    reader: Option<Reader>,
    /// Those who wait until it is.
    waiting: Vec<(Wanted, Reply)>,
    loaded: (mpsc::Sender<Loaded>, mpsc::Receiver<Loaded>),
    ended: (mpsc::UnboundedSender<usize>, mpsc::UnboundedReceiver<usize>),
    watches: Watches,
    /// What each wants, by its place.
    places: [Option<Wanted>; MAX_WATCHES],
    /// Why the programs could not be swapped.
    problem: Option<String>,
}

/// What there is to do.
pub(super) enum Turn {
    /// The program is loaded, or cannot be.
    Loaded(Loaded),
    /// A watcher has gone.
    Ended(usize),
    /// What could not be swapped is to be tried again.
    Again,
}

impl Default for Observers {
    fn default() -> Self {
        Self {
            hub: Arc::new(Hub::new()),
            reader: None,
            waiting: Vec::new(),
            loaded: mpsc::channel(1),
            ended: mpsc::unbounded_channel(),
            watches: Watches::default(),
            places: Default::default(),
            problem: None,
        }
    }
}

impl Observers {
    /// Waits for something to do.
    pub(super) async fn next(&mut self) -> Turn {
        let has_failed = self.problem.is_some();
        let again = async {
            if has_failed {
                sleep(RETRY).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        // The senders live in this task, so there always are others.
        tokio::select! {
            Some(loaded) = self.loaded.1.recv() => Turn::Loaded(loaded),
            Some(watcher) = self.ended.1.recv() => Turn::Ended(watcher),
            () = again => Turn::Again,
        }
    }

    /// Why the programs could not be swapped, if they could not.
    pub(super) const fn problem(&self) -> Option<&String> {
        self.problem.as_ref()
    }

    /// A place for a watcher.
    fn place(&self, wanted: &Wanted) -> Option<usize> {
        let readers = self.places.iter().flatten();
        let readers = readers.filter(|taken| !taken.is_capture).count();
        if !wanted.is_capture && readers >= READERS {
            return None;
        }
        self.places.iter().position(Option::is_none)
    }
}

impl<D: DataPlane> Reconciler<D> {
    /// Lets somebody watch, once the program is loaded.
    pub(super) fn watch_packets(&mut self, wanted: Wanted, reply: Reply) {
        if let Err(refusal) = self.vip_to_watch(&wanted) {
            reply.send(Err(refusal)).ok();
            return;
        }
        if self.observers.reader.is_some() {
            reply.send(self.open_watch(&wanted)).ok();
            return;
        }
        self.observers.waiting.push((wanted, reply));
        if self.observers.waiting.len() > 1 {
            return;
        }
        let loaded = self.observers.loaded.0.clone();
        match self.plane.load_observer() {
            Ok(load) => {
                // The verifier takes a second; packets and commands do not wait for it.
                tokio::task::spawn_blocking(move || loaded.blocking_send(load()).ok());
            }
            Err(error) => self.refuse_waiting(&format!("{error:#}")),
        }
    }

    /// Goes on with who watches.
    pub(super) fn turn_observers(&mut self, turn: Turn) {
        match turn {
            Turn::Loaded(loaded) => {
                let taken = loaded.and_then(|observer| self.plane.take_observer(observer));
                match taken {
                    Ok(records) => {
                        let hub = Arc::clone(&self.observers.hub);
                        self.observers.reader = Some(Reader::start(records, hub));
                        for (wanted, reply) in std::mem::take(&mut self.observers.waiting) {
                            reply.send(self.open_watch(&wanted)).ok();
                        }
                    }
                    Err(error) => self.refuse_waiting(&format!("{error:#}")),
                }
            }
            Turn::Ended(watcher) => {
                self.close_watch(watcher);
                self.swap_programs();
            }
            Turn::Again => self.swap_programs(),
        }
    }

    fn refuse_waiting(&mut self, error: &str) {
        tracing::error!(error, "packets cannot be watched");
        for (_, reply) in self.observers.waiting.drain(..) {
            reply.send(Err(Refusal::Failed(error.to_owned()))).ok();
        }
    }

    /// The id of the VIP that is to be watched, if one is.
    fn vip_to_watch(&self, wanted: &Wanted) -> Result<Option<u32>, Refusal> {
        let Some(name) = &wanted.vip else {
            return Ok(None);
        };
        let mut vips = self.wanted.iter().flat_map(|wanted| &wanted.vips);
        let vip = vips.find(|vip| vip.name == *name);
        let vip = vip.ok_or_else(|| Refusal::Unknown(format!("there is no VIP {name}")))?;
        Ok(Some(vip.entry.id))
    }

    fn open_watch(&mut self, wanted: &Wanted) -> Result<Subscription, Refusal> {
        let failed = |error: anyhow::Error| Refusal::Failed(format!("{error:#}"));
        let vip = self.vip_to_watch(wanted)?;
        let place = self.observers.place(wanted).ok_or_else(|| {
            let text = "too many watch packets already: end one (`weir status` tells how many)";
            Refusal::TooMuch(text.to_owned())
        })?;
        self.observers.hub.set_names(self.observed_names());
        let (ended, now_ns) = (self.observers.ended.0.clone(), self.plane.now_ns());
        let subscription = self.observers.hub.open(place, wanted, now_ns, ended);
        let (lot, watch) = wanted.watch(vip);
        let watches = &mut self.observers.watches;
        if let (Some(sampled), Some(held)) = (
            watches.sampled.get_mut(place),
            watches.watches.get_mut(place),
        ) {
            (*sampled, *held) = (lot, watch);
        }
        if let Some(taken) = self.observers.places.get_mut(place) {
            *taken = Some(wanted.clone());
        }
        self.observers.follow_wanted();
        // Where it fails, the dropped subscription ends the watch.
        self.plane
            .set_watches(&self.observers.watches)
            .map_err(failed)?;
        self.plane.observe(true).map_err(failed)?;
        tracing::info!(watcher = place, ?wanted, "packets are watched");
        Ok(subscription)
    }

    fn close_watch(&mut self, watcher: usize) {
        self.observers.hub.close(watcher);
        if let Some(sampled) = self.observers.watches.sampled.get_mut(watcher) {
            *sampled = 0;
        }
        if let Some(taken) = self.observers.places.get_mut(watcher) {
            *taken = None;
        }
        self.observers.follow_wanted();
        tracing::info!(watcher, "packets are no longer watched");
        if let Err(error) = self.plane.set_watches(&self.observers.watches) {
            let error = format!("{error:#}");
            tracing::error!(error, "who watches cannot be written");
        }
    }

    /// Puts in the program that is wanted now.
    pub(super) fn swap_programs(&mut self) {
        let is_wanted = self.observers.places.iter().any(Option::is_some);
        self.observers.problem = self.plane.observe(is_wanted).err().map(|error| {
            let error = format!("{error:#}");
            tracing::error!(error, "the program that observes cannot be swapped");
            error
        });
    }

    /// Follows what the maps name, while somebody watches.
    pub(super) fn follow_names(&self) {
        if self.observers.hub.is_active() {
            self.observers.hub.set_names(self.observed_names());
        }
    }

    fn observed_names(&self) -> Names {
        let snapshot = self.snapshots.borrow();
        let links = snapshot.links.iter();
        let interfaces: HashMap<u32, String> = links
            .map(|(ifindex, link)| (*ifindex, link.name.clone()))
            .collect();
        let own = self.interfaces().iter().filter_map(|name| {
            let (ifindex, _) = interfaces.iter().find(|(_, known)| *known == name)?;
            Some(*ifindex)
        });
        let wanted = self.wanted.as_ref();
        let vips = wanted.iter().flat_map(|wanted| &wanted.vips);
        let backends = self.held.backends();
        Names {
            own: own.collect(),
            vips: vips.map(|vip| (vip.entry.id, vip.name.clone())).collect(),
            backends: backends
                .map(|(id, entry)| (id, ip_address(entry.address)))
                .collect(),
            interfaces,
        }
    }

    /// Who watches, and what they were told.
    pub(super) fn observed_status(&self) -> ObservedStatus {
        let totals = self.observers.hub.totals();
        ObservedStatus {
            active: self.plane.is_observed(),
            watchers: self.observers.hub.watchers(),
            captured: totals.captured,
            skipped: totals.skipped,
        }
    }

    /// Lets nobody watch any more.
    pub(super) fn end_watches(&mut self) {
        for watcher in 0..MAX_WATCHES {
            self.observers.hub.close(watcher);
        }
        self.observers.places = Default::default();
        if self.plane.is_observed() {
            self.swap_programs();
        }
    }
}

impl Observers {
    /// Has the program save what the most curious one wants, and look at addresses if anybody does.
    fn follow_wanted(&mut self) {
        let saved = self.places.iter().flatten().map(|wanted| wanted.saved);
        self.watches.saved = saved.max().unwrap_or_default();
        let lots = self.watches.sampled.iter().zip(&self.watches.watches);
        let by_address = lots.filter(|(lot, watch)| **lot != 0 && watch.has_addresses());
        self.watches.by_address = u32::from(by_address.count() > 0);
    }
}
