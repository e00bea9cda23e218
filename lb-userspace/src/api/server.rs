//! The API's server: paths, and what each asks the daemon. What is said of them here is in the `OpenAPI` document.

use std::{future::Future, io, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Request, State},
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, ETAG},
    },
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post, put},
};
use futures_util::stream;
use serde::Serialize;
use tokio::{
    net::UnixStream,
    sync::{Semaphore, broadcast::error::RecvError},
    time::sleep,
};

use super::{
    Access, Actor, Agreement, Apply, Base, BlockList, Change, Changed, Detached, Event, FlowFilter,
    Flows, Generation, Handle, HandleError, LimitFilter, Limits, NewBlock, NewConfig, NewWeight,
    OldBlock, Plan, ProfileFilter, Refusal, Socket, Status, Target, What,
    access::{Peer, Right},
    document,
    limits::Moment,
    observe,
    profile::PROFILE,
    request::{Address, Asked, BasedOn, Large, OfVip, Small, VipName},
};
use crate::{
    config::Config,
    http::{self, ErrorBody},
    model::blocks::BlockName,
    profile,
};

/// How long the daemon's task may take to answer a question; less than the client waits.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long it may take to make a change; less than the client waits.
const CHANGE_PATIENCE: Duration = Duration::from_mins(1);

/// How many plans are worked out at a time.
static PLANS: Semaphore = Semaphore::const_new(2);

/// How many listings of flows are made at a time.
static SCANS: Semaphore = Semaphore::const_new(1);

/// Serves the API on a socket until `shutdown`; requests under way get a moment to end.
///
/// # Errors
/// The socket cannot be served any more.
pub async fn serve(
    socket: Socket,
    handle: Handle,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let (listener, access, _removed_at_the_end) = socket.into_parts();
    let drain = put(drain_of_vip).delete(undrain_of_vip);
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/openapi.json", get(async || Json(document())))
        .route("/v1/generation", get(generation))
        .route("/v1/config", put(apply))
        .route("/v1/plan", post(plan))
        .route("/v1/events", get(events))
        .route("/v1/flows", get(flows))
        .route("/v1/blocks", get(blocks).put(block).delete(unblock))
        .route("/v1/limits", get(limits))
        .route("/v1/fleet", get(fleet))
        .route("/v1/packets", get(observe::packets))
        .route(observe::CAPTURE, get(observe::capture))
        .route("/v1/vips/{vip}/backends/{backend}/drain", drain)
        .route(
            "/v1/vips/{vip}/backends/{backend}/weight",
            put(set_weight).delete(reset_weight),
        )
        .route(
            "/v1/backends/{backend}/drain",
            put(drain_of_all).delete(undrain_of_all),
        )
        .route("/v1/node/drain", put(drain_node).delete(undrain_node))
        .route("/v1/vips/{vip}/announcement", put(announce).delete(silence))
        .route("/v1/detach", post(detach))
        .route(PROFILE, get(profile))
        .with_state(handle);
    let guarded = middleware::from_fn_with_state(access, guard);
    let router = http::complete(router).layer(guarded);
    // Whoever may only read must not keep out who has to change something.
    let may_write = |Caller(peer): &Caller| {
        let peer = peer.as_ref();
        peer.is_some_and(|peer| access.allow(peer, Right::Write).is_ok())
    };
    let limits = http::Limits::default();
    http::serve(listener, router, limits, Caller::of, may_write, shutdown).await
}

/// Who is at the other end of a connection; `None` where the kernel does not tell.
#[derive(Clone)]
struct Caller(Option<Peer>);

impl Caller {
    fn of(stream: &UnixStream) -> Self {
        let peer = Peer::of(stream);
        Self(
            peer.inspect_err(|error| tracing::warn!(%error, "who talks to the API is unknown"))
                .ok(),
        )
    }
}

/// Lets in who may do what a request does, before anything else of it is looked at.
async fn guard(
    State(access): State<Access>,
    Extension(Caller(peer)): Extension<Caller>,
    mut request: Request,
    next: Next,
) -> Response {
    let right = Right::of(request.method(), request.uri().path());
    let Some(peer) = peer else {
        return http::error(StatusCode::FORBIDDEN, "the kernel does not tell who asks");
    };
    if let Err(error) = access.allow(&peer, right) {
        let path = request.uri().path();
        tracing::warn!(by = %peer.actor(), method = %request.method(), path, "refused by the API");
        return http::error(StatusCode::FORBIDDEN, error);
    }
    request.extensions_mut().insert(peer.actor());
    next.run(request).await
}

