//! An API server that speaks as much as weir does: lists in pages, watches with bookmarks, server-side apply of statuses, versions
//! that must fit, Leases and Events. It can forget its past (410 Gone), cut its watches, and be away. What it is asked is noted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, time::timeout};

/// How often a quiet watch is told how far it is.
const BOOKMARKS: Duration = Duration::from_millis(100);

/// Group and plural, namespace (empty: none), name.
type Id = (String, String, String);

/// Verb, group, resource with subresource.
pub(crate) type Call = (String, String, String);

struct Change {
    version: u64,
    kind: &'static str,
    resource: String,
    object: Value,
}

#[derive(Default)]
struct Inner {
    version: u64,
    objects: BTreeMap<Id, Value>,
    log: Vec<Change>,
    /// Watches from before this version are refused.
    oldest: u64,
    calls: BTreeSet<Call>,
    /// How many lists there were, by resource.
    lists: BTreeMap<String, usize>,
    /// Writes that are to be refused as conflicts.
    conflicts: usize,
    /// Resources that it does not know.
    lost: BTreeSet<String>,
    /// Who wrote statuses.
    writes: Vec<String>,
}

pub(crate) struct Server {
    inner: Arc<Shared>,
    address: SocketAddr,
    directory: tempfile::TempDir,
}

struct Shared {
    inner: Mutex<Inner>,
    /// Version of the newest change.
    news: watch::Sender<u64>,
    /// Watches of older numbers are over.
    cut: watch::Sender<u64>,
    away: watch::Sender<bool>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn put(&self, resource: &str, mut object: Value) -> Value {
        let mut inner = self.lock();
        inner.version += 1;
        let version = inner.version;
        let meta = object["metadata"].as_object_mut().unwrap();
        meta.insert("resourceVersion".to_owned(), json!(version.to_string()));
        let text = |key: &str| {
            meta.get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let id = (resource.to_owned(), text("namespace"), text("name"));
        let uid = format!("uid-of-{}-{}", id.1, id.2);
        meta.entry("uid").or_insert_with(|| json!(uid));
        meta.entry("creationTimestamp")
            .or_insert_with(|| json!("2026-11-27T10:00:00Z"));
        let before = inner.objects.insert(id, object.clone());
        inner.log.push(Change {
            version,
            kind: if before.is_some() {
                "MODIFIED"
            } else {
                "ADDED"
            },
            resource: resource.to_owned(),
            object: object.clone(),
        });
        drop(inner);
        self.news.send_replace(version);
        object
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST.into()).await
    }

    /// One at an address of this network namespace.
    pub(crate) async fn start_on(address: IpAddr) -> Self {
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner {
                version: 1,
                ..Inner::default()
            }),
            news: watch::channel(1).0,
            cut: watch::channel(0).0,
            away: watch::channel(false).0,
        });
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            inner: shared,
            address,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// A file by which a client finds it.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let path = self.directory.path().join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "weir"}}],
        });
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Makes an object, or puts another in its place.
    pub(crate) fn put(&self, resource: &str, object: Value) {
        self.inner.put(resource, object);
    }

    /// Changes an object.
    pub(crate) fn edit(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        edit: impl FnOnce(&mut Value),
    ) {
        let mut object = self.get(resource, namespace, name).unwrap();
        edit(&mut object);
        self.put(resource, object);
    }

    pub(crate) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let id = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        self.inner.lock().objects.get(&id).cloned()
    }

    pub(crate) fn remove(&self, resource: &str, namespace: &str, name: &str) {
        let id = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        let mut inner = self.inner.lock();
        inner.version += 1;
        let version = inner.version;
        let mut object = inner.objects.remove(&id).unwrap();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        inner.log.push(Change {
            version,
            kind: "DELETED",
            resource: resource.to_owned(),
            object,
        });
        drop(inner);
        self.inner.news.send_replace(version);
    }

    /// Everything of a kind.
    pub(crate) fn all(&self, resource: &str) -> Vec<Value> {
        let inner = self.inner.lock();
        let of = inner.objects.iter().filter(|(id, _)| id.0 == resource);
        of.map(|(_, object)| object.clone()).collect()
    }

    /// Ends every watch, as a proxy or a restart does.
    pub(crate) fn cut(&self) {
        self.inner.cut.send_modify(|cut| *cut += 1);
    }

    /// Forgets what was: watches that begin in the past are refused.
    pub(crate) fn forget(&self) {
        let mut inner = self.inner.lock();
        inner.version += 1;
        inner.oldest = inner.version;
        inner.log.clear();
    }

    /// Answers nobody, until it is back.
    pub(crate) fn go_away(&self, is_away: bool) {
        self.inner.away.send_replace(is_away);
        if is_away {
            self.cut();
        }
    }

    /// Refuses some writes as if somebody had been faster.
    pub(crate) fn conflict(&self, writes: usize) {
        self.inner.lock().conflicts = writes;
    }

    /// Does not know a resource, as without its definition.
    pub(crate) fn lose(&self, resource: &str) {
        self.inner.lock().lost.insert(resource.to_owned());
    }

    pub(crate) fn calls(&self) -> BTreeSet<Call> {
        self.inner.lock().calls.clone()
    }

    pub(crate) fn lists(&self, resource: &str) -> usize {
        self.inner.lock().lists.get(resource).copied().unwrap_or(0)
    }

    /// Who wrote statuses of Services, each time.
    pub(crate) fn writes(&self) -> Vec<String> {
        self.inner.lock().writes.clone()
    }

    pub(crate) fn version(&self) -> u64 {
        self.inner.lock().version
    }
}

