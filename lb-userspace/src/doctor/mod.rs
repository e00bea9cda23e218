//! `weir doctor`: what will not work, why, and the command that mends it.
//!
//! `gather` asks the kernel and the daemon for facts, and changes nothing. `judge` makes findings of facts and is
//! pure. docs/doctor.md explains every check.

mod dialled;
mod facts;
mod finding;
mod gather;
mod judge;

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

pub use dialled::Dialled;
pub use finding::{Finding, Level, Report, Role};

use crate::{
    config::{Config, ForwardMode},
    dataplane::bpf::decap::IpPrefix,
};
use facts::{Net, Tunnel, Wanted};

/// Examines a load balancer with this configuration, running or not.
///
/// # Errors
/// The kernel cannot be asked.
pub async fn balancer(config: &Config) -> anyhow::Result<Report> {
    let facts = gather::balancer(config).await?;
    Ok(judge::balancer::judge(&facts, config))
}

/// What a server is to be examined for.
#[derive(Clone, Debug)]
pub struct Server {
    /// What it serves, and how packets come.
    pub serves: Serves,
    /// The interfaces by which packets come; empty: found out.
    pub interfaces: Vec<String>,
    /// Where `weir decap` keeps its pins.
    pub decap_pins: PathBuf,
    /// Whether that is not the usual place, so that commands must name it.
    pub has_own_pins: bool,
}

/// What a server serves.
#[derive(Clone, Debug)]
pub enum Serves {
    /// What the configuration of its load balancers gives it.
    Config(Box<Config>),
    /// What somebody says.
    Told {
        /// The VIPs.
        vips: Vec<Dialled>,
        /// How packets come.
        forward: ForwardMode,
        /// Where tunnels come from.
        sources: Vec<IpPrefix>,
        /// UDP port of GUE.
        gue_port: u16,
    },
}

/// Examines a server of VIPs.
///
/// # Errors
/// The kernel cannot be asked.
pub async fn server(server: &Server) -> anyhow::Result<Report> {
    let mut facts = gather::server(server).await?;
    let wanted = wanted(&server.serves, &facts.net);
    facts.facing = if server.interfaces.is_empty() {
        facing(&facts.net, &wanted)
    } else {
        server.interfaces.clone()
    };
    Ok(judge::server::judge(&facts, &wanted))
}

/// What a server is to take, held against its own addresses.
fn wanted(serves: &Serves, net: &Net) -> Wanted {
    match serves {
        Serves::Told {
            vips,
            forward,
            sources,
            gue_port,
        } => {
            let tunnel = |vip: &Dialled| Tunnel {
                forward: *forward,
                // Where nothing tells: as the sources are, or else as the VIP is.
                is_outer_v4: sources
                    .first()
                    .map_or(vip.address, IpPrefix::address)
                    .is_ipv4(),
                is_inner_v4: vip.address.is_ipv4(),
            };
            Wanted {
                vips: vips.clone(),
                tunnels: vips.iter().map(tunnel).collect(),
                sources: sources.clone(),
                gue_port: *gue_port,
                ..Wanted::default()
            }
        }
        Serves::Config(config) => configured(config, net),
    }
}

fn configured(config: &Config, net: &Net) -> Wanted {
    let backends = config
        .vips
        .iter()
        .flat_map(|vip| vip.backends.iter().map(move |backend| (vip, backend)));
    let mut own: Vec<_> = backends
        .clone()
        .filter(|(_, backend)| net.holds(backend.address))
        .collect();
    let is_stranger = own.is_empty();
    if is_stranger {
        own = backends.collect();
    }
    let vips: BTreeSet<Dialled> = own
        .iter()
        .map(|(vip, _)| Dialled {
            address: vip.address,
            port: Some(vip.port),
            protocol: vip.protocol,
        })
        .collect();
    let tunnels: BTreeSet<Tunnel> = own
        .iter()
        .map(|(vip, backend)| Tunnel {
            forward: backend.forward,
            is_outer_v4: backend.address.is_ipv4(),
            is_inner_v4: vip.address.is_ipv4(),
        })
        .collect();
    let tunnelled = own
        .iter()
        .filter(|(_, backend)| backend.forward != ForwardMode::L2);
    let addresses: BTreeSet<IpAddr> = tunnelled.map(|(_, backend)| backend.address).collect();
    let sources: BTreeSet<IpAddr> = addresses
        .iter()
        .filter_map(|address| config.node.encap_source.toward(*address))
        .collect();
    Wanted {
        vips: vips.into_iter().collect(),
        tunnels,
        sources: sources.into_iter().map(IpPrefix::single).collect(),
        gue_port: config.node.gue_port,
        own: if is_stranger {
            Vec::new()
        } else {
            addresses.into_iter().collect()
        },
        is_stranger,
    }
}

