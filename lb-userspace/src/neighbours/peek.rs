//! One look at the ways to backends, beside a daemon that watches them or without one.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    Snapshot,
    kernel::{Kernel, describe},
    message::Hop,
    resolver::Resolver,
};

/// How long neighbours may take to answer that nobody has asked yet: the kernel asks again after a second.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// What the kernel knows of the ways to these addresses, in the network namespace of the calling thread.
///
/// Neighbours that it does not know are asked for, once and as any packet to them would; nothing is managed and
/// nothing that a daemon manages is touched.
///
/// # Errors
/// The kernel does not answer.
///
/// # Panics
/// Outside a tokio runtime with I/O and time.
pub async fn peek(addresses: BTreeSet<IpAddr>) -> io::Result<Snapshot> {
    let (kernel, _events) = Kernel::open()?;
    let mut resolver = Resolver::default();
    resolver.watch(addresses);
    let deadline = Instant::now() + PATIENCE;
    let mut asked: BTreeSet<Hop> = BTreeSet::new();
    let mut refused = BTreeMap::new();
    loop {
        let links = kernel.links().await?;
        let routes = kernel.routes(resolver.watched()).await?;
        let neighbours = kernel.neighbours().await?;
        resolver.learn(links, routes, &neighbours);
        // One that is kept is asked for by the kernel itself, without end.
        let told = neighbours
            .iter()
            .filter(|n| n.mac.is_some() || n.kept || n.failed && asked.contains(&n.hop));
        let told: BTreeSet<Hop> = told.map(|n| n.hop).collect();
        let open: BTreeSet<Hop> = resolver.hops().filter(|hop| !told.contains(hop)).collect();
        for hop in &open {
            if asked.insert(*hop)
                && let Err(error) = kernel.give_up(*hop).await
            {
                refused.insert(*hop, describe(&error));
            }
        }
        let is_over = open.iter().all(|hop| refused.contains_key(hop));
        if is_over || Instant::now() >= deadline {
            resolver.refuse(refused);
            return Ok(resolver.snapshot());
        }
        sleep(PAUSE).await;
    }
}