/// Where a path leads.
struct Target {
    group: String,
    plural: String,
    namespace: String,
    name: Option<String>,
    sub: Option<String>,
}

impl Target {
    fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, rest) = match parts.as_slice() {
            ["api", "v1", rest @ ..] => ("", rest),
            ["apis", group, _, rest @ ..] => (*group, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let text = |index: usize| rest.get(index).map(|text| (*text).to_owned());
        Some(Self {
            group: group.to_owned(),
            plural: text(0)?,
            namespace: namespace.to_owned(),
            name: text(1),
            sub: text(2),
        })
    }

    fn id(&self) -> Id {
        let name = self.name.clone().unwrap_or_default();
        (self.plural.clone(), self.namespace.clone(), name)
    }
}

fn status(code: StatusCode, reason: &str) -> Response {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("{reason}, says the test server"), "reason": reason, "code": code.as_u16(),
    });
    (code, axum::Json(body)).into_response()
}

fn query(request: &Request) -> HashMap<String, String> {
    let pairs = request.uri().query().unwrap_or_default().split('&');
    let pairs = pairs.filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let mut away = shared.away.subscribe();
    away.wait_for(|is_away| !is_away).await.unwrap();
    let query = query(&request);
    let Some(target) = Target::parse(request.uri().path()) else {
        return status(StatusCode::NOT_FOUND, "NotFound");
    };
    if shared.lock().lost.contains(&target.plural) {
        return status(StatusCode::NOT_FOUND, "NotFound");
    }
    let method = request.method().clone();
    let is_watch = query
        .get("watch")
        .is_some_and(|text| text == "true" || text == "1");
    let verb = match (&method, &target.name) {
        (&Method::GET, None) if is_watch => "watch",
        (&Method::GET, None) => "list",
        (&Method::GET, Some(_)) => "get",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        _ => "other",
    };
    let sub = target.sub.iter().map(|sub| format!("/{sub}"));
    let resource = format!("{}{}", target.plural, sub.collect::<String>());
    shared
        .lock()
        .calls
        .insert((verb.to_owned(), target.group.clone(), resource));
    let body = axum::body::to_bytes(request.into_body(), 1 << 20)
        .await
        .unwrap();
    match verb {
        "watch" => watched(&shared, &target, &query),
        "list" => listed(&shared, &target, &query),
        "get" => match shared.lock().objects.get(&target.id()) {
            Some(object) => axum::Json(object.clone()).into_response(),
            None => status(StatusCode::NOT_FOUND, "NotFound"),
        },
        "create" => created(&shared, &target, &body),
        "update" => updated(&shared, &target, &body),
        "patch" => patched(&shared, &target, &query, &body),
        _ => status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
    }
}

fn listed(shared: &Shared, target: &Target, query: &HashMap<String, String>) -> Response {
    let mut inner = shared.lock();
    let limit: usize = query
        .get("limit")
        .map_or(usize::MAX, |text| text.parse().unwrap());
    let from: usize = query
        .get("continue")
        .map_or(0, |text| text.parse().unwrap());
    if from == 0 {
        *inner.lists.entry(target.plural.clone()).or_default() += 1;
    }
    let all = inner.objects.iter().filter(|(id, _)| id.0 == target.plural);
    let all: Vec<_> = all.map(|(_, object)| object.clone()).collect();
    let page: Vec<_> = all.iter().skip(from).take(limit).cloned().collect();
    let next = from + page.len();
    let mut meta = json!({"resourceVersion": inner.version.to_string()});
    if next < all.len() {
        meta["continue"] = json!(next.to_string());
    }
    axum::Json(json!({"kind": "List", "apiVersion": "v1", "metadata": meta, "items": page}))
        .into_response()
}

struct Watch {
    shared: Arc<Shared>,
    resource: String,
    version: u64,
    cut: u64,
    is_over: bool,
}

