//! The API's server: paths, and what each asks the daemon.

use std::{future::Future, io, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde::Serialize;

use super::{Handle, HandleError, Socket};
use crate::http;

/// How long the daemon's task may take to answer; less than the client waits.
const PATIENCE: Duration = Duration::from_secs(4);

/// Serves the API on a socket until `shutdown`; requests under way get a moment to end.
///
/// # Errors
/// The socket cannot be served any more.
pub async fn serve(
    socket: Socket,
    handle: Handle,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/detach", post(detach))
        .with_state(handle);
    let (listener, _removed_at_the_end) = socket.into_parts();
    http::serve(listener, router, shutdown).await
}

async fn status(State(handle): State<Handle>) -> Response {
    answer(handle.status(PATIENCE).await)
}

async fn detach(State(handle): State<Handle>) -> Response {
    tracing::info!("detach asked for through the API");
    answer(handle.detach(PATIENCE).await)
}

fn answer<T: Serialize>(result: Result<T, HandleError>) -> Response {
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
