//! `weir run`: from a configuration to a forwarding node, and to its end.

mod cluster;

use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    announce::{Place, Publisher},
    api::{self, Access, Actor, Apply, Base, Change, Command, Handle, Refusal, Request},
    config::{self, Config, Errors, OnExit},
    dataplane::{
        Sizes,
        bpf::{self, BpfDataPlane, ProgramLog},
    },
    metrics,
    neighbours::Neighbours,
    reconciler::{End, Past, Reconciler},
    service_manager,
};

/// How long requests under way may take at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long a reload may take, after which the next SIGHUP is heeded.
const RELOAD_PATIENCE: Duration = Duration::from_mins(1);

/// How a daemon is to start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start {
    /// Whether everything that an earlier daemon left is removed first: program, pins, commands.
    pub is_fresh: bool,
    /// Which messages of the BPF program are told.
    pub program_log: ProgramLog,
}

/// Runs the daemon until a signal or a command ends it.
///
/// # Errors
/// What kept it from starting. Once it forwards, only the loss of its own tasks ends it early.
pub async fn run(config: Config, config_path: &Path, start: Start) -> anyhow::Result<()> {
    cluster::check(&config)?;
    raise_descriptor_limit();
    let node = config.node.clone();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = %config_path.display(),
        node = node.name,
        vips = config.vips.len(),
        "starting"
    );

    // What can be taken by somebody else comes first: nothing is changed before all of it is ours.
    let socket = api::Socket::bind(&node.api_socket, access(&node))
        .with_context(|| format!("listening on the API socket {}", node.api_socket.display()))?;
    let metrics_listener = metrics::bind(node.metrics_listen)
        .await
        .with_context(|| format!("listening on metrics_listen {}", node.metrics_listen))?;
    let mut signals = Signals::new()?;
    // Those that come before the daemon is ready are kept, as one.
    let hangups = listen(SignalKind::hangup())?;
    let mut routes = Publisher::start(Place::from(&config.announce)).await;
    if start.is_fresh {
        // Nothing forwards for a moment: nobody shall be sent here meanwhile.
        routes.clear().await;
        let removed = bpf::detach(&node.pin_path).context("starting clean")?;
        tracing::warn!(
            interfaces = ?removed.interfaces,
            pins = removed.pins,
            "fresh start: what an earlier daemon left is removed"
        );
    }
    let mut plane = BpfDataPlane::open(&node.pin_path, start.program_log, Sizes::of(&node))?;
    let program_log = match start.program_log {
        ProgramLog::Off => None,
        ProgramLog::Debug => Some(tokio::spawn(follow_log(plane.program_log()?))),
    };

    let (neighbours, snapshots) = Neighbours::start()
        .await
        .context("watching the kernel's neighbours")?;
    let past = if start.is_fresh {
        Past::Forgotten
    } else {
        Past::Kept
    };
    let cluster = cluster::Start::new(&config, start.is_fresh);
    let mut reconciler = Reconciler::new(config, config_path, plane, past, neighbours, snapshots)?;
    reconciler.announce_by(routes);
    let cluster = cluster.map(|cluster| cluster.begin(&mut reconciler));
    // A signal must not wait for the backends' MAC addresses.
    tokio::select! {
        started = reconciler.start() => started?,
        () = signals.next() => return Ok(()),
    }
    reconciler.plane().settle(&node.interfaces)?;

    let measured = reconciler.measured()?;
    let (handle, mut commands) = Handle::channel();
    reconciler.lease_by(handle.clone());
    let reloads = tokio::spawn(reload(hangups, config_path.to_owned(), handle.clone()));
    let (stop, stopped) = watch::channel(false);
    let cluster = cluster.map(|cluster| cluster.follow(handle.clone(), until(stopped.clone())));
    let servers = [
        serve(
            "API",
            api::serve(socket, handle.clone(), until(stopped.clone())),
        ),
        serve(
            "metrics",
            metrics::serve(metrics_listener, handle.clone(), measured, until(stopped)),
        ),
    ];
    tracing::info!(metrics = %node.metrics_listen, socket = %node.api_socket.display(), "ready");
    service_manager::ready();

    let end = until_end(&mut reconciler, &mut commands, &mut signals).await;
    let detach = matches!(end, Some(End::Detach(_))) || reconciler.on_exit() == OnExit::Detach;
    let result = if detach {
        Box::pin(reconciler.release()).await;
        let detached = bpf::detach(&node.pin_path);
        if let Ok(detached) = &detached {
            tracing::info!(interfaces = ?detached.interfaces, pins = detached.pins, "detached");
        }
        detached
    } else {
        Box::pin(reconciler.end()).await;
        tracing::info!("ending; the program goes on forwarding (`weir detach` takes it off)");
        Ok(bpf::Detached::default())
    };
    let outcome = result
        .as_ref()
        .map(|_| ())
        .map_err(|error| format!("{error:#}"));
    if let Some(End::Detach(sender)) = end {
        // Whoever asked may have given up waiting.
        drop(sender.send(result.map_err(|error| format!("{error:#}"))));
    }
    reloads.abort();
    if let Some(task) = program_log {
        task.abort();
    }
    farewell(stop, commands, servers.into_iter().chain(cluster)).await;
    outcome.map_err(anyhow::Error::msg)
}

