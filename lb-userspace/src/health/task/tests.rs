use std::{
    collections::BTreeSet,
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::*;
use crate::{config::health::Probe, health::Health};

/// What a backend does with a probe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answer {
    Pass,
    Fail,
    Silence,
    NotAsked,
    Panic,
}

/// Backends without a network, which note when they are asked.
#[derive(Default)]
struct Backends {
    answers: Mutex<HashMap<SocketAddr, Answer>>,
    asked: Mutex<Vec<(Instant, SocketAddr)>>,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

impl Backends {
    fn set(&self, backend: u32, answer: Answer) {
        let target = check(backend).target;
        self.answers.lock().unwrap().insert(target, answer);
    }

    fn asked(&self) -> Vec<(Instant, SocketAddr)> {
        self.asked.lock().unwrap().clone()
    }
}

impl Prober for Backends {
    async fn probe(&self, check: &Check) -> Result<(), Failure> {
        struct Leave<'a>(&'a AtomicUsize);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.asked
            .lock()
            .unwrap()
            .push((Instant::now(), check.target));
        let under_way = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        let _leave = Leave(&self.under_way);
        self.most_under_way.fetch_max(under_way, Ordering::Relaxed);
        let answer = self.answers.lock().unwrap().get(&check.target).copied();
        match answer.unwrap_or(Answer::Pass) {
            Answer::Pass => Ok(()),
            Answer::Fail => Err(Failure::Failed("no".to_owned())),
            Answer::Silence => pending().await,
            Answer::NotAsked => Err(Failure::NotAsked("no descriptors".to_owned())),
            Answer::Panic => panic!("a defect"),
        }
    }
}

fn check(backend: u32) -> Check {
    Check {
        target: (Ipv4Addr::from(0x0a00_0000 + backend), 80).into(),
        probe: Probe::Tcp,
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
    }
}

fn unknown(checks: impl IntoIterator<Item = Check>) -> BTreeMap<Check, Verdict> {
    let checks = checks.into_iter();
    checks.map(|check| (check, Verdict::Unknown)).collect()
}

