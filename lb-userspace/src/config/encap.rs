//! Encapsulation: what `[node]` says of it, and which backends it can reach.

use std::net::IpAddr;

use super::{
    EncapSource, ForwardMode, address,
    section::{Field, Section},
    source::Report,
    vip::checked_address,
};

/// The port that IANA has for GUE.
pub const DEFAULT_GUE_PORT: u16 = 6080;

/// What a pod is told of its node: its addresses, with commas.
const NODE_IPS: &str = "NODE_IPS";

/// Reads `encap_source`: at most one address of a family. Where it is not written, the environment may tell.
pub(super) fn source(section: &Section<'_>, report: &mut Report<'_>) -> Option<EncapSource> {
    const WANTED: &str = "a list of at most one IPv4 and one IPv6 address of this node";
    const HELP: &str = "write `encap_source = [\"10.0.0.1\", \"2001:db8::1\"]`";
    let mut found = EncapSource::default();
    let Some(field) = section.field("encap_source") else {
        return Some(first_of_each(&std::env::var(NODE_IPS).unwrap_or_default()));
    };
    let mut is_valid = true;
    for item in field.items(WANTED, HELP, report)? {
        let address = checked_address(
            &item,
            "a unicast address of this node",
            HELP,
            address::unfit_for_backend,
            report,
        );
        let is_second = match address {
            Some(IpAddr::V4(v4)) => found.v4.replace(v4).is_some(),
            Some(IpAddr::V6(v6)) => found.v6.replace(v6).is_some(),
            None => {
                is_valid = false;
                continue;
            }
        };
        if is_second {
            let help =
                "take one of the two out: every outer header of a family has the same source";
            item.refuse("at most one address of each family", help, report);
            is_valid = false;
        }
    }
    is_valid.then_some(found)
}

/// The first address of each family in a list with commas.
fn first_of_each(list: &str) -> EncapSource {
    let mut found = EncapSource::default();
    let addresses = list.split(',').filter_map(|text| text.trim().parse().ok());
    for address in addresses.filter(|address| address::unfit_for_backend(*address).is_none()) {
        match address {
            IpAddr::V4(v4) => {
                found.v4.get_or_insert(v4);
            }
            IpAddr::V6(v6) => {
                found.v6.get_or_insert(v6);
            }
        }
    }
    found
}

/// Reads `gue_port`.
pub(super) fn gue_port(section: &Section<'_>, report: &mut Report<'_>) -> Option<u16> {
    const WANTED: &str = "a port from 1 to 65535";
    const HELP: &str = "write `gue_port = 6080`, the port on which the backends take GUE";
    let Some(field) = section.field("gue_port") else {
        return Some(DEFAULT_GUE_PORT);
    };
    let port = field.u16(WANTED, HELP, report)?;
    if port == 0 {
        field.refuse(WANTED, HELP, report);
        return None;
    }
    Some(port)
}

/// What backends need of `encap_source`. Each family that is missing is reported once, at the first backend
/// that needs it.
pub(super) struct Needs {
    /// `None`: what is written there is refused already.
    source: Option<EncapSource>,
    reported: [bool; 2],
}

impl Needs {
    pub(super) const fn new(source: Option<EncapSource>) -> Self {
        Self {
            source,
            reported: [false; 2],
        }
    }

    /// Whether a backend can be reached by `mode` from a VIP; reports why not.
    pub(super) fn check(
        &mut self,
        field: &Field<'_>,
        (vip, backend): (IpAddr, IpAddr),
        mode: ForwardMode,
        report: &mut Report<'_>,
    ) -> Option<()> {
        let (inner, outer) = (family(vip), family(backend));
        match mode {
            ForwardMode::L2 if inner != outer => {
                field.refuse(
                    &format!("an {inner} address, as the VIP's"),
                    &format!(
                        "write the backend's {inner} address, since `l2` keeps the packet as it is, \
                         or `forward = \"gue\"`, which carries any family over any"
                    ),
                    report,
                );
                return None;
            }
            ForwardMode::Ipip if vip.is_ipv6() && backend.is_ipv4() => {
                field.refuse(
                    "an IPv6 address: `ipip` carries IPv6 over IPv6 alone",
                    "write the backend's IPv6 address, or `forward = \"gue\"`, which carries any family over any",
                    report,
                );
                return None;
            }
            ForwardMode::L2 => return Some(()),
            ForwardMode::Ipip | ForwardMode::Gue => {}
        }
        if self.source?.toward(backend).is_some() {
            return Some(());
        }
        let [v4, v6] = &mut self.reported;
        let reported = if backend.is_ipv4() { v4 } else { v6 };
        if !std::mem::replace(reported, true) {
            let example = if backend.is_ipv4() {
                "10.0.0.1"
            } else {
                "2001:db8::1"
            };
            report.add(
                field.offset,
                &field.path,
                format!(
                    "{backend}, reached by `{}`, and no {outer} address in `node.encap_source`",
                    mode.as_str()
                ),
                format!("a source address for outer {outer} headers"),
                format!(
                    "add this node's own {outer} address to `[node]`, as in `encap_source = [\"{example}\"]`"
                ),
            );
        }
        None
    }
}

const fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_addresses_are_the_first_of_each_family() {
        let found = first_of_each("10.0.0.7, 2001:db8::7,10.0.0.8");
        assert_eq!(found.v4, "10.0.0.7".parse().ok());
        assert_eq!(found.v6, "2001:db8::7".parse().ok());
        assert_eq!(first_of_each("").v4, None);
        assert_eq!(first_of_each("127.0.0.1,node-7").v4, None);
    }
}
