//! Where a probe comes from, and whether its answer would be heard.

use std::{fs, net::IpAddr};

use super::network::{Network, Route};

/// The address that this node talks to a backend from, where that is of the VIP's family: the backend answers there too.
/// `None` leaves the choice to the kernel.
pub(super) async fn toward(network: &Network, vip: IpAddr, backend: IpAddr) -> Option<IpAddr> {
    if vip.is_ipv4() != backend.is_ipv4() {
        return None;
    }
    // A backend whose MAC address is configured needs no route.
    network.route(backend, None, None).await.ok()?.source
}

/// Why a VIP that is this node's own address cannot be asked through the forwarding path, and what to do.
pub(super) fn refusal(vip: IpAddr) -> String {
    let bits = if vip.is_ipv4() { 32 } else { 128 };
    format!(
        "{vip} is an address of this node itself, so that its packets never leave it: take it away \
         (`ip address del {vip}/{bits} dev lo`, or what `ip address` shows), or write via = \"direct\""
    )
}

/// Why the kernel would throw away what comes from a VIP by the interface that leads to a backend, and what to do.
///
/// A guess, as to where answers come in: for when none was heard.
pub(super) async fn deafness(network: &Network, vip: IpAddr, backend: IpAddr) -> Option<String> {
    // For IPv6 the kernel knows no such check.
    if vip.is_ipv6() {
        return None;
    }
    let comes_by = network.route(backend, None, None).await.ok()?.ifindex;
    let interface = network.name(comes_by).await?;
    let back = network.route(vip, None, None).await.ok();
    let filter = rp_filter("all").max(rp_filter(&interface));
    drops(filter, back, comes_by).then(|| {
        let why = match back {
            Some(_) => "the route to it leads out of another interface",
            None => "there is no route to it",
        };
        format!(
            "answers from {vip} are dropped on {interface} by rp_filter = {filter}, since {why}: \
             `sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{interface}.rp_filter=0`"
        )
    })
}

/// Whether a packet is dropped for its source (`ip-sysctl.txt` of the kernel), which `back` leads to.
fn drops(filter: u8, back: Option<Route>, comes_by: u32) -> bool {
    match filter {
        0 => false,
        1 => back.is_none_or(|route| route.ifindex != comes_by),
        _ => back.is_none(),
    }
}

fn rp_filter(interface: &str) -> u8 {
    let file = format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter");
    let text = fs::read_to_string(file).unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_wants_the_same_interface_and_loose_any_route() {
        let back = |ifindex| {
            Some(Route {
                is_local: false,
                ifindex,
                source: None,
            })
        };
        for (filter, back, dropped) in [
            (0, None, false),
            (1, None, true),
            (1, back(2), false),
            (1, back(3), true),
            (2, None, true),
            (2, back(3), false),
        ] {
            assert_eq!(drops(filter, back, 2), dropped, "{filter} {back:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_remedy() {
        let said = refusal("2001:db8::10".parse().unwrap());
        assert!(
            said.contains("`ip address del 2001:db8::10/128 dev lo`"),
            "{said}"
        );
    }
}
