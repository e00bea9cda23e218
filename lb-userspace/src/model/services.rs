//! VIPs that are no file's, but a cluster's Services': they stand beside those of the configuration, which come first.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use lb_common::vip::MAX_VIPS;

use super::ids::BACKEND_IDS;
use crate::config::{Config, Vip};

/// VIPs of Services, in their order, and the nodes that serve them beside this one.
#[derive(Clone, Debug, Default)]
pub struct Services {
    vips: Arc<[Arc<Vip>]>,
    peers: Arc<BTreeSet<IpAddr>>,
}

impl Services {
    /// These VIPs.
    pub fn new(vips: impl Iterator<Item = Arc<Vip>>) -> Self {
        Self {
            vips: vips.collect(),
            peers: Arc::default(),
        }
    }

    /// The same on a node of the cluster, whose other nodes have these addresses.
    #[must_use]
    pub fn among(self, peers: BTreeSet<IpAddr>) -> Self {
        Self {
            peers: Arc::new(peers),
            ..self
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.vips.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.vips.is_empty()
    }

    /// The VIPs.
    pub fn iter(&self) -> impl Iterator<Item = &Vip> {
        self.vips.iter().map(Arc::as_ref)
    }

    /// A configuration with these VIPs beside its own, and why some of them are not there: names and addresses of the
    /// file are the file's, and the maps have room for so many.
    #[must_use]
    pub fn beside(&self, file: &Config) -> (Config, Vec<String>) {
        let mut config = file.clone();
        if self.is_empty() {
            return (config, Vec::new());
        }
        config.node.peers.extend(self.peers.iter());
        let names: BTreeSet<_> = file.vips.iter().map(|vip| vip.name.as_str()).collect();
        let addresses: BTreeSet<_> = file.vips.iter().map(|vip| vip.address).collect();
        let mut backends: usize = file.vips.iter().map(|vip| vip.backends.len()).sum();
        let mut refused = Vec::new();
        let mut beyond = 0_usize;
        for vip in self.iter() {
            let Vip { name, address, .. } = vip;
            if names.contains(name.as_str()) {
                refused.push(format!(
                    "VIP {name} of a Service is not served: the configuration has one of that name"
                ));
            } else if addresses.contains(address) {
                refused.push(format!(
                    "VIP {name} of a Service is not served: {address} is the address of a VIP of the configuration"
                ));
            } else if config.vips.len() >= MAX_VIPS
                || backends + vip.backends.len() > BACKEND_IDS.count()
            {
                beyond += 1;
            } else {
                backends += vip.backends.len();
                config.vips.push(vip.clone());
            }
        }
        if beyond > 0 {
            refused.push(format!(
                "{beyond} VIPs of Services are not served: a node has room for {MAX_VIPS} VIPs and {} backends",
                BACKEND_IDS.count()
            ));
        }
        (config, refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Reader;

    fn file(vips: &str) -> Config {
        let text = format!("[node]\ninterfaces = [\"eth0\"]\nseed = \"x\"\n{vips}");
        Config::parse(&text, "weir.toml").unwrap()
    }

    fn vip(name: &str, address: &str, port: u16) -> String {
        format!(
            "[[vip]]\nname = \"{name}\"\naddress = \"{address}\"\nport = {port}\nprotocol = \"tcp\"\n"
        )
    }

    #[test]
    fn names_and_addresses_of_the_file_are_the_files() {
        let file = file(&vip("web", "203.0.113.10", 80));
        let reader = Reader::new(&file);
        let texts = [
            vip("a", "203.0.113.20", 80),
            vip("web", "203.0.113.21", 80),
            vip("b", "203.0.113.10", 443),
        ];
        let vips = texts
            .iter()
            .map(|text| Arc::new(reader.read(text).unwrap().unwrap()));
        let (config, refused) = Services::new(vips).beside(&file);
        let names: Vec<_> = config.vips.iter().map(|vip| vip.name.as_str()).collect();
        assert_eq!(names, ["web", "a"]);
        assert_eq!(refused.len(), 2, "{refused:?}");
        assert!(refused[0].contains("of that name"), "{refused:?}");
        assert!(
            refused[1].contains("203.0.113.10 is the address"),
            "{refused:?}"
        );
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_the_rest_served() {
        let file = file("");
        let reader = Reader::new(&file);
        let vips = (0..=MAX_VIPS).map(|index| {
            let port = u16::try_from(index % 60_000 + 1).unwrap();
            let address = format!("10.9.0.{}", index / 60_000 + 1);
            Arc::new(
                reader
                    .read(&vip(&format!("v{index}"), &address, port))
                    .unwrap()
                    .unwrap(),
            )
        });
        let (config, refused) = Services::new(vips).beside(&file);
        assert_eq!(config.vips.len(), MAX_VIPS);
        assert!(refused[0].starts_with("1 VIPs"), "{refused:?}");
    }
}
