//! Watches the cluster's objects, and keeps of each what matters. Lists and watches are the client library's.

use std::{collections::BTreeMap, fmt::Debug, hash::Hash, time::Duration};

use futures_util::{StreamExt as _, future::BoxFuture};
use k8s_openapi::api::{core::v1 as core, discovery::v1::EndpointSlice};
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt as _, utils::Backoff, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{
    objects::{Key, Node, Pool, Service, Slice, World},
    said,
    vip_pool::VipPool,
};

/// How many changes wait before a watch does.
const QUEUE: usize = 1024;

/// How long one watch lasts, in seconds: as long, and five more, a connection may be dead before it is noticed.
const WATCH_SECONDS: u32 = 55;

/// How long after a failure the API server is asked again, at first.
const LEAST_PAUSE: Duration = Duration::from_millis(500);

/// How long after several failures: a cluster whose API server comes back has other things to do as well.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What happens to objects of one kind.
pub(super) enum Change<K, V> {
    /// All of them follow.
    Began,
    /// One of all.
    Listed(K, V),
    /// That was all.
    Complete,
    /// One is so now.
    Is(K, V),
    /// One is no more, or matters no more.
    Gone(K),
    /// The API server does not answer, or refuses.
    Failed(String),
}

/// What happens to objects.
pub(super) enum Update {
    /// To a Service.
    Service(Change<Key, Service>),
    /// To a slice.
    Slice(Change<Key, Slice>),
    /// To a node.
    Node(Change<String, Node>),
    /// To a pool.
    Pool(Change<String, Pool>),
}

/// Where objects of one kind stand.
#[derive(Debug, Default)]
pub(super) struct Kind {
    /// Whether all of them have been read once.
    pub(super) is_synced: bool,
    /// Why they cannot be read now.
    pub(super) error: Option<String>,
}

/// All objects, as far as they were read.
#[derive(Default)]
pub(super) struct Store {
    pub(super) world: World,
    incoming: World,
    pub(super) services: Kind,
    pub(super) slices: Kind,
    pub(super) nodes: Kind,
    pub(super) pools: Kind,
}

impl Store {
    /// Whether what matters for packets has been read.
    pub(super) const fn is_synced(&self) -> bool {
        self.services.is_synced && self.slices.is_synced && self.nodes.is_synced
    }

    /// Takes a change in. Returns whether anything is different from before.
    pub(super) fn take(&mut self, update: Update) -> bool {
        let (world, incoming) = (&mut self.world, &mut self.incoming);
        match update {
            Update::Service(Change::Is(key, service)) => {
                // What a write was answered with may be newer than what a watch brings after it.
                let known = world.services.get(&key).map(|known| &known.version);
                let number = |version: &String| version.parse::<u64>().ok();
                let is_older = known.and_then(number) > number(&service.version);
                let change = Change::Is(key, service);
                !is_older
                    && follow(
                        &mut self.services,
                        &mut world.services,
                        &mut incoming.services,
                        change,
                    )
            }
            Update::Service(change) => follow(
                &mut self.services,
                &mut world.services,
                &mut incoming.services,
                change,
            ),
            Update::Slice(change) => follow(
                &mut self.slices,
                &mut world.slices,
                &mut incoming.slices,
                change,
            ),
            Update::Node(change) => follow(
                &mut self.nodes,
                &mut world.nodes,
                &mut incoming.nodes,
                change,
            ),
            Update::Pool(change) => follow(
                &mut self.pools,
                &mut world.pools,
                &mut incoming.pools,
                change,
            ),
        }
    }
}

fn follow<K: Ord, V: PartialEq>(
    kind: &mut Kind,
    known: &mut BTreeMap<K, V>,
    incoming: &mut BTreeMap<K, V>,
    change: Change<K, V>,
) -> bool {
    if !matches!(change, Change::Failed(_)) {
        kind.error = None;
    }
    match change {
        Change::Began => {
            incoming.clear();
            false
        }
        Change::Listed(key, value) => {
            incoming.insert(key, value);
            false
        }
        Change::Complete => {
            let is_first = !std::mem::replace(&mut kind.is_synced, true);
            let listed = std::mem::take(incoming);
            let is_other = *known != listed;
            *known = listed;
            is_first || is_other
        }
        Change::Is(key, value) => {
            let is_other = known.get(&key) != Some(&value);
            known.insert(key, value);
            is_other
        }
        Change::Gone(key) => known.remove(&key).is_some(),
        Change::Failed(error) => {
            kind.error = Some(error);
            false
        }
    }
}

fn said_by_watch(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => said(error),
        watcher::Error::WatchError(status) => status.message.clone(),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

fn key_of<T: Resource>(object: &T) -> Option<Key> {
    Some(Key {
        namespace: object.meta().namespace.clone()?,
        name: object.meta().name.clone()?,
    })
}

fn name_of<T: Resource>(object: &T) -> Option<String> {
    object.meta().name.clone()
}

/// Watches all kinds, for as long as anybody takes what they bring.
pub(super) fn watch(client: &Client) -> (mpsc::Sender<Update>, mpsc::Receiver<Update>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let all = |client: &Client| client.clone();
    let services: Api<core::Service> = Api::all(all(client));
    let slices: Api<EndpointSlice> = Api::all(all(client));
    let nodes: Api<core::Node> = Api::all(all(client));
    let pools: Api<VipPool> = Api::all(all(client));
    let watches: [BoxFuture<'static, ()>; 4] = [
        Box::pin(each(
            services,
            sender.clone(),
            Update::Service,
            key_of,
            Service::read,
        )),
        Box::pin(each(
            slices,
            sender.clone(),
            Update::Slice,
            key_of,
            Slice::read,
        )),
        Box::pin(each(
            nodes,
            sender.clone(),
            Update::Node,
            name_of,
            Node::read,
        )),
        Box::pin(each(
            pools,
            sender.clone(),
            Update::Pool,
            name_of,
            Pool::read,
        )),
    ];
    for watch in watches {
        tokio::spawn(watch);
    }
    (sender, receiver)
}

/// How long a watch waits after a failure.
struct Pause(Duration);

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        Some(pause)
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        self.0 = LEAST_PAUSE;
    }
}

/// Watches one kind.
async fn each<T, K, V>(
    api: Api<T>,
    sender: mpsc::Sender<Update>,
    wrap: fn(Change<K, V>) -> Update,
    key: fn(&T) -> Option<K>,
    read: fn(&T) -> Option<(K, V)>,
) where
    T: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K: Eq + Hash + Send + 'static,
    V: Send + 'static,
{
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    let events = watcher(api, config).backoff(Pause(LEAST_PAUSE));
    let mut events = std::pin::pin!(events);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = sender.closed() => return,
        };
        let change = match event {
            None => return,
            Some(Ok(watcher::Event::Init)) => Some(Change::Began),
            Some(Ok(watcher::Event::InitApply(object))) => {
                read(&object).map(|(key, value)| Change::Listed(key, value))
            }
            Some(Ok(watcher::Event::InitDone)) => Some(Change::Complete),
            Some(Ok(watcher::Event::Apply(object))) => match read(&object) {
                Some((key, value)) => Some(Change::Is(key, value)),
                None => key(&object).map(Change::Gone),
            },
            Some(Ok(watcher::Event::Delete(object))) => key(&object).map(Change::Gone),
            Some(Err(error)) => Some(Change::Failed(said_by_watch(&error))),
        };
        let Some(change) = change else { continue };
        if sender.send(wrap(change)).await.is_err() {
            return;
        }
    }
}
