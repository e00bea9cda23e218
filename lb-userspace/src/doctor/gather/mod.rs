//! Asks the kernel and the daemon. Nothing is changed.

mod ethtool;
mod host;
mod net;
mod routing;
mod server;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, timeout, timeout_at};

use super::facts::{Balancer, Bpffs, Daemon};
use crate::{
    api::client::{Client, ClientError},
    config::Config,
    dataplane::bpf::{linked_interfaces, nearest_is_bpffs},
    health::{self, Check, checks_of},
    neighbours::{Snapshot, peek},
};

pub(super) use server::server;

/// How long health checks may take altogether, where there is no daemon that makes them.
const HEALTH: Duration = Duration::from_millis(1500);

/// Health checks on the way at a time.
const PROBES: usize = 64;

/// Everything about a load balancer.
pub(super) async fn balancer(config: &Config) -> anyhow::Result<Balancer> {
    let node = &config.node;
    let host = tokio::task::spawn_blocking(host::host);
    let daemon = match Client::new(&node.api_socket).status().await {
        Ok(status) => Daemon::Answers(Box::new(status)),
        Err(ClientError::Away { .. }) => Daemon::Away,
        Err(error) => Daemon::Unknown(error.to_string()),
    };
    let is_away = matches!(daemon, Daemon::Away);
    let backends: BTreeSet<IpAddr> = config
        .vips
        .iter()
        .flat_map(|vip| &vip.backends)
        .map(|backend| backend.address)
        .collect();
    let (ways, unhealthy, routing) = tokio::join!(
        look(backends),
        unhealthy(config, is_away),
        routing::routing(config)
    );
    let ways = ways?;
    // Pins of another layout, or none: then weir's program is not on the interfaces.
    let linked = linked_interfaces(&node.pin_path).unwrap_or_default();
    let net = net::net(&ways, &linked).await?;
    Ok(Balancer {
        host: host.await.context("looking at the host")?,
        net,
        ways,
        daemon,
        bpffs: if nearest_is_bpffs(&node.pin_path)? {
            Bpffs::Mounted
        } else {
            Bpffs::Absent
        },
        unwritable: if is_away {
            unwritable(config)
        } else {
            Vec::new()
        },
        metrics: if is_away { taken(config) } else { None },
        unhealthy,
        routing,
    })
}

/// The ways to these addresses, and the interfaces.
async fn look(addresses: BTreeSet<IpAddr>) -> anyhow::Result<Snapshot> {
    peek(addresses)
        .await
        .context("asking the kernel for interfaces, routes and neighbours")
}

/// Health checks that fail, each with its reason. Those that were not made in time are left out.
async fn unhealthy(config: &Config, is_away: bool) -> Vec<(String, String)> {
    if !is_away {
        return Vec::new();
    }
    let checks: BTreeSet<Check> = checks_of(config).into_values().collect();
    let deadline = Instant::now() + HEALTH;
    let mut failed = Vec::new();
    let mut probes = stream::iter(checks)
        // No async closure: the compiler at hand (1.95.0) fails on this one when it builds anew what has changed.
        .map(|check| async move {
            let patience = check.timeout.min(HEALTH / 2);
            let result = match timeout(patience, health::probe(&check)).await {
                Ok(result) => result.map_err(|failure| failure.to_string()),
                Err(_) => Err(format!("no answer in {} ms", patience.as_millis())),
            };
            (check.target.to_string(), result)
        })
        .buffer_unordered(PROBES);
    while let Ok(Some((target, result))) = timeout_at(deadline, probes.next()).await {
        if let Err(error) = result {
            failed.push((target, error));
        }
    }
    failed.sort();
    failed.dedup();
    failed
}

/// The directories of files that are to be made, where this process may not make them.
fn unwritable(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let node = &config.node;
    let files = [
        ("state_file", &node.state_file),
        ("api_socket", &node.api_socket),
    ];
    let judge = |(key, file): (&'static str, &PathBuf)| {
        let directory = file.parent().unwrap_or(Path::new("/"));
        (!may_write(directory)).then(|| (key, directory.to_owned()))
    };
    files.into_iter().filter_map(judge).collect()
}

/// Whether this process may make files in a directory, which it may have to make first.
fn may_write(directory: &Path) -> bool {
    let mut existing = directory.ancestors().filter(|path| path.exists());
    let nearest = existing.next().unwrap_or(Path::new("/"));
    rustix::fs::access(nearest, rustix::fs::Access::WRITE_OK).is_ok() && nearest.is_dir()
}

/// Why `metrics_listen` cannot be listened on.
fn taken(config: &Config) -> Option<String> {
    let listening = std::net::TcpListener::bind(config.node.metrics_listen);
    let error = listening.err()?.to_string();
    let text = error
        .split_once(" (os error")
        .map_or(error.as_str(), |(text, _)| text);
    Some(text.to_lowercase())
}
