//! How many sources the maps know. The kernel does not tell: they are counted one by one, on a thread of their own, when
//! somebody asks and the last count was some time ago.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use super::sweep::{PAUSE, SHARE};
use crate::dataplane::DataPlane;

/// The count, and when there may be another.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    count: Option<u64>,
    is_counting: bool,
    next: Option<Instant>,
}

impl Known {
    /// The last count, if there was one; begins another where it is time.
    pub(super) fn count(&self, plane: &impl DataPlane) -> Option<u64> {
        let mut state = self.lock();
        let is_due = state.next.is_none_or(|next| next <= Instant::now());
        if is_due && !state.is_counting {
            state.is_counting = true;
            drop(state);
            self.begin(plane);
            state = self.lock();
        }
        state.count
    }

    fn begin(&self, plane: &impl DataPlane) {
        let known = self.clone();
        let counting = plane.scan_sources().and_then(|scan| {
            let count = move || {
                let began = Instant::now();
                let mut count = 0;
                let walked = scan.walk(&mut |_| {
                    count += 1;
                    ControlFlow::Continue(())
                });
                known.end(began, walked.is_ok().then_some(count));
            };
            Ok(thread::Builder::new()
                .name("sources".to_owned())
                .spawn(count)?)
        });
        if let Err(error) = counting {
            tracing::debug!(error = format!("{error:#}"), "sources cannot be counted");
            self.end(Instant::now(), None);
        }
    }

    fn end(&self, began: Instant, count: Option<u64>) {
        let mut state = self.lock();
        state.count = count.or(state.count);
        state.is_counting = false;
        state.next = Some(Instant::now() + PAUSE.max(began.elapsed() * SHARE));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