/// The state of the node.
#[utoipa::path(get, path = "/v1/status", responses(
    (status = 200, body = Status), (status = "default", body = ErrorBody)))]
pub(super) async fn status(State(handle): State<Handle>) -> Response {
    answer(handle.status(PATIENCE).await)
}

/// What a change is based on; also the answer's `ETag`.
#[utoipa::path(get, path = "/v1/generation", responses(
    (status = 200, body = Generation), (status = "default", body = ErrorBody)))]
pub(super) async fn generation(State(handle): State<Handle>) -> Response {
    let generation = handle.generation(PATIENCE).await;
    let tag = generation.as_ref().ok().copied().and_then(tag);
    let mut response = answer(generation.map(|generation| Generation { generation }));
    response.headers_mut().extend(tag);
    response
}

/// Takes the program off, removes every pin and ends the daemon.
#[utoipa::path(post, path = "/v1/detach", responses(
    (status = 200, body = Detached), (status = "default", body = ErrorBody)))]
pub(super) async fn detach(
    State(handle): State<Handle>,
    Extension(actor): Extension<Actor>,
) -> Response {
    tracing::info!(cause = %actor, "detach asked for through the API");
    answer(handle.detach(PATIENCE).await)
}

/// The flows that are remembered while their slots change hands.
#[utoipa::path(get, path = "/v1/flows", params(FlowFilter), responses(
    (status = 200, body = Flows), (status = "default", body = ErrorBody)))]
pub(super) async fn flows(
    State(handle): State<Handle>,
    Asked(filter): Asked<FlowFilter>,
) -> Response {
    // A scan keeps a processor busy.
    let _turn = SCANS.acquire().await;
    let basis = match handle.flows_basis(PATIENCE).await {
        Ok(basis) => basis,
        Err(error) => return answer::<()>(Err(error)),
    };
    if let Some(vip) = filter.vip.as_ref().filter(|vip| !basis.knows(vip)) {
        return refused(&Refusal::Unknown(format!("there is no VIP {vip}")));
    }
    let listed = blocking(move || {
        let flows = basis.list(&filter);
        flows.map_err(|error| Refusal::Failed(format!("{error:#}")))
    });
    match listed.await {
        Ok(flows) => Json(flows).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

/// How near VIPs and sources come to their limits: measured for as long as is asked for, then answered.
#[utoipa::path(get, path = "/v1/limits", params(LimitFilter), responses(
    (status = 200, body = Limits), (status = "default", body = ErrorBody)))]
pub(super) async fn limits(
    State(handle): State<Handle>,
    Asked(filter): Asked<LimitFilter>,
) -> Response {
    let before = match moment(&handle, &filter).await {
        Ok(before) => before,
        Err(answered) => return answered,
    };
    sleep(filter.time()).await;
    match moment(&handle, &filter).await {
        Ok(now) => Json(now.since(&before, &filter)).into_response(),
        Err(answered) => answered,
    }
}

/// Whether the nodes of the fleet have the same tables; 404 where nodes are not compared.
#[utoipa::path(get, path = "/v1/fleet", responses(
    (status = 200, body = Agreement), (status = "default", body = ErrorBody)))]
pub(super) async fn fleet(State(handle): State<Handle>) -> Response {
    const OFF: &str = "nodes are not compared: write `[fleet]` and `peers = [\"10.0.0.2:9407\"]`, the other nodes' \
                       `metrics_listen`, or `[redis]`, into the configuration (docs/fleet.md)";
    match handle.agreement(PATIENCE).await {
        Ok(None) => refused(&Refusal::Unknown(OFF.to_owned())),
        Ok(Some(agreement)) => Json(agreement).into_response(),
        Err(error) => answer::<()>(Err(error)),
    }
}

