//! What the API's and the metrics' HTTP servers share.

use std::{future::Future, io, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, connect_info::Connected},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    serve::{IncomingStream, Listener},
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::config::Finding;

/// Largest request body that is read, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// How long requests under way may take once the server is told to end.
const GRACE: Duration = Duration::from_secs(2);

/// The body of every answer that is an error.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
pub(crate) struct ErrorBody {
    /// What went wrong.
    pub(crate) error: String,
    /// Where a configuration is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) findings: Vec<Finding>,
}

/// An error as JSON.
pub(crate) fn error(status: StatusCode, text: impl Into<String>) -> Response {
    error_with_findings(status, text, &[])
}

/// An error as JSON, with the places where a configuration is wrong.
pub(crate) fn error_with_findings(
    status: StatusCode,
    text: impl Into<String>,
    findings: &[Finding],
) -> Response {
    let body = ErrorBody {
        error: text.into(),
        findings: findings.to_vec(),
    };
    (status, Json(body)).into_response()
}

/// Adds what every server answers alike: unknown paths and methods, bodies that are too large.
pub(crate) fn complete(router: Router) -> Router {
    router
        .fallback(async || error(StatusCode::NOT_FOUND, "no such path"))
        .method_not_allowed_fallback(async || {
            error(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path has no such method",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
}

/// Serves until `shutdown`, then gives requests under way a moment. `C` is what requests know of their peer.
pub(crate) async fn serve<L, C>(
    listener: L,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
    C: for<'a> Connected<IncomingStream<'a, L>>,
{
    let router = router.into_make_service_with_connect_info::<C>();
    let (end, ended) = oneshot::channel::<()>();
    let server = axum::serve(listener, router).with_graceful_shutdown(async {
        ended.await.ok();
    });
    let mut server = std::pin::pin!(server.into_future());
    tokio::select! {
        result = &mut server => return result,
        () = shutdown => drop(end),
    }
    tokio::time::timeout(GRACE, server).await.unwrap_or(Ok(()))
}