struct Lab {
    backends: Arc<Backends>,
    health: Health,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Lab {
    fn new() -> Self {
        let backends = Arc::new(Backends::default());
        let (health, snapshots) = Health::start_with(Arc::clone(&backends)).unwrap();
        Self {
            backends,
            health,
            snapshots,
        }
    }

    async fn until(&mut self, is_so: impl FnMut(&Arc<Snapshot>) -> bool) -> Arc<Snapshot> {
        let hour = Duration::from_hours(1);
        let snapshot = timeout(hour, self.snapshots.wait_for(is_so)).await;
        Arc::clone(&snapshot.unwrap().unwrap())
    }

    async fn until_verdict(&mut self, check: &Check, verdict: Verdict) -> State {
        let snapshot = self.until(|snapshot| snapshot.verdict(check) == verdict);
        snapshot.await.states[check].clone()
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_probe_comes_within_a_second_and_decides() {
    let mut lab = Lab::new();
    lab.backends.set(2, Answer::Fail);
    let began = Instant::now();
    lab.health.watch(unknown([check(1), check(2)]));
    let snapshot = lab.until(|snapshot| snapshot.states.len() == 2).await;
    assert!(
        snapshot
            .states
            .values()
            .all(|s| s.verdict == Verdict::Unknown)
    );
    let healthy = lab.until_verdict(&check(1), Verdict::Healthy).await;
    let failed = lab.until_verdict(&check(2), Verdict::Failed).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!((healthy.flaps, failed.flaps), (0, 0));
    assert_eq!(
        (healthy.reason.as_deref(), failed.reason.as_deref()),
        (None, Some("no"))
    );
}

#[tokio::test(start_paused = true)]
async fn falls_after_fall_and_rises_after_rise_probes() {
    let mut lab = Lab::new();
    lab.health.watch(unknown([check(1)]));
    lab.until_verdict(&check(1), Verdict::Healthy).await;

    lab.backends.set(1, Answer::Fail);
    let before = lab.backends.asked().len();
    let state = lab.until_verdict(&check(1), Verdict::Failed).await;
    assert_eq!(lab.backends.asked().len() - before, 3);
    assert_eq!((state.flaps, state.record.read().in_a_row), (1, 3));

    lab.backends.set(1, Answer::Pass);
    let before = lab.backends.asked().len();
    let state = lab.until_verdict(&check(1), Verdict::Healthy).await;
    assert_eq!(lab.backends.asked().len() - before, 2);
    assert_eq!((state.flaps, state.reason), (2, None));
    let results = state.record.read();
    assert_eq!((results.failed, results.timed_out), (3, 0));
    assert_eq!(results.passed, lab.backends.asked().len() as u64 - 3);
    assert_eq!(
        lab.health
            .durations()
            .with_label_values(&["tcp"])
            .get_sample_count(),
        results.passed + 3
    );
}

#[tokio::test(start_paused = true)]
async fn silence_fails_by_the_timeout() {
    let mut lab = Lab::new();
    lab.backends.set(1, Answer::Silence);
    lab.health.watch(unknown([check(1)]));
    let state = lab.until_verdict(&check(1), Verdict::Failed).await;
    assert_eq!(state.reason.as_deref(), Some("no answer within 1s"));
    let results = state.record.read();
    assert_eq!((results.timed_out, results.failed), (1, 0));
    assert_eq!(results.last_latency, Some(Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn what_this_node_lacks_changes_no_verdict() {
    for answer in [Answer::NotAsked, Answer::Panic] {
        let mut lab = Lab::new();
        lab.health.watch(unknown([check(1)]));
        let state = lab.until_verdict(&check(1), Verdict::Healthy).await;
        lab.backends.set(1, answer);
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(state.record.read().not_asked > 10, "{answer:?}");
        let verdict = lab.snapshots.borrow().verdict(&check(1));
        assert_eq!(verdict, Verdict::Healthy, "{answer:?}");
        // And the check goes on.
        lab.backends.set(1, Answer::Fail);
        lab.until_verdict(&check(1), Verdict::Failed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_verdict_of_before_takes_fall_or_rise_to_turn() {
    let mut lab = Lab::new();
    lab.backends.set(1, Answer::Fail);
    let marks = [(check(1), Verdict::Healthy), (check(2), Verdict::Failed)];
    lab.health.watch(marks.into());
    let snapshot = lab.until(|snapshot| snapshot.states.len() == 2).await;
    assert_eq!(snapshot.verdict(&check(1)), Verdict::Healthy);
    assert_eq!(snapshot.verdict(&check(2)), Verdict::Failed);
    let failed = lab.until_verdict(&check(1), Verdict::Failed).await;
    assert_eq!(failed.record.read().failed, 3);
    let healthy = lab.until_verdict(&check(2), Verdict::Healthy).await;
    assert!(healthy.record.read().passed >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_pace_keeps_the_verdict() {
    let mut lab = Lab::new();
    lab.backends.set(1, Answer::Fail);
    lab.health.watch(unknown([check(1), check(2)]));
    lab.until_verdict(&check(1), Verdict::Failed).await;
    let slower = Check {
        interval: Duration::from_secs(9),
        ..check(1)
    };
    let elsewhere = Check {
        target: ([10, 0, 0, 1], 81).into(),
        ..check(1)
    };
    let next = unknown([slower.clone(), elsewhere.clone()]);
    lab.health.watch(next);
    let snapshot = lab.until(|s| s.states.contains_key(&slower)).await;
    assert_eq!(snapshot.verdict(&slower), Verdict::Failed);
    assert_eq!(snapshot.verdict(&elsewhere), Verdict::Unknown);
    assert_eq!(snapshot.states.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn running_checks_go_on_and_others_end() {
    let mut lab = Lab::new();
    lab.health.watch(unknown([check(1), check(2)]));
    let before = lab.until_verdict(&check(1), Verdict::Healthy).await;
    lab.until_verdict(&check(2), Verdict::Healthy).await;

    // The verdict that comes with a check that runs already means nothing.
    lab.health.watch([(check(1), Verdict::Failed)].into());
    let snapshot = lab.until(|snapshot| snapshot.states.len() == 1).await;
    assert_eq!(snapshot.verdict(&check(1)), Verdict::Healthy);
    assert!(Arc::ptr_eq(
        &before.record,
        &snapshot.states[&check(1)].record
    ));

    let before = lab.backends.asked().len();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let asked = lab.backends.asked().into_iter().skip(before);
    let asked: BTreeSet<_> = asked.map(|(_, target)| target).collect();
    assert_eq!(asked, [check(1).target].into());

    lab.health.watch(BTreeMap::new());
    lab.until(|snapshot| snapshot.states.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_a_check_that_ends_is_given_up() {
    let mut lab = Lab::new();
    lab.backends.set(1, Answer::Silence);
    lab.health.watch(unknown([check(1)]));
    while lab.backends.under_way.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    lab.health.watch(BTreeMap::new());
    lab.until(|snapshot| snapshot.states.is_empty()).await;
    tokio::task::yield_now().await;
    assert_eq!(lab.backends.under_way.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn ends_with_its_handle() {
    let mut lab = Lab::new();
    lab.health.watch(unknown([check(1)]));
    lab.until_verdict(&check(1), Verdict::Healthy).await;
    drop(lab.health);
    while lab.snapshots.changed().await.is_ok() {}
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_checks_make_no_burst() {
    let lab = Lab::new();
    let began = Instant::now();
    lab.health.watch(unknown((0..10_000).map(check)));
    tokio::time::sleep(Duration::from_secs(20)).await;

    let asked = lab.backends.asked();
    let mut parts = [0_u32; 1000];
    for (at, _) in &asked {
        // Tokio's time is exact to the millisecond.
        let part = at.duration_since(began).as_millis() / 20;
        if let Some(count) = parts.get_mut(part as usize) {
            *count += 1;
        }
    }
    // The first probes take a second: 200 in 20 ms. Then 10,000 come in 2 s: 100 in 20 ms.
    let (first, later) = parts.split_at(50);
    assert!(first.iter().all(|count| *count < 300), "{first:?}");
    let later = later.get(75..).unwrap();
    assert!(
        later.iter().all(|count| (40..180).contains(count)),
        "{later:?}"
    );

    let mut probes: HashMap<SocketAddr, u32> = HashMap::new();
    for (_, target) in asked {
        *probes.entry(target).or_default() += 1;
    }
    assert_eq!(probes.len(), 10_000);
    assert!(probes.values().all(|count| (9..=12).contains(count)));
}

#[tokio::test(start_paused = true)]
async fn so_many_probes_and_no_more_are_under_way() {
    let mut lab = Lab::new();
    let count = u32::try_from(MOST_PROBES).unwrap() + 500;
    for backend in 0..count {
        lab.backends.set(backend, Answer::Silence);
    }
    let slow = |backend| Check {
        timeout: Duration::from_secs(2),
        ..check(backend)
    };
    lab.health.watch(unknown((0..count).map(slow)));
    let all_failed = |snapshot: &Arc<Snapshot>| {
        let mut states = snapshot.states.values();
        states.len() > 0 && states.all(|state| state.verdict == Verdict::Failed)
    };
    lab.until(all_failed).await;
    let most = lab.backends.most_under_way.load(Ordering::Relaxed);
    assert_eq!(most, MOST_PROBES);
}