/// The limits and the sources as they are now, or the answer that tells why not.
async fn moment(handle: &Handle, filter: &LimitFilter) -> Result<Moment, Response> {
    // A scan keeps a processor busy.
    let _turn = SCANS.acquire().await;
    let basis = handle.limits_basis(PATIENCE).await;
    let basis = basis.map_err(|error| answer::<()>(Err(error)))?;
    if let Some(vip) = filter.vip.as_ref().filter(|vip| !basis.knows(vip)) {
        let unknown = Refusal::Unknown(format!("there is no VIP {vip}"));
        return Err(refused(&unknown));
    }
    let filter = filter.clone();
    let read = blocking(move || {
        let read = basis.read(&filter);
        read.map_err(|error| Refusal::Failed(format!("{error:#}")))
    });
    read.await.map_err(|refusal| refused(&refusal))
}

/// What happens from now on, one JSON object a line.
#[utoipa::path(get, path = "/v1/events", responses(
    (status = 200, body = Event, content_type = "application/x-ndjson"),
    (status = "default", body = ErrorBody)))]
pub(super) async fn events(State(handle): State<Handle>) -> Response {
    let events = match handle.events(PATIENCE).await {
        Ok(events) => events,
        Err(error) => return answer::<()>(Err(error)),
    };
    let lines = stream::unfold(events, |mut events| async {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(missed)) => Event::now(What::Missed { events: missed }),
            Err(RecvError::Closed) => return None,
        };
        let line = serde_json::to_string(&event).map(|line| line + "\n");
        Some((line, events))
    });
    let kind = (CONTENT_TYPE, "application/x-ndjson");
    ([kind], Body::from_stream(lines)).into_response()
}

/// What the daemon's processors are busy with, for as long as is asked for.
#[utoipa::path(get, path = "/debug/pprof/profile", params(ProfileFilter), responses(
    (status = 200, body = Vec<u8>, content_type = "application/octet-stream",
        description = "an uncompressed profile.proto of pprof"),
    (status = "default", body = ErrorBody)))]
pub(super) async fn profile(
    Extension(actor): Extension<Actor>,
    Asked(filter): Asked<ProfileFilter>,
) -> Response {
    tracing::info!(cause = %actor, seconds = filter.time().as_secs(), "profile of the daemon asked for");
    match profile::cpu(filter.time()).await {
        Ok(bytes) => ([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response(),
        Err(error @ profile::Error::Busy) => http::error(StatusCode::CONFLICT, error.to_string()),
        Err(error) => http::error(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Takes a configuration, as a whole or not at all.
#[utoipa::path(put, path = "/v1/config", request_body = NewConfig,
    params(("If-Match" = String, Header, description = "the generation that the change is based on, in quotes, or *")),
    responses((status = 200, body = Changed), (status = "default", body = ErrorBody)))]
pub(super) async fn apply(
    State(handle): State<Handle>,
    Extension(by): Extension<Actor>,
    BasedOn(base): BasedOn,
    Large(config): Large<NewConfig>,
) -> Response {
    match blocking(move || read(config)).await {
        Ok(read) => change(&handle, base, by, Change::Apply(Box::new(read))).await,
        Err(refusal) => refused(&refusal),
    }
}

/// What a configuration would change. Changes nothing.
#[utoipa::path(post, path = "/v1/plan", request_body = NewConfig, responses(
    (status = 200, body = Plan), (status = "default", body = ErrorBody)))]
pub(super) async fn plan(
    State(handle): State<Handle>,
    Large(config): Large<NewConfig>,
) -> Response {
    // Whoever may only read must not keep every processor busy.
    let _turn = PLANS.acquire().await;
    let basis = match handle.plan_basis(PATIENCE).await {
        Ok(basis) => basis,
        Err(error) => return answer::<()>(Err(error)),
    };
    let plan = blocking(move || {
        let next = read(config)?;
        basis.plan(&next.config, &next.text, &next.file)
    });
    match plan.await {
        Ok(plan) => Json(plan).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

/// Reads and checks a configuration on this host.
fn read(new: NewConfig) -> Result<Apply, Refusal> {
    if !new.file.is_absolute() {
        let text = "`file` is where relative paths of the text begin: it must be absolute";
        return Err(Refusal::Malformed(text.to_owned()));
    }
    Ok(Apply {
        config: Config::load_text(&new.text, &new.file)?,
        text: new.text,
        file: new.file,
        force: new.force,
        max_move_percent: new.max_move_percent,
    })
}

/// Does what takes long on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let result = tokio::task::spawn_blocking(work).await;
    result.unwrap_or_else(|error| Err(Refusal::Failed(error.to_string())))
}

/// Lets a backend take no new flows of a VIP.
#[utoipa::path(put, path = "/v1/vips/{vip}/backends/{backend}/drain",
    params(("vip" = String, Path), ("backend" = String, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = Changed), (status = "default", body = ErrorBody)))]
