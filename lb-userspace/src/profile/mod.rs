//! What the daemon's processors are busy with: samples of its stacks, in the format that `pprof` and its relatives read.
//!
//! Until somebody asks there is no timer, no signal handler and no memory for it. The first profile takes memory for stacks (the
//! profiler keeps it, some 70 MB each for this and the next one) and for names.

mod format;

use std::{
    sync::{LazyLock, mpsc},
    thread,
    time::Duration,
};

use pprof::ProfilerGuardBuilder;
use tokio::sync::{Semaphore, oneshot};

/// Samples for each second that a processor is busy. No multiple of what else beats by the clock.
const FREQUENCY: i32 = 99;

/// Where no stack is walked: in what walks stacks itself, and in the kernel's page, which tells nobody how. The C library is
/// walked, since most of the daemon's time is in its system calls: what walks a stack allocates nothing and takes no lock
/// that another thread may hold for long.
const NOT_WALKED: [&str; 2] = ["libgcc", "vdso"];

/// The kernel has one timer for this in a process.
static TURN: Semaphore = Semaphore::const_new(1);

/// To the thread that takes profiles, once there is one. It is always the same: the profiler makes its memory anew after
/// each, and threads do not use what others have freed.
static JOBS: LazyLock<Option<mpsc::Sender<Job>>> = LazyLock::new(|| {
    let (jobs, queue) = mpsc::channel::<Job>();
    let thread = thread::Builder::new().name("profiles".to_owned());
    let started = thread.spawn(move || queue.into_iter().for_each(Job::run));
    started.is_ok().then_some(jobs)
});

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Somebody else's is under way.
    #[error("a profile is being taken already: try again when it is done")]
    Busy,
    /// The profiler failed.
    #[error("the profiler: {0}")]
    Failed(#[from] pprof::Error),
    /// It did not start, or has panicked.
    #[error("there is no thread that takes profiles")]
    NoThread,
}

/// Takes samples for a time and returns them as an uncompressed `profile.proto`. Whoever drops the future ends it.
///
/// # Errors
/// Another one is under way, or the kernel refuses.
pub(crate) async fn cpu(time: Duration) -> Result<Vec<u8>, Error> {
    let _turn = TURN.try_acquire().map_err(|_taken| Error::Busy)?;
    let (_asking, asked) = mpsc::channel();
    let (answer, answered) = oneshot::channel();
    let job = Job {
        time,
        asked,
        answer,
    };
    let jobs = JOBS.as_ref().ok_or(Error::NoThread)?;
    jobs.send(job).map_err(|_gone| Error::NoThread)?;
    answered.await.map_err(|_gone| Error::NoThread)?
}

/// A profile that is asked for.
struct Job {
    time: Duration,
    /// Ends when nobody asks any more.
    asked: mpsc::Receiver<()>,
    answer: oneshot::Sender<Result<Vec<u8>, Error>>,
}

impl Job {
    fn run(self) {
        if let Some(result) = take(self.time, &self.asked).transpose() {
            // Whoever asked may have gone.
            drop(self.answer.send(result));
        }
    }
}

/// Takes samples; `None` where nobody asks any more.
fn take(time: Duration, asked: &mpsc::Receiver<()>) -> Result<Option<Vec<u8>>, Error> {
    let guard = ProfilerGuardBuilder::default()
        .frequency(FREQUENCY)
        .blocklist(&NOT_WALKED)
        .build()?;
    if asked.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Disconnected) {
        return Ok(None);
    }
    // Names of functions are looked up in the binary's debug information, which takes a while.
    let report = guard.report().build();
    drop(guard);
    let encoded = report.map(|report| format::encode(&report));
    // What was read for it is larger than the rest of the daemon.
    backtrace::clear_symbol_cache();
    Ok(Some(encoded?))
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use prost::Message as _;

    use super::{format::Profile, *};

    /// Keeps a processor busy under a name that a profile must have.
    #[inline(never)]
    fn busy_for_the_profile(end: &AtomicBool) -> u64 {
        let mut sum = 0u64;
        while !end.load(Ordering::Relaxed) {
            for number in 0..10_000u64 {
                sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(number));
            }
        }
        sum
    }

    #[tokio::test]
    async fn what_a_thread_is_busy_with_is_in_the_profile() {
        let end = AtomicBool::new(false);
        let profile = thread::scope(|scope| {
            scope.spawn(|| busy_for_the_profile(&end));
            let taken = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    // How many samples there are depends on how busy the machine is with other things.
                    for _ in 0..30 {
                        let (first, second) =
                            tokio::join!(cpu(Duration::from_secs(1)), cpu(Duration::from_secs(1)));
                        assert!(matches!(second, Err(Error::Busy)), "{second:?}");
                        let profile = Profile::decode(first.unwrap().as_slice()).unwrap();
                        if !profile.sample.is_empty() {
                            return Some(profile);
                        }
                    }
                    None
                })
            });
            let profile = taken.join();
            end.store(true, Ordering::Relaxed);
            profile.unwrap()
        });
        let profile = profile.expect("30 s of a busy thread without a sample");
        let text = |index: i64| &profile.string_table[usize::try_from(index).unwrap()];
        let types = profile.sample_type.iter();
        let types: Vec<_> = types
            .map(|t| [t.kind, t.unit].map(|index| text(index).as_str()))
            .collect();
        assert_eq!(types, [["samples", "count"], ["cpu", "nanoseconds"]]);
        let names: Vec<_> = profile.function.iter().map(|f| text(f.name)).collect();
        let busy = names
            .iter()
            .any(|name| name.contains("busy_for_the_profile"));
        assert!(busy, "{names:?}");
        // Every number leads somewhere.
        for sample in &profile.sample {
            for id in &sample.location_id {
                let location = &profile.location[usize::try_from(*id - 1).unwrap()];
                assert_eq!(location.id, *id);
                for line in &location.line {
                    let function =
                        &profile.function[usize::try_from(line.function_id - 1).unwrap()];
                    assert_eq!(function.id, line.function_id);
                }
            }
        }
    }
}
