//! What requests carry: bodies of a bounded size in a bounded time, the generation that a change is based on, names
//! in paths. Whatever is wrong with one is answered with JSON.

use std::{error::Error as _, net::IpAddr, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, StatusCode, header::IF_MATCH, request::Parts},
    response::{IntoResponse, Response},
};
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::Base;
use crate::http;

/// Largest body of a request that is no configuration, in bytes.
const SMALL: usize = 4 * 1024;

/// Largest body with a configuration, in bytes: one with as many VIPs and backends as there can be is half of it.
const LARGE: usize = 16 * 1024 * 1024;

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is wrong with a request.
pub(super) struct Wrong {
    status: StatusCode,
    text: String,
}

impl Wrong {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { status, text }
    }
}

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        http::error(self.status, self.text)
    }
}

/// A small JSON body.
pub(super) struct Small<T>(pub(super) T);

/// A JSON body that may hold a configuration.
pub(super) struct Large<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Small<T> {
    type Rejection = Wrong;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Wrong> {
        read(request.into_body(), SMALL).await.map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Large<T> {
    type Rejection = Wrong;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Wrong> {
        read(request.into_body(), LARGE).await.map(Self)
    }
}

async fn read<T: DeserializeOwned>(body: Body, limit: usize) -> Result<T, Wrong> {
    let too_large = || {
        let text = format!("the body is larger than {limit} bytes");
        Wrong::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    // Where its length is told, nothing of it need be read.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let bytes = match timeout(PATIENCE, axum::body::to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) if is_too_large(&error) => return Err(too_large()),
        Ok(Err(error)) => {
            let text = format!("the body broke off: {error}");
            return Err(Wrong::new(StatusCode::BAD_REQUEST, text));
        }
        Err(_) => {
            let text = format!("the body did not arrive within {} s", PATIENCE.as_secs());
            return Err(Wrong::new(StatusCode::REQUEST_TIMEOUT, text));
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        let text = format!("the body is not the JSON that this path takes: {error}");
        Wrong::new(StatusCode::BAD_REQUEST, text)
    })
}

fn is_too_large(error: &axum::Error) -> bool {
    let source = error.source();
    source.is_some_and(<dyn std::error::Error>::is::<LengthLimitError>)
}

/// What a change is based on.
pub(super) struct BasedOn(pub(super) Base);

impl<S: Send + Sync> FromRequestParts<S> for BasedOn {
    type Rejection = Wrong;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Wrong> {
        base(&parts.headers).map(Self)
    }
}

/// `If-Match`: a generation, in quotes as an entity tag is, or `*` for any.
fn base(headers: &HeaderMap) -> Result<Base, Wrong> {
    let Some(value) = headers.get(IF_MATCH) else {
        let text = "a change must say what it is based on: send `If-Match: \"G\"` with the generation G of \
                    GET /v1/generation, or `If-Match: *` for any";
        return Err(Wrong::new(StatusCode::PRECONDITION_REQUIRED, text));
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(Base::Any);
    }
    let bare = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text);
    bare.parse().map(Base::Generation).map_err(|_unread| {
        let text = format!("If-Match: found {value:?}, wanted a generation in quotes, or *");
        Wrong::new(StatusCode::BAD_REQUEST, text)
    })
}

/// The names in a path that lead to a backend of a VIP.
pub(super) struct OfVip(pub(super) String, pub(super) IpAddr);

/// The name in a path that leads to a VIP.
pub(super) struct VipName(pub(super) String);

/// The address in a path that leads to a backend.
pub(super) struct Address(pub(super) IpAddr);

impl<S: Send + Sync> FromRequestParts<S> for OfVip {
    type Rejection = Wrong;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Wrong> {
        let (vip, text): (String, String) = path(parts, state).await?;
        Ok(Self(vip, address(&text)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for VipName {
    type Rejection = Wrong;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Wrong> {
        path(parts, state).await.map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Address {
    type Rejection = Wrong;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Wrong> {
        let text: String = path(parts, state).await?;
        Ok(Self(address(&text)?))
    }
}

/// What the query of a path asks for.
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Wrong;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Wrong> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|Query(value)| Self(value))
            .map_err(|error| Wrong::new(StatusCode::BAD_REQUEST, error.body_text()))
    }
}

async fn path<S, T>(parts: &mut Parts, state: &S) -> Result<T, Wrong>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    let path = Path::<T>::from_request_parts(parts, state).await;
    path.map(|Path(value)| value)
        .map_err(|error| Wrong::new(StatusCode::BAD_REQUEST, error.body_text()))
}

fn address(text: &str) -> Result<IpAddr, Wrong> {
    text.parse().map_err(|_unread| {
        let text = format!("the path has {text:?} where the address of a backend is wanted");
        Wrong::new(StatusCode::BAD_REQUEST, text)
    })
}
