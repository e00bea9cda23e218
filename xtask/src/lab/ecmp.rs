//! A router before a fleet: it spreads flows over the nodes by their hash, as routers with BGP do.

use std::{fmt::Write as _, net::IpAddr};

use anyhow::Result;

use super::{
    Lab,
    namespace::Namespace,
    topology::{ROUTER, Topology, VIP_V4, addresses, v4},
};

/// The router, through which the client dials the IPv4 VIP.
#[derive(Debug)]
pub struct Ecmp {
    router: Namespace,
    nodes: Vec<IpAddr>,
}

impl Ecmp {
    /// Makes the router on the load balancers' segment, which gives all nodes the same weight.
    pub fn create(lab: &Lab, topology: &Topology, nodes: Vec<IpAddr>) -> Result<Self> {
        let router = lab.namespace("router")?;
        topology
            .segment
            .plug(&router, "eth0", &addresses(0, ROUTER))?;
        router.sysctl("net/ipv4/ip_forward", "1")?;
        // By addresses and ports: one client's connections go to several nodes.
        router.sysctl("net/ipv4/fib_multipath_hash_policy", "1")?;
        // All are on one segment, and yet the way is to be through the router.
        for nic in ["all", "eth0"] {
            router.sysctl(&format!("net/ipv4/conf/{nic}/send_redirects"), "0")?;
        }
        let ecmp = Self { router, nodes };
        ecmp.spread(&vec![1; ecmp.nodes.len()])?;
        let via = v4(0, ROUTER);
        topology
            .client
            .namespace
            .ip(&format!("route replace {VIP_V4} via {via} dev eth0"))?;
        Ok(ecmp)
    }

    /// Gives the nodes weights, by which flows that are open go to other nodes too; 0 takes one out.
    pub fn spread(&self, weights: &[u8]) -> Result<()> {
        let mut route = format!("route replace {VIP_V4}");
        let nodes = self.nodes.iter().zip(weights);
        for (node, weight) in nodes.filter(|(_, weight)| **weight > 0) {
            // Writing to a string cannot fail.
            write!(route, " nexthop via {node} dev eth0 weight {weight}").ok();
        }
        self.router.ip(&route).map(drop)
    }
}
