//! Whose addresses are whose: the source of a probe, and VIPs that are this node's own.

use std::net::IpAddr;

use super::network::Network;
use crate::health::Failure;

/// The address that this node talks to a backend from, where that is of the VIP's family: the backend answers there too.
/// `None` leaves the choice to the kernel.
///
/// # Errors
/// There is no route to the backend.
pub(super) async fn toward(
    network: &Network,
    vip: IpAddr,
    backend: IpAddr,
) -> Result<Option<IpAddr>, Failure> {
    if vip.is_ipv4() != backend.is_ipv4() {
        return Ok(None);
    }
    match network.route(backend, None, None).await {
        Ok(route) => Ok(route.source),
        Err(error) => Err(Failure::Failed(format!("the way to {backend}: {error:#}"))),
    }
}

/// Why a VIP that is this node's own address cannot be asked through the forwarding path, and what to do.
pub(super) fn refusal(vip: IpAddr) -> String {
    let bits = if vip.is_ipv4() { 32 } else { 128 };
    format!(
        "{vip} is an address of this node itself, so that its packets never leave it: take it away \
         (`ip address del {vip}/{bits} dev lo`, or what `ip address` shows), or write via = \"direct\""
    )
}
