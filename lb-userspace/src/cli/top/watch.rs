//! `weir top` on the screen: asks, listens for keys, and draws.

use std::time::Duration;

use anyhow::{Context as _, bail};
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures_util::StreamExt as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};

use super::{
    Args,
    ask::{Daemon, limits_sources, now_text},
    draw::{self, Away, View},
    look::Look,
    model::{SampledSources, Top},
    rates::Sample,
    samples::{Sampled, Subscription, Wanted},
    state::{Effect, Pane, State},
    talkers::{Talkers, sample_for},
    terminal::Terminal,
};
use crate::{
    api::{
        Limits,
        client::{Client, ClientError},
    },
    cli::Outcome,
};

/// What the daemon has answered.
enum Answer {
    Sample(Result<Box<Sample>, ClientError>),
    /// With how long the daemon is to be left alone.
    Limits(Option<Limits>, Duration),
}

pub(super) async fn run(args: &Args) -> anyhow::Result<Outcome> {
    let mut ends = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
        signal(SignalKind::interrupt())?,
    ];
    let [terminated, hung_up, interrupted] = &mut ends;
    let daemon = Daemon::new(Client::new(&args.socket));
    let (answers, mut answered) = mpsc::channel(8);
    let (interval, pace) = watch::channel(args.interval);
    tokio::spawn(poll(daemon.clone(), pace, answers.clone()));
    let mut shown = Shown::new(args, daemon, answers);
    let look = Look::of_terminal();

    let mut terminal = Terminal::take()?;
    let mut keys = EventStream::new();
    loop {
        terminal.draw(|frame| draw::frame(frame, &shown.view(look)))?;
        // Samples of packets come often, and are counted without a new picture.
        let effect = loop {
            tokio::select! {
                key = keys.next() => {
                    let key = key.context("the terminal has gone")?.context("read a key")?;
                    break shown.event(&key);
                }
                answer = answered.recv() => {
                    let Some(answer) = answer else {
                        bail!("what asks the daemon has ended");
                    };
                    shown.take(answer);
                    break Effect::None;
                }
                sampled = next(&mut shown.subscription) => shown.count(sampled),
                _ = terminated.recv() => return Ok(Outcome::Done),
                _ = hung_up.recv() => return Ok(Outcome::Done),
                _ = interrupted.recv() => return Ok(Outcome::Done),
            }
        };
        match effect {
            Effect::None => {}
            Effect::Quit => return Ok(Outcome::Done),
            Effect::Suspend => terminal.suspend()?,
        }
        interval.send_if_modified(|interval| {
            let is_other = *interval != shown.state.interval;
            *interval = shown.state.interval;
            is_other
        });
        shown.subscribe();
    }
}

/// Asks for a status, again and again.
async fn poll(daemon: Daemon, mut pace: watch::Receiver<Duration>, answers: mpsc::Sender<Answer>) {
    loop {
        let began = Instant::now();
        let sample = daemon.sample().await.map(Box::new);
        if answers.send(Answer::Sample(sample)).await.is_err() {
            return;
        }
        loop {
            let next = began + *pace.borrow_and_update();
            match timeout_at(next, pace.changed()).await {
                Err(_) => break,
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
            }
        }
    }
}

/// What comes of a subscription; never, where there is none.
async fn next(subscription: &mut Option<Subscription>) -> Sampled {
    if let Some(subscription) = subscription
        && let Some(sampled) = subscription.samples.recv().await
    {
        return sampled;
    }
    std::future::pending().await
}

/// All that is known, and what of it is on the screen.
struct Shown {
    daemon: Daemon,
    answers: mpsc::Sender<Answer>,
    state: State,
    /// The last sample, as long as the daemon answers: over a gap there is no rate.
    before: Option<Box<Sample>>,
    top: Option<Top>,
    away: Option<Away>,
    limits: Option<Limits>,
    /// When limits may be asked for again; `None` while they are.
    limits_from: Option<Instant>,
    subscription: Option<Subscription>,
    talkers: Talkers,
    /// Why there are no samples.
    unavailable: Option<String>,
}

impl Shown {
    fn new(args: &Args, daemon: Daemon, answers: mpsc::Sender<Answer>) -> Self {
        let pane = if args.sources {
            Pane::Sources
        } else {
            Pane::Drops
        };
        Self {
            state: State::new(args.vip.clone(), pane, args.interval),
            before: None,
            top: None,
            away: None,
            limits: None,
            limits_from: Some(Instant::now()),
            subscription: None,
            talkers: Talkers::new(daemon.now()),
            unavailable: None,
            daemon,
            answers,
        }
    }

