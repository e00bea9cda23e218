//! What is checked: one question to one address, however many VIPs want to know.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::config::{
    Config, ForwardMode, Health,
    health::{Probe, Via},
};

/// A check. Equal checks of several VIPs are one, and run once.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Check {
    /// What is asked: the backend's own address, or the VIP's.
    pub target: SocketAddr,
    /// Of a check that asks the VIP's address: whom the question is for. It goes there through the forwarding path.
    pub through: Option<Through>,
    /// What is asked, and which answer passes.
    pub probe: Probe,
    /// From the beginning of one probe to that of the next, on the average.
    pub interval: Duration,
    /// How long a whole probe may take.
    pub timeout: Duration,
    /// Passed probes in a row that make a failed backend healthy.
    pub rise: u16,
    /// Failed probes in a row that make a healthy backend failed.
    pub fall: u16,
}

/// A backend, by the way to it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Through {
    /// Its own address.
    pub backend: IpAddr,
    /// How packets reach it.
    pub forward: ForwardMode,
}

impl Check {
    /// The check of one backend of a VIP, which packets reach by `forward`.
    #[must_use]
    pub fn new(health: &Health, backend: IpAddr, forward: ForwardMode) -> Self {
        let Health {
            probe,
            via,
            port,
            interval,
            timeout,
            rise,
            fall,
            panic_threshold: _,
        } = health;
        let (address, through) = match via {
            Via::Direct => (backend, None),
            Via::Dsr { vip } => (*vip, Some(Through { backend, forward })),
        };
        Self {
            target: SocketAddr::new(address, *port),
            through,
            probe: probe.clone(),
            interval: *interval,
            timeout: *timeout,
            rise: *rise,
            fall: *fall,
        }
    }

    /// Whether both ask the same of the same backend, however often.
    #[must_use]
    pub fn asks_the_same(&self, other: &Self) -> bool {
        self.question() == other.question()
    }

    /// What is asked of whom. Checks are in the order of this first.
    pub(super) const fn question(&self) -> (SocketAddr, Option<Through>, &Probe) {
        (self.target, self.through, &self.probe)
    }

    /// The backend's own address, and the port that is asked.
    #[must_use]
    pub fn backend(&self) -> SocketAddr {
        let address = self.through.map_or(self.target.ip(), |to| to.backend);
        SocketAddr::new(address, self.target.port())
    }
}

/// The check of every backend that is checked, by the VIP's name and the backend's address.
#[must_use]
pub fn checks_of(config: &Config) -> BTreeMap<(String, IpAddr), Check> {
    let mut checks = BTreeMap::new();
    for vip in &config.vips {
        let Some(health) = &vip.health else {
            continue;
        };
        for backend in &vip.backends {
            let key = (vip.name.clone(), backend.address);
            checks.insert(key, Check::new(health, backend.address, backend.forward));
        }
    }
    checks
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const CONFIG: &str = r#"
        [node]
        interfaces = ["eth0"]
        seed = "x"
        [[vip]]
        name = "a"
        address = "203.0.113.1"
        port = 443
        protocol = "tcp"
        health = { type = "tcp" }
        backend = [{ address = "10.0.0.1" }, { address = "10.0.0.2", weight = 0 }]
        [[vip]]
        name = "b"
        address = "203.0.113.2"
        port = 443
        protocol = "tcp"
        health = { type = "tcp" }
        backend = [{ address = "10.0.0.1" }]
        [[vip]]
        name = "c"
        address = "203.0.113.3"
        port = 443
        protocol = "tcp"
        health = { type = "tcp", port = 80 }
        backend = [{ address = "10.0.0.1" }]
        [[vip]]
        name = "d"
        address = "203.0.113.4"
        port = 443
        protocol = "tcp"
        backend = [{ address = "10.0.0.1" }]
    "#;

    #[test]
    fn equal_checks_of_several_vips_are_one() {
        let config = Config::parse(CONFIG, "f").unwrap();
        let checks = checks_of(&config);
        let names: Vec<_> = checks
            .keys()
            .map(|(vip, backend)| format!("{vip} {backend}"))
            .collect();
        assert_eq!(
            names,
            ["a 10.0.0.1", "a 10.0.0.2", "b 10.0.0.1", "c 10.0.0.1"]
        );
        let distinct: BTreeSet<&Check> = checks.values().collect();
        let targets: Vec<_> = distinct.iter().map(|c| c.target.to_string()).collect();
        assert_eq!(targets, ["10.0.0.1:80", "10.0.0.1:443", "10.0.0.2:443"]);
    }

    #[test]
    fn another_interval_asks_the_same() {
        let config = Config::parse(CONFIG, "f").unwrap();
        let health = config.vips[0].health.as_ref().unwrap();
        let check = Check::new(health, [10, 0, 0, 1].into(), ForwardMode::L2);
        let slower = Check {
            interval: Duration::from_secs(9),
            ..check.clone()
        };
        assert!(check != slower && check.asks_the_same(&slower));
        let other = Check::new(health, [10, 0, 0, 2].into(), ForwardMode::L2);
        assert!(!check.asks_the_same(&other));
    }

    #[test]
    fn checks_of_one_vip_address_by_one_way_are_one() {
        let vip = |name: &str, address: &str, port: u16, backend: &str| {
            format!(
                "[[vip]]\nname = \"{name}\"\naddress = \"{address}\"\nport = {port}\nprotocol = \"tcp\"\n\
                 health = {{ type = \"tcp\", port = 8080, via = \"dsr\" }}\nbackend = [{{ {backend} }}]\n"
            )
        };
        let backend = "address = \"10.0.0.1\"";
        let text = [
            "[node]\ninterfaces = [\"eth0\"]\nseed = \"x\"\nencap_source = [\"10.0.0.9\"]\n"
                .to_owned(),
            vip("a", "203.0.113.1", 80, backend),
            vip("b", "203.0.113.1", 443, backend),
            vip("c", "203.0.113.2", 80, backend),
            vip(
                "d",
                "203.0.113.1",
                81,
                "address = \"10.0.0.1\", forward = \"gue\"",
            ),
        ];
        let config = Config::parse(&text.concat(), "f").unwrap();
        let checks = checks_of(&config);
        let distinct: BTreeSet<&Check> = checks.values().collect();
        let told = distinct.iter().map(|check| {
            let through = check.through.unwrap();
            assert_eq!(check.backend().to_string(), "10.0.0.1:8080");
            format!("{} {}", check.target, through.forward.as_str())
        });
        assert_eq!(
            told.collect::<Vec<_>>(),
            [
                "203.0.113.1:8080 l2",
                "203.0.113.1:8080 gue",
                "203.0.113.2:8080 l2"
            ]
        );
    }
}
