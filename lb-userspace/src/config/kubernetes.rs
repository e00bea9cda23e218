//! Reads `[kubernetes]`.

use std::path::PathBuf;

use super::{
    Announce, EncapSource, ForwardMode, Kubernetes, NodeHealth, health, keys,
    section::{Field, Section},
    source::Report,
    vip,
};

const DEFAULT_CLASS: &str = "weir.dev/xdp";

const DEFAULT_LEASE: &str = "weir-writer";

/// A file that is right in this, with or without the section.
pub(super) struct Place(pub(super) Option<Kubernetes>);

/// The section, if there is one. `name` is the node's, where it could be read.
pub(super) fn read(
    top: &Section<'_>,
    name: Option<&str>,
    encap_source: Option<EncapSource>,
    report: &mut Report<'_>,
) -> Option<Place> {
    const WANTED: &str = "a section `[kubernetes]`";
    const HELP: &str = "write `[kubernetes]` on a line of its own, and its keys below";
    let Some(field) = top.field("kubernetes") else {
        return Some(Place(None));
    };
    let section = field.section(WANTED, HELP, &keys::KUBERNETES, report)?;
    let class = class(&section, report);
    let is_classless = match section.field("classless") {
        Some(field) => field.bool(
            "write `classless = true` to serve Services without a `loadBalancerClass` too",
            report,
        ),
        None => Some(false),
    };
    let kubeconfig = match section.field("kubeconfig") {
        Some(field) => field
            .path(
                "write `kubeconfig = \"/etc/weir/kubeconfig\"`, or take it out within a cluster",
                report,
            )
            .map(Some),
        None => Some(None),
    };
    let node = match section.field("node") {
        Some(field) => named(&field, "this node's name in the cluster", "lb-1", report),
        // The DaemonSet tells it.
        None => std::env::var("NODE_NAME")
            .ok()
            .filter(|name| is_name(name))
            .or_else(|| name.map(str::to_owned)),
    };
    let namespace = match section.field("namespace") {
        Some(field) => named(&field, "a namespace's name", "weir", report).map(Some),
        None => Some(None),
    };
    let lease = match section.field("lease") {
        Some(field) => named(&field, "a Lease's name", DEFAULT_LEASE, report),
        None => Some(DEFAULT_LEASE.to_owned()),
    };
    let mode = match section.field("mode") {
        Some(field) => field.word(&[("nodes", ())], &["pods"], report),
        None => Some(()),
    };
    let forward = forward(&section, encap_source, report);
    let table = vip::table(&section, report);
    let announce = match section.field("announce") {
        Some(field) => vip::announce_of_services(&field, report),
        None => Some(Announce::None),
    };
    let health = node_health(&section, report);
    mode?;
    Some(Place(Some(Kubernetes {
        class: class?,
        is_classless: is_classless?,
        kubeconfig: kubeconfig?,
        node: node?,
        namespace: namespace?,
        lease: lease?,
        forward: forward?,
        table: table?,
        announce: announce?,
        health: health?,
    })))
}

fn class(section: &Section<'_>, report: &mut Report<'_>) -> Option<String> {
    const WANTED: &str = "a load balancer class: letters, digits, `.`, `_`, `-` and one `/`";
    const HELP: &str =
        "write `class = \"weir.dev/xdp\"`, as in the Services' `spec.loadBalancerClass`";
    let Some(field) = section.field("class") else {
        return Some(DEFAULT_CLASS.to_owned());
    };
    field.parse(WANTED, HELP, report, |text| {
        let is_part = |part: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
            part.chars().all(is_plain) && ends(part.chars().next()) && ends(part.chars().last())
        };
        let parts: Vec<_> = text.split('/').collect();
        let is_class = parts.len() <= 2 && parts.iter().all(|part| is_part(part));
        (is_class && text.len() <= 253).then(|| text.to_owned())
    })
}

/// A name as Kubernetes has them.
fn named(field: &Field<'_>, what: &str, example: &str, report: &mut Report<'_>) -> Option<String> {
    let wanted = format!("{what}: 1 to 253 characters out of a-z, 0-9, `.` and `-`");
    let help = format!("write `{} = \"{example}\"`", field.key);
    field.parse(&wanted, &help, report, |text| {
        is_name(text).then(|| text.to_owned())
    })
}

fn is_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '-';
    let is_end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=253).contains(&text.len())
        && text.chars().all(is_plain)
        && text.starts_with(is_end)
        && text.ends_with(is_end)
}

/// `forward`: encapsulation needs a source address, which is better told now than at the first Service.
fn forward(
    section: &Section<'_>,
    encap_source: Option<EncapSource>,
    report: &mut Report<'_>,
) -> Option<ForwardMode> {
    let forward = vip::forward(section, report)?;
    let is_encapsulated = forward != ForwardMode::L2;
    if let Some(field) = section.field("forward")
        && is_encapsulated
        && encap_source == Some(EncapSource::default())
    {
        field.refuse(
            "\"l2\", where `node.encap_source` has no address",
            "add this node's own addresses to `[node]`, as in `encap_source = [\"10.0.0.1\"]`",
            report,
        );
        return None;
    }
    Some(forward)
}

/// `[kubernetes.health]`, or its defaults.
fn node_health(section: &Section<'_>, report: &mut Report<'_>) -> Option<NodeHealth> {
    const WANTED: &str = "a section `[kubernetes.health]`";
    const HELP: &str = "write `interval = \"2s\"` in it, or take it out";
    let Some(field) = section.field("health") else {
        return Some(NodeHealth::default());
    };
    let section = field.section(WANTED, HELP, &keys::KUBERNETES_HEALTH, report)?;
    let times = health::times(&section, report);
    let proxy_port = match section.field("proxy_port") {
        Some(field) => proxy_port(&field, report).map(Some),
        None => Some(None),
    };
    Some(NodeHealth {
        times: times?,
        proxy_port: proxy_port?,
    })
}

fn proxy_port(field: &Field<'_>, report: &mut Report<'_>) -> Option<u16> {
    const WANTED: &str = "a port from 1 to 65535";
    const HELP: &str = "write `proxy_port = 10256`, where kube-proxy answers `/healthz` on every node; or take it out";
    let port = field.u16(WANTED, HELP, report)?;
    if port == 0 {
        field.refuse(WANTED, HELP, report);
        return None;
    }
    Some(port)
}

/// `kubeconfig` and the rest as a person would write it, for telling one from another.
pub(super) fn shown(settings: Option<&Kubernetes>) -> String {
    let Some(settings) = settings else {
        return "nothing".to_owned();
    };
    let path = |path: &PathBuf| path.display().to_string();
    let of = [
        ("class", Some(settings.class.clone())),
        ("classless", Some(settings.is_classless.to_string())),
        ("kubeconfig", settings.kubeconfig.as_ref().map(path)),
        ("node", Some(settings.node.clone())),
        ("namespace", settings.namespace.clone()),
        ("lease", Some(settings.lease.clone())),
        ("forward", Some(settings.forward.as_str().to_owned())),
        ("table", Some(settings.table.as_str().to_owned())),
        ("announce", Some(settings.announce.as_str().to_owned())),
        ("health", Some(settings.health.to_string())),
    ];
    let of = of
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key} {}", value?)));
    of.collect::<Vec<_>>().join(", ")
}
