//! The client's side: connections that stay, others that come and go, and a word about each that breaks.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time,
};

use super::{
    event::{Broken, Event, Refused, Tally},
    now_ms,
};

/// How long one step may take, be it connecting or an echo: many retransmissions, so that what is lost stays lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between the lines of a connection, in milliseconds.
const PAUSE_MS: Range<u64> = 1000..2000;
/// How many lines a connection that does not stay sends.
const PASSING_LINES: Range<u64> = 0..6;
/// How many connections may be on their way at a time, so that no accept queue overflows.
const CONNECTING: usize = 64;
/// Time between two tallies.
const TALLY: Duration = Duration::from_secs(1);

/// Whom to hold how many connections to.
#[derive(Args, Debug, Clone)]
pub struct Options {
    /// Whom to connect to, as ADDRESS:PORT.
    pub target: SocketAddr,
    /// How many connections to hold for as long as this runs.
    #[arg(long, default_value_t = 2000)]
    pub connections: u32,
    /// How many others to have at a time: they come and go.
    #[arg(long, default_value_t = 100)]
    pub passing: u32,
}

/// What all connections share.
struct Shared {
    target: SocketAddr,
    connecting: Semaphore,
    events: mpsc::UnboundedSender<Event>,
    stop: watch::Receiver<bool>,
    open: AtomicU32,
    messages: AtomicU64,
    passed: AtomicU64,
}

/// Runs until SIGTERM; then every connection sends a last line, waits for its echo and closes. Events go to `tell`.
pub fn run(options: &Options, tell: impl FnMut(&Event) -> Result<()>) -> Result<()> {
    super::raise_open_files()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start tokio")?;
    runtime.block_on(hold(options, tell))
}

async fn hold(options: &Options, mut tell: impl FnMut(&Event) -> Result<()>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let (events, mut told) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(false);
    let shared = Arc::new(Shared {
        target: options.target,
        connecting: Semaphore::new(CONNECTING),
        events,
        stop: stopped,
        open: AtomicU32::new(0),
        messages: AtomicU64::new(0),
        passed: AtomicU64::new(0),
    });
    let mut connections = JoinSet::new();
    for stays in [(options.connections, true), (options.passing, false)]
        .into_iter()
        .flat_map(|(count, stays)| (0..count).map(move |_| stays))
    {
        connections.spawn(again_and_again(Arc::clone(&shared), stays));
    }
    let mut tally = time::interval(TALLY);
    loop {
        tokio::select! {
            Some(event) = told.recv() => tell(&event)?,
            _ = tally.tick() => tell(&shared.tally())?,
            _ = terminate.recv() => drop(stop.send(true)),
            ended = connections.join_next() => match ended {
                Some(ended) => ended.context("a connection's task panicked")?,
                None => break,
            },
        }
    }
    while let Ok(event) = told.try_recv() {
        tell(&event)?;
    }
    tell(&shared.tally())
}

/// Opens a connection, and another one whenever it has ended, until all is to stop.
async fn again_and_again(shared: Arc<Shared>, stays: bool) {
    while !*shared.stop.borrow() {
        let Ok(permit) = shared.connecting.acquire().await else {
            return;
        };
        let began = Instant::now();
        let opened = Connection::open(&shared, began).await;
        drop(permit);
        match opened {
            Ok(connection) => connection.live(&shared, stays).await,
            Err(error) => {
                shared.tell(Event::Refused(Refused {
                    why: format!("{error:#}"),
                    took_ms: elapsed_ms(began),
                    at_ms: now_ms(),
                }));
                // A refusal comes at once: no storm of connections.
                shared.pause().await;
            }
        }
    }
}

impl Shared {
    fn tell(&self, event: Event) {
        // The receiver lives as long as the connections do.
        drop(self.events.send(event));
    }

    fn tally(&self) -> Event {
        Event::Tally(Tally {
            open: self.open.load(Ordering::Relaxed),
            messages: self.messages.load(Ordering::Relaxed),
            passed: self.passed.load(Ordering::Relaxed),
        })
    }

    /// Waits until it is time for another line, or until all is to stop.
    async fn pause(&self) {
        let mut stop = self.stop.clone();
        let pause = Duration::from_millis(fastrand::u64(PAUSE_MS));
        // Either way there is a line to send, so it does not count how the wait ended.
        drop(time::timeout(pause, stop.wait_for(|stop| *stop)).await);
    }
}

/// A connection whose server has told its name.
struct Connection {
    stream: BufReader<TcpStream>,
    backend: String,
    port: u16,
    began: Instant,
}

impl Connection {
    async fn open(shared: &Shared, began: Instant) -> Result<Self> {
        let stream = patiently(TcpStream::connect(shared.target))
            .await
            .context("connect")?;
        stream.set_nodelay(true)?;
        let port = stream.local_addr()?.port();
        let mut connection = Self {
            stream: BufReader::new(stream),
            backend: String::new(),
            port,
            began,
        };
        connection.backend = connection.line().await.context("read the server's name")?;
        Ok(connection)
    }

    /// Sends lines until all is to stop or, if it is not to stay, for a while.
    async fn live(mut self, shared: &Shared, stays: bool) {
        if stays {
            shared.open.fetch_add(1, Ordering::Relaxed);
        }
        let result = self.talk(shared, stays).await;
        if stays {
            shared.open.fetch_sub(1, Ordering::Relaxed);
        }
        match result {
            Ok(()) if stays => {}
            Ok(()) => {
                shared.passed.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => shared.tell(Event::Broken(Broken {
                backend: self.backend,
                port: self.port,
                age_ms: elapsed_ms(self.began),
                at_ms: now_ms(),
                why: format!("{error:#}"),
            })),
        }
    }

    async fn talk(&mut self, shared: &Shared, stays: bool) -> Result<()> {
        let lines = if stays {
            u64::MAX
        } else {
            fastrand::u64(PASSING_LINES)
        };
        for number in 0..lines {
            shared.pause().await;
            // Asked before the exchange: the last one comes after the word to stop.
            let is_last = *shared.stop.borrow();
            self.exchange(number).await?;
            shared.messages.fetch_add(1, Ordering::Relaxed);
            if is_last {
                break;
            }
        }
        Ok(())
    }

    /// Sends a number and sees it come back from the same server.
    async fn exchange(&mut self, number: u64) -> Result<()> {
        let line = format!("{number}\n");
        patiently(self.stream.write_all(line.as_bytes()))
            .await
            .context("send a line")?;
        let answer = self.line().await.context("wait for the echo")?;
        if answer != format!("{} {number}", self.backend) {
            bail!("sent {number} to {}, got {answer:?}", self.backend);
        }
        Ok(())
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        patiently(self.stream.read_line(&mut line)).await?;
        let whole = line.strip_suffix('\n').context("the server has closed")?;
        Ok(whole.to_owned())
    }
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

async fn patiently<T>(step: impl Future<Output = std::io::Result<T>>) -> Result<T> {
    match time::timeout(PATIENCE, step).await {
        Ok(result) => Ok(result?),
        Err(_) => bail!("nothing for {} s", PATIENCE.as_secs()),
    }
}
