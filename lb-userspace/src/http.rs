//! What the API's and the metrics' HTTP servers share.

use std::{future::Future, io, time::Duration};

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    serve::Listener,
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// Largest request body that is read, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// How long requests under way may take once the server is told to end.
const GRACE: Duration = Duration::from_secs(2);

/// The body of every answer that is an error.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ErrorBody {
    /// What went wrong.
    pub(crate) error: String,
}

/// An error as JSON.
pub(crate) fn error(status: StatusCode, text: impl Into<String>) -> Response {
    let body = ErrorBody { error: text.into() };
    (status, Json(body)).into_response()
}

/// Serves until `shutdown`, then gives requests under way a moment.
pub(crate) async fn serve<L>(
    listener: L,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let router = router
        .fallback(async || error(StatusCode::NOT_FOUND, "no such path"))
        .method_not_allowed_fallback(async || {
            error(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path has no such method",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT));
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