/// Follows the network until a command or a signal ends it. A signal first has every address withdrawn, if that is how it is to end,
/// and Services handed over to the other nodes of the cluster.
async fn until_end(
    reconciler: &mut Reconciler<BpfDataPlane>,
    commands: &mut mpsc::Receiver<Command>,
    signals: &mut Signals,
) -> Option<End> {
    tokio::select! {
        end = reconciler.run(commands) => return Some(end),
        () = signals.next() => {}
    }
    service_manager::stopping();
    let delay = reconciler.leave()?;
    tracing::info!(
        seconds = delay.as_secs_f64(),
        "ending: what is announced is withdrawn or handed over, and what still comes is forwarded until then; a second signal ends it now"
    );
    tokio::select! {
        end = reconciler.run(commands) => Some(end),
        () = signals.next() => None,
        () = tokio::time::sleep(delay) => None,
    }
}

fn access(node: &config::Node) -> Access {
    let id = |group: &Option<config::Group>| group.as_ref().map(|group| group.id);
    Access {
        readers: id(&node.api_group),
        admins: id(&node.api_admin_group),
    }
}

/// Ends when one of the signals that end a daemon comes.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn listen(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("listening for signals")
}

/// Reads the configuration again at every SIGHUP.
async fn reload(mut hangups: Signal, file: PathBuf, handle: Handle) {
    while hangups.recv().await.is_some() {
        service_manager::reloading();
        reload_once(&file, &handle).await;
        service_manager::ready();
    }
}

async fn reload_once(file: &Path, handle: &Handle) {
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || read_again(path));
    let change = match read.await {
        Ok(Ok(apply)) => Change::Apply(Box::new(apply)),
        Ok(Err(errors)) => {
            let refusal = Refusal::Invalid(errors);
            handle.reload_failed(file.to_owned(), refusal).await;
            return;
        }
        Err(error) => {
            tracing::error!(%error, "the configuration could not be read again");
            return;
        }
    };
    let request = Request {
        base: Base::Any,
        by: Actor::Hangup,
        change,
    };
    // What becomes of it is told by the task that does it.
    if let Err(error) = handle.change(request, RELOAD_PATIENCE).await {
        tracing::error!(%error, "SIGHUP");
    }
}

fn read_again(file: PathBuf) -> Result<Apply, Errors> {
    let text = fs::read_to_string(&file).map_err(|source| Errors::Read {
        path: file.clone(),
        source,
    })?;
    let config = Config::load_text(&text, &file)?;
    Ok(Apply {
        config,
        text,
        file,
        force: false,
        max_move_percent: None,
    })
}

/// One descriptor a table: the soft limit of 1,024 is too low for a node with many VIPs.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    ) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// Writes the BPF program's messages to the log.
async fn follow_log(logger: aya_log::EbpfLogger<&'static dyn log::Log>) {
    #[expect(
        deprecated,
        reason = "its successor is unsafe, and the logger does own its descriptor until it is dropped"
    )]
    let registered = AsyncFd::new(logger);
    let mut logger = match registered {
        Ok(logger) => logger,
        Err(error) => {
            tracing::error!(%error, "the program's messages cannot be followed");
            return;
        }
    };
    while let Ok(mut guard) = logger.readable_mut().await {
        guard.get_inner_mut().flush();
        guard.clear_ready();
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the daemon's own task is gone: that is an end as well.
    drop(stopped.wait_for(|stopped| *stopped).await);
}

fn serve(
    name: &'static str,
    server: impl Future<Output = std::io::Result<()>> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(server = name, %error, "the server has ended; forwarding goes on");
        }
    })
}

async fn farewell(
    stop: watch::Sender<bool>,
    commands: mpsc::Receiver<Command>,
    servers: impl Iterator<Item = JoinHandle<()>>,
) {
    drop(commands);
    stop.send_replace(true);
    for server in servers {
        if tokio::time::timeout(FAREWELL, server).await.is_err() {
            tracing::warn!("a request did not end in time");
        }
    }
}