    fn view(&self, look: Look) -> View<'_> {
        View {
            state: &self.state,
            top: self.top.as_ref(),
            away: self.away.as_ref(),
            look,
        }
    }

    fn event(&mut self, event: &Event) -> Effect {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => {
                self.state.key(*key, self.top.as_ref())
            }
            // A new size, at most: the next picture has it.
            _ => Effect::None,
        }
    }

    fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Sample(Ok(sample)) => {
                self.away = None;
                let before = self.before.take();
                if !self.state.is_paused {
                    let mut top = Top::new(before.as_deref(), &sample, self.limits.as_ref());
                    top.sampled_sources = self.sampled_sources();
                    self.top = Some(top);
                }
                self.ask_limits(&sample);
                self.before = Some(sample);
                self.pace_samples();
            }
            Answer::Sample(Err(error)) => {
                self.before = None;
                let error = error.to_string();
                let since = self.away.take().map(|away| away.since);
                let since =
                    since.unwrap_or_else(|| now_text().get(11..19).unwrap_or("?").to_owned());
                self.away = Some(Away { since, error });
            }
            Answer::Limits(limits, rest) => {
                self.limits = limits;
                self.limits_from = Some(Instant::now() + rest);
            }
        }
    }

    /// Has the limits of sources measured, where there are some and this takes the daemon no more than a tenth of a CPU.
    fn ask_limits(&mut self, sample: &Sample) {
        if !limits_sources(&sample.status) {
            self.limits = None;
            return;
        }
        if self.limits_from.is_none_or(|from| from > Instant::now()) {
            return;
        }
        self.limits_from = None;
        let (daemon, answers) = (self.daemon.clone(), self.answers.clone());
        let interval = self.state.interval;
        tokio::spawn(async move {
            let began = Instant::now();
            let limits = daemon.limits(interval).await.ok();
            // What it took longer than it measured, it read maps.
            let measured = limits.as_ref().map_or(0.0, |limits| limits.seconds);
            let read = began.elapsed().as_secs_f64() - measured;
            let rest = Duration::from_secs_f64(10.0 * read.clamp(0.0, 60.0));
            // Nobody listens once the screen has ended.
            answers.send(Answer::Limits(limits, rest)).await.ok();
        });
    }

    fn count(&mut self, sampled: Sampled) {
        match sampled {
            Sampled::Open => {
                self.unavailable = None;
                self.talkers.begin(self.daemon.now());
            }
            Sampled::Packets(packets) => self.talkers.add_all(&packets),
            Sampled::Unavailable(why) => self.unavailable = Some(why),
        }
    }

    /// The sources as samples tell; `None` where nobody asks.
    fn sampled_sources(&mut self) -> Option<SampledSources> {
        self.subscription.as_ref()?;
        Some(SampledSources {
            unavailable: self.unavailable.clone(),
            ..self.talkers.told(self.daemon.now())
        })
    }

    /// Samples packets while their sources are shown, and only then.
    fn subscribe(&mut self) {
        if self.state.pane != Pane::Sources {
            self.subscription = None;
            self.unavailable = None;
            return;
        }
        let vip = &self.state.vip;
        let is_there = |subscription: &Subscription| subscription.wanted.vip == *vip;
        if self.subscription.as_ref().is_some_and(is_there) {
            return;
        }
        // One of how many is known once it is known how much comes.
        let coming = self.top.as_ref().and_then(|top| top.coming(vip.as_deref()));
        let Some(coming) = coming else {
            return;
        };
        let wanted = Wanted {
            sample: sample_for(coming, None),
            vip: vip.clone(),
        };
        self.talkers = Talkers::new(self.daemon.now());
        self.subscription = Some(Subscription::open(self.daemon.client.clone(), wanted));
    }

    /// Samples more or less where more or less comes.
    fn pace_samples(&mut self) {
        let Some(subscription) = &self.subscription else {
            return;
        };
        let Wanted { sample, vip } = &subscription.wanted;
        let coming = self.top.as_ref().and_then(|top| top.coming(vip.as_deref()));
        let sampled = self.talkers.packets_per_second(self.daemon.now(), *sample);
        let coming = coming.unwrap_or_default().max(sampled);
        let wanted = Wanted {
            sample: sample_for(coming, Some(*sample)),
            vip: vip.clone(),
        };
        if wanted != subscription.wanted {
            self.subscription = Some(Subscription::open(self.daemon.client.clone(), wanted));
        }
    }
}
