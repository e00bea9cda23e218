//! New connections all the time, and when those began that did not come about.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::lab::Namespace;

/// How many dial at a time: those that wait in vain must not leave a gap.
const DIALLERS: usize = 24;
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_millis(700);
/// Between two connections of a dialler.
const PAUSE: Duration = Duration::from_millis(20);

/// One attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) began: Instant,
    pub(super) failed: bool,
}

/// Dials all of `targets` in turn from `client` while `work` is done; returns what became of each attempt.
pub(super) fn during<T>(
    client: &Namespace,
    targets: &[SocketAddr],
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Vec<Attempt>)> {
    let ended = AtomicBool::new(false);
    let attempts = Mutex::new(Vec::new());
    let dial = || {
        client.inside(|| {
            for target in targets.iter().cycle() {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let began = Instant::now();
                let failed = TcpStream::connect_timeout(target, PATIENCE).is_err();
                let attempt = Attempt { began, failed };
                let mut attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner);
                attempts.push(attempt);
                drop(attempts);
                thread::sleep(PAUSE);
            }
            Ok(())
        })
    };
    let done = thread::scope(|scope| {
        for _ in 0..DIALLERS {
            scope.spawn(dial);
        }
        let done = work();
        ended.store(true, Ordering::Relaxed);
        done
    })?;
    let attempts = attempts
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    Ok((done, attempts))
}
