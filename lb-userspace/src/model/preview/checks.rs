//! The keys of `[vip.health]`, as the file has them, for a preview.

use super::{Field, time};
use crate::config::{
    Health, Vip,
    health::{Dns, Grpc, Http, Probe, Tls, Udp},
};

/// Keys of `[vip.health]`; empty where nothing is checked, or a type does not have them.
pub(super) const CHECKS: &[Field<Vip>] = &[
    ("health.type", |vip| {
        vip.health
            .as_ref()
            .map_or("none", |health| health.probe.as_str())
            .to_owned()
    }),
    ("health.port", |vip| of(vip, |h| h.port.to_string())),
    ("health.path", |vip| match probe(vip) {
        Some(Probe::Http(Http { path, .. })) => path.clone(),
        _ => String::new(),
    }),
    ("health.host", |vip| match probe(vip) {
        Some(Probe::Http(Http { host, .. }) | Probe::Grpc(Grpc { host, .. })) => {
            host.authority.clone()
        }
        _ => String::new(),
    }),
    ("health.expect_status", |vip| match probe(vip) {
        Some(Probe::Http(Http { expect_status, .. })) => expect_status.to_string(),
        _ => String::new(),
    }),
    ("health.service", |vip| match probe(vip) {
        Some(Probe::Grpc(Grpc { service, .. })) => service.clone(),
        _ => String::new(),
    }),
    ("health.tls", |vip| match probe(vip) {
        Some(Probe::Grpc(Grpc { tls, .. })) => tls.is_some().to_string(),
        _ => String::new(),
    }),
    ("health.tls_verify", |vip| match probe(vip) {
        Some(
            Probe::Http(Http {
                tls: Some(Tls { verify }),
                ..
            })
            | Probe::Grpc(Grpc {
                tls: Some(Tls { verify }),
                ..
            }),
        ) => verify.to_string(),
        _ => String::new(),
    }),
    ("health.send", |vip| match probe(vip) {
        Some(Probe::Udp(Udp { send, .. })) => send.escape_ascii().to_string(),
        _ => String::new(),
    }),
    ("health.expect", |vip| match probe(vip) {
        Some(Probe::Udp(Udp { expect, .. })) => expect.escape_ascii().to_string(),
        _ => String::new(),
    }),
    ("health.query", |vip| match probe(vip) {
        Some(Probe::Dns(Dns { query, .. })) => query.to_string(),
        _ => String::new(),
    }),
    ("health.interval", |vip| of(vip, |h| time(h.interval))),
    ("health.timeout", |vip| of(vip, |h| time(h.timeout))),
    ("health.rise", |vip| of(vip, |h| h.rise.to_string())),
    ("health.fall", |vip| of(vip, |h| h.fall.to_string())),
    ("health.panic_threshold", |vip| {
        of(vip, |h| format!("{}%", h.panic_threshold))
    }),
];

fn probe(vip: &Vip) -> Option<&Probe> {
    vip.health.as_ref().map(|health| &health.probe)
}

fn of(vip: &Vip, value: fn(&Health) -> String) -> String {
    vip.health.as_ref().map(value).unwrap_or_default()
}
