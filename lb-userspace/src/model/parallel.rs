//! Work on several threads, for what takes milliseconds a piece: lookup tables.

use std::{num::NonZero, thread};

/// What `work` makes of each item, in the items' order, on as many threads as there are processors.
///
/// # Panics
/// Where `work` does.
pub(super) fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = items.len().div_ceil(threads);
    if share == items.len() {
        return items.iter().map(work).collect();
    }
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = items
            .chunks(share)
            .map(|items| scope.spawn(move || items.iter().map(work).collect::<Vec<_>>()))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| match thread.join() {
                Ok(made) => made,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_items_is_kept() {
        for count in [0, 1, 2, 3, 100, 1001] {
            let items: Vec<_> = (0..count).collect();
            let made = in_parallel(&items, |item| item * 2);
            assert!(made.iter().copied().eq((0..count).map(|item| item * 2)));
        }
    }
}
