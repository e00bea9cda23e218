//! Keeps going what the rest of the module says: watches, follows, and writes while this node is the one that does.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{sleep, sleep_until},
};

use super::{
    kept::Kept,
    lease::{self, Standing},
    members::{self, Able, Members},
    model::{self, Outcome},
    served::{Served, Texts},
    source::{self, Store, Update},
    told::Told,
    writer::{Work, Writer, Written},
};
use crate::{
    announce::Owned,
    api::{Handle, KubernetesStatus, ObjectCount},
    config::{Announce, Config, Kubernetes, Reader},
    model::services::Services,
};

/// How long a change waits for others: a rollout is many of them.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// How long after a failure something is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long the API server may not be known for.
const RECONNECT: Duration = Duration::from_secs(5);

/// How long the task that owns the data plane may take: it may wait for the nodes' MAC addresses.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the API server may say nothing where it should: a little more than a watch lasts.
const SILENCE: Duration = Duration::from_mins(1);

/// How many warnings about Services a status has.
const MOST_PROBLEMS: usize = 20;

/// How long one connection may take to be made.
const CONNECT: Duration = Duration::from_secs(3);

/// What is needed to follow a cluster.
pub struct Start {
    settings: Kubernetes,
    texts: Texts,
    kept: Kept,
    /// What was served before.
    served: Vec<Served>,
    services: Services,
    problem: Option<String>,
}

impl Start {
    /// With what an earlier daemon kept; with nothing where the past `is_forgotten`. `None` where no cluster is to be
    /// followed.
    #[must_use]
    pub fn new(config: &Config, is_forgotten: bool) -> Option<Self> {
        let kept = Kept::beside(&config.node.state_file);
        if is_forgotten || config.kubernetes.is_none() {
            kept.forget();
        }
        let settings = config.kubernetes.clone()?;
        let mut texts = Texts::new(Reader::new(config), settings.clone());
        let (served, problem) = match kept.load() {
            Ok(served) => (served, None),
            Err(error) => {
                let problem =
                    format!("{error:#}: until the API server answers, no Service is served");
                tracing::error!(problem);
                (Vec::new(), Some(problem))
            }
        };
        let vips = served.iter().filter_map(|served| texts.kept(served));
        let services = Services::new(vips);
        Some(Self {
            settings,
            texts,
            kept,
            served,
            services,
            problem,
        })
    }

    /// What is to be served from the first moment on.
    #[must_use]
    pub fn services(&self) -> Services {
        self.services.clone()
    }
}

/// Follows a cluster until `stop` ends. `file` has the addresses of the configuration's own VIPs, `willing` whether this node takes a
/// share of the Services' addresses to announce; how it stands goes to `status`, what this node is to announce to `owned`.
pub async fn run(
    start: Start,
    handle: Handle,
    (file, willing): (
        watch::Receiver<Arc<BTreeSet<IpAddr>>>,
        watch::Receiver<bool>,
    ),
    (status, owned): (watch::Sender<KubernetesStatus>, watch::Sender<Owned>),
    stop: impl Future<Output = ()>,
) {
    let mut stop = std::pin::pin!(stop);
    let mut problem = start.problem.clone();
    let (client, namespace) = loop {
        match connect(&start.settings).await {
            Ok(made) => break made,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "no way to the API server is known");
                status.send_replace(KubernetesStatus::away(&start.settings, error));
            }
        }
        tokio::select! {
            () = &mut stop => return,
            () = sleep(RECONNECT) => {}
        }
    };
    let namespace = start.settings.namespace.clone().unwrap_or(namespace);
    let (standing_sender, standing) = watch::channel(Standing::default());
    let (able, is_able) = watch::channel(Able::default());
    let members = (start.settings.announce == Announce::L2).then(|| {
        let (sender, members) = watch::channel(Members::default());
        let group = (
            namespace.clone(),
            start.settings.lease.clone(),
            start.settings.node.clone(),
        );
        let keeper = members::keep(client.clone(), group, (willing, is_able), sender);
        let keeper = tokio::spawn(keeper);
        (members, keeper)
    });
    let (members, member_keeper) = members.unzip();
    let lease = (
        namespace,
        start.settings.lease.clone(),
        start.settings.node.clone(),
    );
    let keeper = tokio::spawn(lease::keep(client.clone(), lease, standing_sender));
    let (updates, changes) = source::watch(&client);
    let node = start.settings.node.clone();
    let writer = Writer::new(client, node, standing.clone(), updates);
    let mut follower = Follower {
        settings: start.settings,
        texts: start.texts,
        kept: start.kept,
        served: start.served,
        sent: None,
        store: Store::default(),
        changes,
        writer,
        writing: None,
        told: BTreeSet::new(),
        problems: problem.take().into_iter().collect(),
        errors: BTreeSet::new(),
        standing,
        addresses: start.services.iter().map(|vip| vip.address).collect(),
        members,
        able,
        owned,
        file,
        handle,
        status,
        due: None,
    };
    tokio::select! {
        () = follower.run() => {
            tracing::error!("a task has ended, and Services are no longer followed: restart the daemon");
            status_of_end(&follower.status);
            stop.await;
        }
        () = &mut stop => {}
    }
    // Watches and Lease end with those who want to know; the Lease is let go of, which takes one request.
    if let Some(writing) = follower.writing.take() {
        writing.abort();
    }
    drop(follower);
    keeper.await.ok();
    if let Some(keeper) = member_keeper {
        keeper.await.ok();
    }
}