pub(super) async fn drain_of_vip(
    State(handle): State<Handle>,
    Extension(by): Extension<Actor>,
    BasedOn(base): BasedOn,
    OfVip(vip, backend): OfVip,
) -> Response {
    let target = Target::OfVip(vip, backend);
    change(&handle, base, by, Change::Drain(target, true)).await
}

/// Lets a backend take new flows of a VIP again.
#[utoipa::path(delete, path = "/v1/vips/{vip}/backends/{backend}/drain",
    params(("vip" = String, Path), ("backend" = String, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = Changed), (status = "default", body = ErrorBody)))]
pub(super) async fn undrain_of_vip(
    State(handle): State<Handle>,
    Extension(by): Extension<Actor>,
    BasedOn(base): BasedOn,
    OfVip(vip, backend): OfVip,
) -> Response {
    let target = Target::OfVip(vip, backend);
    change(&handle, base, by, Change::Drain(target, false)).await
}

/// Lets a backend take no new flows of any VIP.
#[utoipa::path(put, path = "/v1/backends/{backend}/drain",
    params(("backend" = String, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = Changed), (status = "default", body = ErrorBody)))]
pub(super) async fn drain_of_all(
    State(handle): State<Handle>,
    Extension(by): Extension<Actor>,
    BasedOn(base): BasedOn,
    Address(backend): Address,
) -> Response {
    let target = Target::OfAll(backend);
    change(&handle, base, by, Change::Drain(target, true)).await
}

/// Lets a backend take new flows of every VIP again.
#[utoipa::path(delete, path = "/v1/backends/{backend}/drain",
    params(("backend" = String, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = Changed), (status = "default", body = ErrorBody)))]
pub(super) async fn undrain_of_all(
    State(handle): State<Handle>,
    Extension(by): Extension<Actor>,
    BasedOn(base): BasedOn,
    Address(backend): Address,
) -> Response {
    let target = Target::OfAll(backend);
    change(&handle, base, by, Change::Drain(target, false)).await
}

/// Withdraws every address of this node from the network.
#[utoipa::path(put, path = "/v1/node/drain", params(("If-Match" = String, Header)),
    responses((status = 200, body = Changed), (status = "default", body = ErrorBody)))]
pub(super) async fn drain_node(
    State(handle): State<Handle>,
    Extension(by): Extension<Actor>,
    BasedOn(base): BasedOn,
) -> Response {
    change(&handle, base, by, Change::DrainNode(true)).await
}

/// Lets this node announce its addresses again.
#[utoipa::path(delete, path = "/v1/node/drain", params(("If-Match" = String, Header)),
    responses((status = 200, body = Changed), (status = "default", body = ErrorBody)))]
pub(super) async fn undrain_node(
    State(handle): State<Handle>,
    Extension(by): Extension<Actor>,
    BasedOn(base): BasedOn,
) -> Response {
    change(&handle, base, by, Change::DrainNode(false)).await
}

/// Gives a backend of a VIP a weight.
#[utoipa::path(put, path = "/v1/vips/{vip}/backends/{backend}/weight", request_body = NewWeight,
    params(("vip" = String, Path), ("backend" = String, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = Changed), (status = "default", body = ErrorBody)))]
pub(super) async fn set_weight(
    State(handle): State<Handle>,
    Extension(by): Extension<Actor>,
    BasedOn(base): BasedOn,
    OfVip(vip, backend): OfVip,
    Small(NewWeight { weight }): Small<NewWeight>,
) -> Response {
    change(
        &handle,
        base,
        by,
        Change::Weight(vip, backend, Some(weight)),
    )
    .await
}

/// Gives a backend of a VIP the configuration's weight again.
#[utoipa::path(delete, path = "/v1/vips/{vip}/backends/{backend}/weight",
    params(("vip" = String, Path), ("backend" = String, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = Changed), (status = "default", body = ErrorBody)))]
