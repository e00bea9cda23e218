//! What the API's and the metrics' HTTP servers share.

mod serve;

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};

pub(crate) use serve::{Limits, serve};

use crate::config::Finding;

/// Largest request body that is read, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

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