/// Tells that nobody follows any more.
fn status_of_end(status: &watch::Sender<KubernetesStatus>) {
    status.send_modify(|status| {
        status.connected = false;
        status.writer = false;
        let problem = "Services are no longer followed: restart the daemon";
        status.problems.push(problem.to_owned());
    });
}

/// The way to the API server, and the namespace that belongs to it.
async fn connect(settings: &Kubernetes) -> anyhow::Result<(Client, String)> {
    let mut config = match &settings.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("reading {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("understanding {}", path.display()))?
        }
        None => kube::Config::incluster()
            .context("this is no pod with a service account: set `kubeconfig` in `[kubernetes]`")?,
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    let namespace = config.default_namespace.clone();
    Ok((Client::try_from(config)?, namespace))
}

struct Follower {
    settings: Kubernetes,
    texts: Texts,
    kept: Kept,
    /// What is served, as it is kept.
    served: Vec<Served>,
    /// What the data plane was last told, in this run: the VIPs, and the other nodes.
    sent: Option<(Vec<Served>, BTreeSet<IpAddr>)>,
    store: Store,
    changes: mpsc::Receiver<Update>,
    writer: Writer,
    writing: Option<JoinHandle<Written>>,
    /// What was told while it is so.
    told: BTreeSet<Told>,
    /// What is wrong with what is served.
    problems: Vec<String>,
    /// What went wrong with the last writes.
    errors: BTreeSet<String>,
    standing: watch::Receiver<Standing>,
    /// Addresses of the VIPs that are served.
    addresses: BTreeSet<IpAddr>,
    /// Who shares them out, where they are announced.
    members: Option<watch::Receiver<Members>>,
    /// Whether it serves what is there: before, nobody would answer for its share.
    able: watch::Sender<Able>,
    owned: watch::Sender<Owned>,
    file: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
    handle: Handle,
    status: watch::Sender<KubernetesStatus>,
    /// When it is to follow.
    due: Option<Instant>,
}

