//! The metrics' server.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use axum::{
    Extension, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use prometheus::Registry;
use tokio::net::TcpListener;

use crate::{api::Handle, http};

/// How long `/healthz` and `/readyz` wait for the daemon's task.
const HEALTH_PATIENCE: Duration = Duration::from_secs(1);

/// How long a scrape waits for the daemon's task: Prometheus itself gives up after 10 s.
const SCRAPE_PATIENCE: Duration = Duration::from_secs(8);

/// Listens where metrics are served.
///
/// # Errors
/// The kernel refuses: the address is taken, or not this host's.
pub async fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(listen).await
}

/// Serves metrics and health on a listener until `shutdown`; `measured` has the metrics that are in no status.
///
/// # Errors
/// The listener cannot be served any more.
pub async fn serve(
    listener: TcpListener,
    handle: Handle,
    measured: Registry,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/fleet", get(fleet))
        .layer(Extension(measured))
        .with_state(handle);
    let router = http::complete(router);
    let limits = http::Limits::default();
    http::serve(listener, router, limits, |_| (), |()| false, shutdown).await
}

async fn metrics(
    State(handle): State<Handle>,
    Extension(measured): Extension<Registry>,
) -> Response {
    let status = match handle.status(SCRAPE_PATIENCE).await {
        Ok(status) => status,
        Err(error) => return http::error(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    };
    match super::text(&status, &measured) {
        Ok(text) => {
            let kind = [(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)];
            (kind, text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            http::error(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        }
    }
}

/// What other nodes of the fleet may know of this one; nothing again, where they know it already.
async fn fleet(State(handle): State<Handle>, headers: HeaderMap) -> Response {
    let report = match handle.fleet_report(HEALTH_PATIENCE).await {
        Ok(report) => report,
        Err(error) => return http::error(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    };
    let (json, tag) = report.to_json();
    let tag = format!("\"{tag}\"");
    if headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known == tag.as_str())
    {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    let head = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::ETAG, tag),
    ];
    (head, json).into_response()
}

async fn healthz(State(handle): State<Handle>) -> Response {
    match handle.status(HEALTH_PATIENCE).await {
        Ok(_) => "ok\n".into_response(),
        Err(error) => http::error(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

async fn readyz(State(handle): State<Handle>) -> Response {
    match handle.status(HEALTH_PATIENCE).await {
        Ok(status) if status.ready => "ready\n".into_response(),
        Ok(status) => {
            let text = format!("not ready: {}", status.problems.join("; "));
            http::error(StatusCode::SERVICE_UNAVAILABLE, text)
        }
        Err(error) => http::error(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}