fn watched(shared: &Arc<Shared>, target: &Target, query: &HashMap<String, String>) -> Response {
    let version = query
        .get("resourceVersion")
        .map_or(0, |text| text.parse().unwrap());
    let watch = Watch {
        shared: Arc::clone(shared),
        resource: target.plural.clone(),
        version,
        cut: *shared.cut.borrow(),
        is_over: false,
    };
    let lines = stream::unfold(watch, |mut watch| async {
        let lines = watch.next().await?;
        Some((Ok::<_, std::io::Error>(Bytes::from(lines)), watch))
    });
    Body::from_stream(lines).into_response()
}

impl Watch {
    /// What has happened since.
    async fn next(&mut self) -> Option<String> {
        let (mut news, mut cut) = (self.shared.news.subscribe(), self.shared.cut.subscribe());
        loop {
            let is_cut = *cut.borrow_and_update() != self.cut || *self.shared.away.borrow();
            if self.is_over || is_cut {
                return None;
            }
            news.borrow_and_update();
            {
                let inner = self.shared.lock();
                if self.version < inner.oldest {
                    self.is_over = true;
                    let gone = json!({"type": "ERROR", "object": {
                        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "message": "too old resource version", "reason": "Expired", "code": 410,
                    }});
                    return Some(format!("{gone}\n"));
                }
                let since = inner
                    .log
                    .iter()
                    .filter(|change| change.version > self.version);
                let of = since.filter(|change| change.resource == self.resource);
                let lines = of.map(|change| {
                    let line = json!({"type": change.kind, "object": change.object});
                    format!("{line}\n")
                });
                let lines = lines.collect::<Vec<_>>().concat();
                self.version = inner.version;
                if !lines.is_empty() {
                    return Some(lines);
                }
            }
            tokio::select! {
                _ = news.changed() => {}
                _ = cut.changed() => {}
                () = tokio::time::sleep(BOOKMARKS) => {
                    let bookmark = json!({"type": "BOOKMARK", "object": {
                        "kind": "Object", "apiVersion": "v1", "spec": {}, "addressType": "IPv4", "endpoints": [],
                        "metadata": {"resourceVersion": self.version.to_string()},
                    }});
                    return Some(format!("{bookmark}\n"));
                }
            }
        }
    }
}

fn created(shared: &Shared, target: &Target, body: &[u8]) -> Response {
    let mut object: Value = serde_json::from_slice(body).unwrap();
    object["metadata"]["namespace"] = json!(target.namespace);
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let id = (target.plural.clone(), target.namespace.clone(), name);
    if shared.lock().objects.contains_key(&id) {
        return status(StatusCode::CONFLICT, "AlreadyExists");
    }
    let object = shared.put(&target.plural, object);
    (StatusCode::CREATED, axum::Json(object)).into_response()
}

/// Whether a write is based on what there is.
fn is_stale(shared: &Shared, known: Option<&Value>, body: &Value) -> bool {
    let mut inner = shared.lock();
    if inner.conflicts > 0 {
        inner.conflicts -= 1;
        return true;
    }
    let version = &body["metadata"]["resourceVersion"];
    !version.is_null()
        && known.is_some_and(|known| known["metadata"]["resourceVersion"] != *version)
}

fn updated(shared: &Shared, target: &Target, body: &[u8]) -> Response {
    let object: Value = serde_json::from_slice(body).unwrap();
    let known = shared.lock().objects.get(&target.id()).cloned();
    if is_stale(shared, known.as_ref(), &object) {
        return status(StatusCode::CONFLICT, "Conflict");
    }
    axum::Json(shared.put(&target.plural, object)).into_response()
}

fn patched(
    shared: &Shared,
    target: &Target,
    query: &HashMap<String, String>,
    body: &[u8],
) -> Response {
    let body: Value = serde_json::from_slice(body).unwrap();
    let known = shared.lock().objects.get(&target.id()).cloned();
    let Some(mut object) = known.clone() else {
        return status(StatusCode::NOT_FOUND, "NotFound");
    };
    if is_stale(shared, known.as_ref(), &body) {
        return status(StatusCode::CONFLICT, "Conflict");
    }
    if target.sub.as_deref() == Some("status") {
        let manager = query.get("fieldManager").unwrap();
        object["status"] = body["status"].clone();
        let field = json!({"manager": manager, "operation": "Apply", "subresource": "status"});
        object["metadata"]["managedFields"] = json!([field]);
        if target.plural == "services" {
            let holder = shared.lock().objects.iter().find_map(|(id, lease)| {
                (id.0 == "leases")
                    .then(|| lease["spec"]["holderIdentity"].as_str().unwrap().to_owned())
            });
            shared.lock().writes.push(holder.unwrap_or_default());
        }
    } else {
        for (key, value) in body.as_object().unwrap() {
            object[key] = value.clone();
        }
    }
    axum::Json(shared.put(&target.plural, object)).into_response()
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, patience: Duration, mut is: impl FnMut() -> bool) {
    let looking = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        timeout(patience, looking).await.is_ok(),
        "still not so: {what}"
    );
}
