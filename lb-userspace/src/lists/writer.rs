//! The one thread that writes access lists: a million prefixes take seconds, and neither packets nor the daemon's task
//! wait for them.
//!
//! What is not yet listed is written first, then which lists each VIP looks up, and what is listed no longer goes last:
//! a packet on the way finds for its source what was or what is to be. Only what differs is written.

use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::sync::watch;

use crate::{
    config::Entry,
    dataplane::ListPlane,
    model::listed::{Difference, Listed, differences},
};

/// How long after a failure the maps are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How far the thread has come.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// What was wanted, by number, and is in the maps.
    pub done: u64,
    /// How many prefixes the maps hold.
    pub prefixes: usize,
    /// Why it cannot go on for the moment.
    pub problem: Option<String>,
}

/// Hands lists to the thread. It ends when this is dropped.
#[derive(Debug)]
pub struct Writer {
    sender: mpsc::Sender<(u64, Listed)>,
    progress: watch::Receiver<Progress>,
    wanted: Listed,
    /// How much was wanted so far; 0 for nothing yet.
    number: u64,
}

impl Writer {
    /// Starts the thread. It reads back first what an earlier daemon left.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn start(plane: Box<dyn ListPlane>) -> anyhow::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let (progress, told) = watch::channel(Progress::default());
        thread::Builder::new()
            .name("access-lists".to_owned())
            .spawn(move || Thread::new(plane, receiver, progress).run())
            .context("starting the thread that writes access lists")?;
        Ok(Self {
            sender,
            progress: told,
            wanted: Listed::default(),
            number: 0,
        })
    }

    /// Has the maps hold `wanted` from now on. What they hold already costs nothing.
    pub fn want(&mut self, wanted: Listed) {
        if self.number > 0 && wanted.is_same(&self.wanted) {
            return;
        }
        self.number += 1;
        self.wanted = wanted.clone();
        // An error says that the thread has ended: that is told by `in_force`.
        self.sender.send((self.number, wanted)).ok();
    }

    /// What was wanted last.
    #[must_use]
    pub const fn wanted(&self) -> &Listed {
        &self.wanted
    }

    /// How far the thread has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Whether the maps hold what was wanted last.
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        self.progress.borrow().done == self.number
    }

    /// Waits until the maps hold what was wanted last.
    ///
    /// # Errors
    /// Why they cannot.
    pub async fn in_force(&mut self) -> anyhow::Result<()> {
        let number = self.number;
        let ended = |progress: &Progress| progress.done == number || progress.problem.is_some();
        let progress = self.progress.wait_for(ended).await;
        let progress = progress.context("the thread that writes access lists has ended")?;
        match &progress.problem {
            Some(problem) => anyhow::bail!("{problem}"),
            None => Ok(()),
        }
    }
}

/// Writes lists to maps that hold none, and returns when that is done: for maps that no daemon owns.
///
/// # Errors
/// The first write that failed.
pub fn load(plane: &mut dyn ListPlane, wanted: &Listed) -> anyhow::Result<()> {
    step(plane, &mut Listed::default(), wanted).map(|_written| ())
}

struct Thread {
    plane: Box<dyn ListPlane>,
    receiver: mpsc::Receiver<(u64, Listed)>,
    progress: watch::Sender<Progress>,
}

impl Thread {
    const fn new(
        plane: Box<dyn ListPlane>,
        receiver: mpsc::Receiver<(u64, Listed)>,
        progress: watch::Sender<Progress>,
    ) -> Self {
        Self {
            plane,
            receiver,
            progress,
        }
    }

    fn run(mut self) {
        let mut held = None;
        let Ok((mut number, mut wanted)) = self.receiver.recv() else {
            return;
        };
        loop {
            // Only the last of what has come meanwhile counts.
            while let Ok(newer) = self.receiver.try_recv() {
                (number, wanted) = newer;
            }
            let result = self.write(&mut held, &wanted);
            let is_done = result.is_ok();
            self.progress.send_modify(|progress| match result {
                Ok(()) => {
                    progress.done = number;
                    progress.prefixes = wanted.prefixes();
                    progress.problem = None;
                }
                Err(error) => {
                    let problem = format!("{error:#}; it is tried again");
                    tracing::error!(error = problem, "access lists are not as they should be");
                    progress.problem = Some(problem);
                }
            });
            let next = if is_done {
                self.receiver
                    .recv()
                    .map_err(|_ended| mpsc::RecvTimeoutError::Disconnected)
            } else {
                self.receiver.recv_timeout(RETRY)
            };
            match next {
                Ok(newer) => (number, wanted) = newer,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Makes the maps hold what is wanted. Where that fails, what they hold is read back the next time.
    fn write(&mut self, held: &mut Option<Listed>, wanted: &Listed) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut known = match held.take() {
            Some(known) => known,
            None => Listed::adopt(self.plane.prefixes()?, self.plane.list_scopes()?),
        };
        let written = step(&mut *self.plane, &mut known, wanted)?;
        *held = Some(known);
        if written > 0 {
            tracing::info!(
                prefixes = wanted.prefixes(),
                written,
                seconds = began.elapsed().as_secs_f64(),
                "access lists are in force"
            );
        }
        Ok(())
    }
}

/// Goes from `held` to `wanted`. Returns how many prefixes that took.
fn step(plane: &mut dyn ListPlane, held: &mut Listed, wanted: &Listed) -> anyhow::Result<usize> {
    // Who has the number of a VIP that is gone is not judged by its lists, not even for the moment.
    for (id, old) in &held.vips {
        let new = wanted.vips.get(id);
        let is_other = new.is_some_and(|new| old.key.is_some() && old.key != new.key);
        if new.is_none() || is_other {
            plane.set_list_scopes(*id, 0)?;
        }
    }
    let scopes: BTreeSet<u32> = held
        .scopes
        .keys()
        .chain(wanted.scopes.keys())
        .copied()
        .collect();
    let mut written = 0;
    for scope in &scopes {
        for difference in changes(held, wanted, *scope) {
            if let Difference::Set(prefix, verdict) = difference {
                plane.set_prefix(&prefix.key(*scope), verdict)?;
                written += 1;
            }
        }
    }
    for (id, vip) in &wanted.vips {
        plane.set_list_scopes(*id, vip.scopes)?;
    }
    for scope in &scopes {
        for difference in changes(held, wanted, *scope) {
            if let Difference::Gone(prefix) = difference {
                plane.clear_prefix(&prefix.key(*scope))?;
                written += 1;
            }
        }
    }
    *held = wanted.clone();
    Ok(written)
}

/// The differences of one scope; none to be looked for, where both are the very same lists.
fn changes<'a>(
    held: &'a Listed,
    wanted: &'a Listed,
    scope: u32,
) -> impl Iterator<Item = Difference> + 'a {
    let (old, new) = (held.scopes.get(&scope), wanted.scopes.get(&scope));
    let is_same = old.zip(new).is_some_and(|(old, new)| Arc::ptr_eq(old, new));
    let entries = |of: Option<&'a Arc<[Entry]>>| of.filter(|_| !is_same).map_or(&[][..], |of| of);
    differences(entries(old), entries(new))
}

#[cfg(test)]
mod tests;
