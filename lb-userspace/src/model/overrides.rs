//! What commands have changed of the configuration: backends drained, weights set. Pure: who keeps them is
//! the module `state`.
//!
//! An override names a VIP and a backend by name and address, as whoever made it did. It holds until it is undone,
//! also while the configuration does not have that backend: one that is taken out and comes back is still drained.

use std::{collections::BTreeMap, net::IpAddr};

use crate::config::Config;

/// What commands have changed of one backend of a VIP. By default nothing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Override {
    /// It takes no new flows, whatever its weight.
    pub is_drained: bool,
    /// Its weight instead of the configuration's.
    pub weight: Option<u16>,
}

impl Override {
    /// The weight that counts where the configuration says `configured`.
    #[must_use]
    pub const fn effective(self, configured: u16) -> u16 {
        match self {
            Self {
                is_drained: true, ..
            } => 0,
            Self {
                weight: Some(weight),
                ..
            } => weight,
            Self { weight: None, .. } => configured,
        }
    }
}

/// A backend of a VIP, as commands name it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct BackendName {
    /// The VIP's name.
    pub vip: String,
    /// The backend's address.
    pub backend: IpAddr,
}

/// Every override that is in force.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Overrides(BTreeMap<BackendName, Override>);

impl Overrides {
    /// What has been changed of a backend.
    #[must_use]
    pub fn get(&self, name: &BackendName) -> Override {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Puts an override in force; one that changes nothing is forgotten.
    pub fn set(&mut self, name: BackendName, value: Override) {
        if value == Override::default() {
            self.0.remove(&name);
        } else {
            self.0.insert(name, value);
        }
    }

    /// Every override, by VIP and address.
    pub fn iter(&self) -> impl Iterator<Item = (&BackendName, Override)> {
        self.0.iter().map(|(name, value)| (name, *value))
    }

    /// The configuration as it counts: with the weights that commands have set.
    #[must_use]
    pub fn apply(&self, config: &Config) -> Config {
        let mut config = config.clone();
        for vip in &mut config.vips {
            for backend in &mut vip.backends {
                let name = BackendName {
                    vip: vip.name.clone(),
                    backend: backend.address,
                };
                backend.weight = self.get(&name).effective(backend.weight);
            }
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        [node]
        interfaces = ["eth0"]
        seed = "x"
        [[vip]]
        name = "web"
        address = "203.0.113.10"
        port = 80
        protocol = "tcp"
        backend = [{ address = "10.0.0.11" }, { address = "10.0.0.12", weight = 7 }]
        [[vip]]
        name = "dns"
        address = "203.0.113.10"
        port = 53
        protocol = "udp"
        backend = [{ address = "10.0.0.11" }]
    "#;

    fn name(vip: &str, backend: &str) -> BackendName {
        BackendName {
            vip: vip.to_owned(),
            backend: backend.parse().unwrap(),
        }
    }

    fn weights(overrides: &Overrides) -> Vec<u16> {
        let config = overrides.apply(&Config::parse(FILE, "f").unwrap());
        let backends = config.vips.iter().flat_map(|vip| &vip.backends);
        backends.map(|backend| backend.weight).collect()
    }

    #[test]
    fn a_drain_beats_a_weight_and_gives_it_back() {
        let mut overrides = Overrides::default();
        assert_eq!(weights(&overrides), [100, 7, 100]);
        let web = name("web", "10.0.0.11");
        let mut value = Override {
            weight: Some(50),
            ..Override::default()
        };
        overrides.set(web.clone(), value);
        assert_eq!(weights(&overrides), [50, 7, 100]);
        value.is_drained = true;
        overrides.set(web.clone(), value);
        assert_eq!(weights(&overrides), [0, 7, 100]);
        value.is_drained = false;
        overrides.set(web.clone(), value);
        assert_eq!(weights(&overrides), [50, 7, 100]);
        overrides.set(web, Override::default());
        assert_eq!(overrides, Overrides::default());
    }

    #[test]
    fn what_the_configuration_does_not_have_is_kept_and_does_nothing() {
        let mut overrides = Overrides::default();
        let drained = Override {
            is_drained: true,
            weight: None,
        };
        overrides.set(name("web", "10.0.0.99"), drained);
        overrides.set(name("gone", "10.0.0.11"), drained);
        assert_eq!(weights(&overrides), [100, 7, 100]);
        assert_eq!(overrides.iter().count(), 2);
    }
}
