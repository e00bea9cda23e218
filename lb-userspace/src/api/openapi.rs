//! The API as an `OpenAPI` document, made from the types that it speaks. `docs/openapi.json` is the same, and a test
//! holds it so.

use utoipa::OpenApi;

use super::{observe, server};

/// The document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "weir",
        description = "The control API of one node, over its Unix socket (docs/api.md).",
        license(name = "MIT OR Apache-2.0"),
        contact()
    ),
    paths(
        server::status,
        server::generation,
        server::events,
        server::flows,
        server::limits,
        server::fleet,
        observe::packets,
        observe::capture,
        server::plan,
        server::apply,
        server::drain_of_vip,
        server::undrain_of_vip,
        server::drain_of_all,
        server::undrain_of_all,
        server::drain_node,
        server::undrain_node,
        server::set_weight,
        server::reset_weight,
        server::announce,
        server::silence,
        server::blocks,
        server::block,
        server::unblock,
        server::detach,
        server::profile
    )
)]
struct Document;