impl Follower {
    async fn run(&mut self) {
        loop {
            tokio::select! {
                change = self.changes.recv() => match change {
                    Some(change) => {
                        if self.store.take(change) {
                            self.follow_within(DEBOUNCE);
                        }
                    }
                    None => return,
                },
                changed = self.standing.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // Whoever begins to write looks at everything anew.
                    let is_writer = self.standing.borrow().is_writer();
                    if is_writer != self.status.borrow().writer {
                        self.told.clear();
                        self.errors.clear();
                        self.follow_within(DEBOUNCE);
                    }
                }
                () = changed(&mut self.members) => self.own(),
                Ok(()) = self.file.changed() => self.follow_within(DEBOUNCE),
                written = finished(&mut self.writing) => self.note(written),
                () = until(self.due) => {
                    self.due = None;
                    self.follow().await;
                }
            }
            self.report();
        }
    }

    /// Follows soon; what is due already stays due.
    fn follow_within(&mut self, time: Duration) {
        let at = Instant::now() + time;
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    async fn follow(&mut self) {
        if !self.store.is_synced() {
            return;
        }
        let file = Arc::clone(&self.file.borrow_and_update());
        let outcome = model::follow(&self.store.world, &self.settings, &file, &mut self.texts);
        self.serve(&outcome).await;
        self.write(outcome);
    }

    /// Has the data plane serve what follows, if that is something else than before.
    async fn serve(&mut self, outcome: &Outcome) {
        let served: Vec<_> = outcome
            .made
            .iter()
            .map(|made| made.served.clone())
            .collect();
        let warnings = outcome.told.iter().filter(|told| told.is_warning());
        let count = warnings.clone().count();
        let shown = warnings.take(MOST_PROBLEMS);
        self.problems = shown
            .map(|told| format!("Service {}: {}", told.service, told.text))
            .collect();
        if let Some(more) = count.checked_sub(MOST_PROBLEMS).filter(|more| *more > 0) {
            let text = format!("{more} more warnings about Services, which their Events tell");
            self.problems.push(text);
        }
        let is_sent = |(vips, peers): &(Vec<Served>, BTreeSet<IpAddr>)| {
            *vips == served && *peers == outcome.peers
        };
        if self.sent.as_ref().is_some_and(is_sent) {
            // Its Node may be another one.
            self.tell_able();
            return;
        }
        // Kept before it is done: a kill in between leads to what is wanted, and so does a failure.
        if self.served != served {
            match self.kept.save(&served) {
                Ok(()) => self.served.clone_from(&served),
                Err(error) => self.fail(format!("{error:#}: a restart begins with older VIPs")),
            }
        }
        let vips = outcome.made.iter().map(|made| Arc::clone(&made.vip));
        let services = Services::new(vips).among(outcome.peers.clone());
        match self.handle.serve(services, PATIENCE).await {
            Ok(Ok(())) => {
                self.sent = Some((served, outcome.peers.clone()));
                let vips = outcome.made.iter();
                self.addresses = vips.map(|made| made.vip.address).collect();
                self.tell_able();
                self.own();
            }
            Ok(Err(error)) => self.fail(error),
            Err(error) => self.fail(error.to_string()),
        }
    }

    /// Tells that this node serves what the cluster wants, and may take a share.
    fn tell_able(&self) {
        let node = self.store.world.nodes.get(&self.settings.node);
        let able = Able {
            is_able: true,
            uid: node.and_then(|node| node.uid.clone()),
        };
        self.able.send_if_modified(|told| {
            let is_other = *told != able;
            *told = able;
            is_other
        });
    }

    /// Tells what falls to this node.
    fn own(&self) {
        if let Some(members) = &self.members {
            self.owned
                .send_replace(members.borrow().owned(&self.addresses));
        }
    }

    fn fail(&mut self, problem: String) {
        tracing::error!(problem, "Services cannot be followed");
        self.problems.push(problem);
        self.follow_within(RETRY);
    }

    /// Writes what follows, where this node is the one that does, and nothing is under way.
    fn write(&mut self, outcome: Outcome) {
        if !self.standing.borrow().is_writer() || !self.store.pools.is_synced {
            return;
        }
        self.told.retain(|told| outcome.told.contains(told));
        let told = outcome
            .told
            .into_iter()
            .filter(|told| !self.told.contains(told));
        let work = Work {
            statuses: outcome.statuses,
            pools: outcome.pools,
            told: told.collect(),
        };
        if work.is_empty() {
            self.errors.clear();
        } else if self.writing.is_some() {
            self.follow_within(RETRY);
        } else {
            self.writing = Some(tokio::spawn(self.writer.clone().write(work)));
        }
    }

    fn note(&mut self, written: Written) {
        self.told.extend(written.told);
        for error in written.errors.difference(&self.errors) {
            tracing::warn!(error, "not written; tried again");
        }
        self.errors = written.errors;
        self.follow_within(if self.errors.is_empty() {
            DEBOUNCE
        } else {
            RETRY
        });
    }

    /// Tells how it stands, if that is something else than before.
    fn report(&self) {
        let standing = self.standing.borrow().clone();
        let world = &self.store.world;
        let kinds = [
            ("services", world.services.len(), &self.store.services),
            ("endpointslices", world.slices.len(), &self.store.slices),
            ("nodes", world.nodes.len(), &self.store.nodes),
            ("vippools", world.pools.len(), &self.store.pools),
        ];
        let count = |(kind, objects, _): (&str, usize, _)| ObjectCount {
            kind: kind.to_owned(),
            objects: objects as u64,
        };
        let unread = |(kind, _, state): (&str, usize, &source::Kind)| {
            let error = state.error.as_ref()?;
            // One that was read once is read again by itself; the API server's absence is told of once.
            (!state.is_synced && standing.is_connected)
                .then(|| format!("{kind} cannot be read: {error}"))
        };
        let away = standing
            .error
            .as_ref()
            .map(|error| format!("the API server is away, what was last known is served: {error}"));
        let unread = kinds.iter().filter_map(|kind| unread(*kind));
        let members = self
            .members
            .as_ref()
            .map(|members| members.borrow().clone());
        let unshared = members.iter().filter_map(|members| {
            let error = members.error.as_ref().filter(|_| standing.is_connected)?;
            Some(format!(
                "which node announces Services cannot be agreed on: {error}"
            ))
        });
        let abandoned = members.iter().filter(|members| members.are_none());
        let abandoned = abandoned.map(|_| {
            "nobody announces Services: this node gives its share away, and no other takes one"
                .to_owned()
        });
        let own = self.problems.iter().chain(&self.errors).cloned();
        let own = unshared.chain(abandoned).chain(own);
        let status = KubernetesStatus {
            class: self.settings.class.clone(),
            node: self.settings.node.clone(),
            connected: standing.is_connected,
            synced: self.store.is_synced(),
            writer: standing.is_writer(),
            announcers: members
                .iter()
                .flat_map(|members| members.nodes.clone())
                .collect(),
            objects: kinds.iter().map(|kind| count(*kind)).collect(),
            problems: away.into_iter().chain(unread).chain(own).collect(),
        };
        self.status.send_if_modified(|known| {
            let is_other = *known != status;
            *known = status;
            is_other
        });
    }
}

/// Waits until others share addresses out, or for longer; for ever, where nobody does.
async fn changed(members: &mut Option<watch::Receiver<Members>>) {
    if let Some(members) = members
        && members.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// Waits for writes under way; for ever, where there are none.
async fn finished(writing: &mut Option<JoinHandle<Written>>) -> Written {
    let Some(task) = writing else {
        return std::future::pending().await;
    };
    let written = task.await;
    *writing = None;
    written.unwrap_or_else(|error| Written {
        errors: BTreeSet::from([error.to_string()]),
        ..Written::default()
    })
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
