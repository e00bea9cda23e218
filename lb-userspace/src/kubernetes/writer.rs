//! Writes what the cluster should know: statuses of Services and pools, and Events. One node of all does.

use std::{collections::BTreeSet, time::Instant};

use futures_util::{StreamExt as _, stream};
use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Service as ApiService},
        events::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    WRITER, digest,
    lease::{PATIENCE, Standing},
    model::StatusPatch,
    objects::{Ingress, Service},
    said,
    source::{Change, Update},
    told::Told,
    vip_pool::{GROUP, PoolStatus, VERSION, VipPool},
};

/// How many writes are under way at once.
const AT_ONCE: usize = 8;

/// The longest text of an Event, in bytes.
const LONGEST_NOTE: usize = 1000;

/// What is to be written.
#[derive(Default)]
pub(super) struct Work {
    pub(super) statuses: Vec<StatusPatch>,
    pub(super) pools: Vec<(String, PoolStatus)>,
    pub(super) told: Vec<Told>,
}

impl Work {
    /// Whether there is nothing to write.
    pub(super) const fn is_empty(&self) -> bool {
        self.statuses.is_empty() && self.pools.is_empty() && self.told.is_empty()
    }
}

/// What became of it.
#[derive(Default)]
pub(super) struct Written {
    /// What was told.
    pub(super) told: BTreeSet<Told>,
    /// What went wrong, each thing once.
    pub(super) errors: BTreeSet<String>,
}

/// Writes to the API server, as long as this node may.
#[derive(Clone)]
pub(super) struct Writer {
    client: Client,
    node: String,
    standing: watch::Receiver<Standing>,
    updates: mpsc::Sender<Update>,
}

impl Writer {
    /// For a node. What a write is answered with goes to `updates`.
    pub(super) fn new(
        client: Client,
        node: String,
        standing: watch::Receiver<Standing>,
        updates: mpsc::Sender<Update>,
    ) -> Self {
        Self {
            client,
            node,
            standing,
            updates,
        }
    }

    /// Writes everything; what fails is left for another turn.
    pub(super) async fn write(self, work: Work) -> Written {
        let mut written = Written::default();
        let patches = work.statuses.into_iter().map(|patch| self.patch(patch));
        let done: Vec<_> = stream::iter(patches)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        written
            .errors
            .extend(done.into_iter().filter_map(Result::err));
        for (name, status) in work.pools {
            written
                .errors
                .extend(self.patch_pool(&name, &status).await.err());
        }
        let tells = work.told.into_iter().map(|told| async {
            let result = self.tell(&told).await;
            (told, result)
        });
        let done: Vec<_> = stream::iter(tells)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (told, result) in done {
            match result {
                Ok(()) => {
                    written.told.insert(told);
                }
                Err(error) => {
                    written.errors.insert(error);
                }
            }
        }
        written
    }

    /// Runs one request in the time that this node has left.
    async fn within<T>(
        &self,
        what: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, String> {
        let end = self.standing.borrow().writes_until;
        if end.is_none_or(|end| Instant::now() >= end) {
            return Err(format!("{what}: another node writes now"));
        }
        match timeout(PATIENCE, request).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(format!("{what}: {}", said(&error))),
            Err(_) => Err(format!("{what}: no answer within {} s", PATIENCE.as_secs())),
        }
    }

    async fn patch(&self, patch: StatusPatch) -> Result<(), String> {
        let key = &patch.service;
        let services: Api<ApiService> = Api::namespaced(self.client.clone(), &key.namespace);
        let balancer = if patch.ingress.is_empty() {
            json!({})
        } else {
            json!({"ingress": patch.ingress.iter().map(ingress).collect::<Vec<_>>()})
        };
        // The version makes it a refusal where the Service has changed since.
        let body = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": key.name, "namespace": key.namespace, "resourceVersion": patch.version},
            "status": {"loadBalancer": balancer},
        });
        let mut parameters = PatchParams::apply(WRITER);
        parameters.force = !patch.ingress.is_empty();
        let apply = Patch::Apply(&body);
        let request = services.patch_status(&key.name, &parameters, &apply);
        let what = format!("the status of Service {key}");
        let service = self.within(&what, request).await?;
        tracing::info!(service = %key, ingress = ?patch.ingress.iter().map(|i| &i.ip).collect::<Vec<_>>(), "status written");
        let change = match Service::read(&service) {
            Some((key, service)) => Change::Is(key, service),
            None => Change::Gone(patch.service),
        };
        // An error says that the daemon ends.
        self.updates.send(Update::Service(change)).await.ok();
        Ok(())
    }

    async fn patch_pool(&self, name: &str, status: &PoolStatus) -> Result<(), String> {
        let pools: Api<VipPool> = Api::all(self.client.clone());
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "VipPool",
            "metadata": {"name": name},
            "status": status,
        });
        let parameters = PatchParams::apply(WRITER).force();
        let apply = Patch::Apply(&body);
        let request = pools.patch_status(name, &parameters, &apply);
        let what = format!("the status of VipPool {name}");
        self.within(&what, request).await.map(drop)
    }

    /// Tells something of a Service. Its name follows from what it says: what somebody has told already, and the cluster still
    /// knows, is not told again by the next writer.
    async fn tell(&self, told: &Told) -> Result<(), String> {
        let mut note = told.text.clone();
        note.truncate(note.floor_char_boundary(LONGEST_NOTE));
        let kind = if told.is_warning() {
            "Warning"
        } else {
            "Normal"
        };
        let key = &told.service;
        let digest = digest(&format!("{} {} {note}", told.uid, told.reason.as_str()));
        let event = Event {
            metadata: ObjectMeta {
                namespace: Some(key.namespace.clone()),
                name: Some(format!("{}.{digest}", key.name)),
                ..ObjectMeta::default()
            },
            type_: Some(kind.to_owned()),
            reason: Some(told.reason.as_str().to_owned()),
            note: Some(note),
            action: Some("Balancing".to_owned()),
            event_time: Some(MicroTime(Timestamp::now())),
            reporting_controller: Some("weir.dev/weir".to_owned()),
            reporting_instance: Some(self.node.clone()),
            regarding: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Service".to_owned()),
                namespace: Some(key.namespace.clone()),
                name: Some(key.name.clone()),
                uid: Some(told.uid.clone()),
                ..ObjectReference::default()
            }),
            ..Event::default()
        };
        let events: Api<Event> = Api::namespaced(self.client.clone(), &key.namespace);
        let parameters = PostParams::default();
        let request = async {
            match events.create(&parameters, &event).await {
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                other => other.map(drop),
            }
        };
        self.within(&format!("an Event on Service {key}"), request)
            .await
    }
}

fn ingress(ingress: &Ingress) -> serde_json::Value {
    let ports = ingress.ports.iter().map(|(port, protocol, error)| {
        let mut entry = json!({"port": port, "protocol": protocol});
        if let (Some(error), Some(entry)) = (error, entry.as_object_mut()) {
            entry.insert("error".to_owned(), json!(error));
        }
        entry
    });
    json!({"ip": ingress.ip, "ipMode": ingress.mode, "ports": ports.collect::<Vec<_>>()})
}