/// The interfaces by which packets for VIPs come: those with an address that is no VIP, other than the loopback and
/// tunnels.
fn facing(net: &Net, wanted: &Wanted) -> Vec<String> {
    let is_own = |address: IpAddr| {
        let is_vip = wanted.vips.iter().any(|vip| vip.address == address);
        !is_vip && (wanted.own.is_empty() || wanted.own.contains(&address))
    };
    let held = net.addresses.iter().filter(|held| is_own(held.address));
    let names: BTreeSet<_> = held.map(|held| held.interface.clone()).collect();
    let usable = |name: &String| {
        let nic = net.nics.get(name);
        nic.is_some_and(|nic| nic.is_ethernet && nic.kind.as_deref() != Some("dummy"))
    };
    names.into_iter().filter(usable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::{Held, Nic};

    const CONFIG: &str = r#"
        [node]
        interfaces = ["eth0"]
        seed = "x"
        encap_source = ["10.0.0.1", "2001:db8::1"]
        [[vip]]
        name = "web"
        address = "203.0.113.10"
        port = 443
        protocol = "tcp"
        [[vip.backend]]
        address = "10.0.0.11"
        [[vip.backend]]
        address = "10.0.0.12"
        forward = "gue"
        [[vip]]
        name = "dns"
        address = "2001:db8:a::10"
        port = 53
        protocol = "udp"
        [[vip.backend]]
        address = "10.0.0.12"
        forward = "gue"
    "#;

    fn net(address: &str) -> Net {
        let mut net = Net::default();
        for (name, is_ethernet, kind) in [
            ("lo", false, None),
            ("eth0", true, None),
            ("eth1", true, None),
            ("dummy0", true, Some("dummy")),
        ] {
            let nic = Nic {
                name: name.to_owned(),
                is_ethernet,
                kind: kind.map(str::to_owned),
                ..Nic::default()
            };
            net.nics.insert(name.to_owned(), nic);
        }
        for (address, interface) in [
            (address, "eth0"),
            ("192.0.2.1", "eth1"),
            ("203.0.113.10", "lo"),
            ("192.0.2.77", "dummy0"),
        ] {
            net.addresses.push(Held {
                address: address.parse().unwrap(),
                prefix: 24,
                interface: interface.to_owned(),
                is_tentative: false,
            });
        }
        net
    }

    fn of_config(net: &Net) -> Wanted {
        let config = Config::parse_offline(CONFIG, "f").unwrap();
        wanted(&Serves::Config(Box::new(config)), net)
    }

    fn shown(vips: &[Dialled]) -> Vec<String> {
        vips.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_configuration_tells_a_host_what_is_its_own() {
        let host = net("10.0.0.12");
        let wanted = of_config(&host);
        assert_eq!(
            shown(&wanted.vips),
            ["203.0.113.10:443/tcp", "[2001:db8:a::10]:53/udp"]
        );
        assert!(
            wanted
                .tunnels
                .iter()
                .all(|t| t.forward == ForwardMode::Gue && t.is_outer_v4)
        );
        assert_eq!(wanted.tunnels.len(), 2);
        assert_eq!(wanted.sources, ["10.0.0.1".parse().unwrap()]);
        assert_eq!(wanted.own, ["10.0.0.12".parse::<IpAddr>().unwrap()]);
        assert_eq!(facing(&host, &wanted), ["eth0"]);

        let host = net("10.0.0.11");
        let wanted = of_config(&host);
        assert_eq!(shown(&wanted.vips), ["203.0.113.10:443/tcp"]);
        assert!(wanted.sources.is_empty() && wanted.own.is_empty() && !wanted.is_stranger);
    }

    #[test]
    fn a_host_that_is_not_named_is_examined_for_all() {
        let host = net("10.0.0.99");
        let wanted = of_config(&host);
        assert!(wanted.is_stranger);
        assert_eq!(wanted.vips.len(), 2);
        // No dummy, and no loopback.
        assert_eq!(facing(&host, &wanted), ["eth0", "eth1"]);
    }

    #[test]
    fn what_is_told_is_taken_as_it_is() {
        let told = Serves::Told {
            vips: vec!["203.0.113.10:443".parse().unwrap()],
            forward: ForwardMode::Ipip,
            sources: vec!["2001:db8::1".parse().unwrap()],
            gue_port: 6080,
        };
        let wanted = wanted(&told, &net("10.0.0.11"));
        let tunnel = Tunnel {
            forward: ForwardMode::Ipip,
            is_outer_v4: false,
            is_inner_v4: true,
        };
        assert_eq!(wanted.tunnels, [tunnel].into());
    }
}
