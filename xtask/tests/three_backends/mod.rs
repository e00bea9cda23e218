//! A daemon before three backends on one segment, and clients of its VIP of HTTP over IPv4.

use xtask::{
    lab::{Lab, Plan, Topology, VIP_V4, Weir, WeirConfig},
    traffic::client,
};

/// The lab and what runs in it.
pub(crate) struct Run {
    // Fields are dropped in order: the lab, which kills what still runs, comes last.
    pub(crate) weir: Weir,
    pub(crate) topology: Topology,
    pub(crate) lab: Lab,
}

impl Run {
    pub(crate) fn start() -> Self {
        let lab = Lab::new().unwrap();
        let plan = Plan {
            near: 3,
            far: 0,
            routed: 0,
        };
        let topology = Topology::build(&lab, &plan).unwrap();
        let config = WeirConfig::for_topology(&topology, &[]);
        let weir = Weir::start(&lab, &topology.lb.namespace, &config)
            .unwrap_or_else(|error| panic!("{error:#}"));
        Self {
            weir,
            topology,
            lab,
        }
    }

    /// Who answers so many requests; none may fail.
    pub(crate) fn answering(&self, requests: u32) -> Vec<String> {
        let options = client::Options::new(Topology::http(VIP_V4), requests);
        let fetch = || client::fetch(&options);
        let summary = self.topology.client.namespace.inside(fetch).unwrap();
        let errors = &summary.errors;
        assert_eq!(summary.failed, 0, "{errors:?}\n{}", self.weir.account());
        summary.by_backend.into_keys().collect()
    }
}