pub(super) async fn reset_weight(
    State(handle): State<Handle>,
    Extension(by): Extension<Actor>,
    BasedOn(base): BasedOn,
    OfVip(vip, backend): OfVip,
) -> Response {
    change(&handle, base, by, Change::Weight(vip, backend, None)).await
}

/// Has the network find the address of a VIP at this node; where it does so already, neighbours are told once more.
#[utoipa::path(put, path = "/v1/vips/{vip}/announcement",
    params(("vip" = String, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = Changed), (status = "default", body = ErrorBody)))]
pub(super) async fn announce(
    State(handle): State<Handle>,
    Extension(by): Extension<Actor>,
    BasedOn(base): BasedOn,
    VipName(vip): VipName,
) -> Response {
    change(&handle, base, by, Change::Announce(vip, true)).await
}

/// Lets nobody find the address of a VIP at this node any more; packets that come are forwarded.
#[utoipa::path(delete, path = "/v1/vips/{vip}/announcement",
    params(("vip" = String, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = Changed), (status = "default", body = ErrorBody)))]
pub(super) async fn silence(
    State(handle): State<Handle>,
    Extension(by): Extension<Actor>,
    BasedOn(base): BasedOn,
    VipName(vip): VipName,
) -> Response {
    change(&handle, base, by, Change::Announce(vip, false)).await
}

/// Everything that is blocked by command.
#[utoipa::path(get, path = "/v1/blocks", responses(
    (status = 200, body = BlockList), (status = "default", body = ErrorBody)))]
pub(super) async fn blocks(State(handle): State<Handle>) -> Response {
    answer(handle.blocks(PATIENCE).await)
}

/// Drops all packets of a prefix, to one VIP or to all; one that is blocked already is blocked as said now.
#[utoipa::path(put, path = "/v1/blocks", request_body = NewBlock,
    params(("If-Match" = String, Header)),
    responses((status = 200, body = Changed), (status = "default", body = ErrorBody)))]
pub(super) async fn block(
    State(handle): State<Handle>,
    Extension(by): Extension<Actor>,
    BasedOn(base): BasedOn,
    Small(block): Small<NewBlock>,
) -> Response {
    change(&handle, base, by, Change::Block(block)).await
}

/// Lets a prefix send again.
#[utoipa::path(delete, path = "/v1/blocks", params(OldBlock, ("If-Match" = String, Header)),
    responses((status = 200, body = Changed), (status = "default", body = ErrorBody)))]
pub(super) async fn unblock(
    State(handle): State<Handle>,
    Extension(by): Extension<Actor>,
    BasedOn(base): BasedOn,
    Asked(OldBlock { prefix, vip }): Asked<OldBlock>,
) -> Response {
    change(
        &handle,
        base,
        by,
        Change::Unblock(BlockName { vip, prefix }),
    )
    .await
}

async fn change(handle: &Handle, base: Base, by: Actor, change: Change) -> Response {
    let request = super::Request { base, by, change };
    match handle.change(request, CHANGE_PATIENCE).await {
        Ok(Ok(changed)) => {
            let mut response = Json(changed).into_response();
            response.headers_mut().extend(tag(changed.generation));
            response
        }
        Ok(Err(refusal)) => refused(&refusal),
        Err(error) => answer::<()>(Err(error)),
    }
}

/// A generation as an entity tag.
fn tag(generation: u64) -> Option<(HeaderName, HeaderValue)> {
    let value = HeaderValue::from_str(&format!("\"{generation}\"")).ok()?;
    Some((ETAG, value))
}

pub(super) fn refused(refusal: &Refusal) -> Response {
    let status = match refusal {
        Refusal::Stale { .. } => StatusCode::PRECONDITION_FAILED,
        Refusal::Malformed(_) => StatusCode::BAD_REQUEST,
        Refusal::Unknown(_) => StatusCode::NOT_FOUND,
        Refusal::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::TooMuch(_) => StatusCode::CONFLICT,
        Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    http::error_with_findings(status, refusal.to_string(), refusal.findings())
}

pub(super) fn answer<T: Serialize>(result: Result<T, HandleError>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error @ (HandleError::Gone | HandleError::Timeout(_))) => {
            http::error(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
        Err(error @ HandleError::Refused(_)) => {
            http::error(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        }
    }
}
