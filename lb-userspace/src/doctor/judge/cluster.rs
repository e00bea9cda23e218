//! A node that serves a cluster's Services: what network plugins and kube-proxy do beside weir.

use super::{USUAL_PACKET, overhead};
use crate::{
    config::{Config, ForwardMode, Kubernetes},
    doctor::{
        facts::{Net, Nic},
        finding::Finding,
    },
};

/// Where kube-proxy in its mode `ipvs` puts the addresses of Services.
const IPVS: &str = "kube-ipvs0";

/// How interfaces of pods, or of what they hang on, are named by those who make them.
const OF_PODS: [&str; 6] = [
    "cali",
    "cilium_host",
    "cni",
    "flannel",
    "kube-bridge",
    "lxc",
];

/// What is told of XDP programs by the beginning of their names: whose they are, and what takes them off.
const PLUGINS: [(&str, &str); 2] = [
    (
        "cil_",
        "it is Cilium's: set `loadBalancer.acceleration` to `disabled` there, or let packets for VIPs come by another interface",
    ),
    (
        "cali",
        "it is Calico's: set `xdpEnabled: false` in its FelixConfiguration, or let packets for VIPs come by another interface",
    ),
];

/// Everything, where weir is to follow a cluster.
pub(super) fn check(net: &Net, config: &Config) -> Vec<Finding> {
    let Some(cluster) = &config.kubernetes else {
        return Vec::new();
    };
    let nics = config.node.interfaces.iter();
    let nics: Vec<_> = nics.filter_map(|name| net.nics.get(name)).collect();
    let mut findings = vec![strict_arp(net, &nics)];
    findings.extend(room(net, &nics, cluster, config));
    findings
}

/// What to do about a network plugin's XDP program, by its name.
pub(super) fn of_plugin(program: Option<&str>) -> Option<&'static str> {
    let is_of = |(start, _): &&(&str, &str)| program.is_some_and(|name| name.starts_with(start));
    PLUGINS.iter().find(is_of).map(|(_, remedy)| *remedy)
}

/// Whether nodes answer ARP for the VIPs that kube-proxy gives them.
fn strict_arp(net: &Net, nics: &[&Nic]) -> Finding {
    const CHECK: &str = "strict-arp";
    if !net.nics.contains_key(IPVS) {
        return Finding::ok(CHECK, Finding::HOST, "kube-proxy puts no VIP on this host");
    }
    let ignores = |nic: &&&Nic| net.all.arp_ignore.max(nic.conf.arp_ignore) == Some(0);
    match nics.iter().find(ignores) {
        None => Finding::ok(CHECK, IPVS, "holds VIPs, and no ARP is answered for them"),
        Some(nic) => Finding::fail(
            CHECK,
            IPVS,
            format!("holds VIPs, and arp_ignore of {} is 0", nic.name),
        )
        .why("every node answers ARP for every VIP: the segment sends their packets anywhere, past the node that announces them")
        .remedy(
            "set `strictARP: true` in kube-proxy's configuration (`kubectl -n kube-system edit configmap kube-proxy`, \
             section `ipvs`) and restart it; until then:",
        )
        .command("sysctl -w net.ipv4.conf.all.arp_ignore=1")
        .command("sysctl -w net.ipv4.conf.all.arp_announce=2"),
    }
}

/// Whether what pods let clients send fits through with its outer headers: a connection's packets are as large as the pods'
/// MTU lets them be.
fn room(net: &Net, nics: &[&Nic], cluster: &Kubernetes, config: &Config) -> Option<Finding> {
    const CHECK: &str = "cluster-mtu";
    if cluster.forward == ForwardMode::L2 {
        return None;
    }
    let nic = nics.iter().min_by_key(|nic| nic.mtu)?;
    let is_of_pods = |nic: &&Nic| OF_PODS.iter().any(|start| nic.name.starts_with(start));
    let pods = net
        .nics
        .values()
        .filter(is_of_pods)
        .max_by_key(|nic| nic.mtu);
    let largest = pods.map_or(USUAL_PACKET, |nic| nic.mtu);
    let needed = largest + overhead(cluster.forward, config.node.encap_source.v4.is_some());
    let whose = pods.map_or_else(
        || format!("packets of {largest} bytes"),
        |nic| format!("pods' packets (MTU {largest}, {})", nic.name),
    );
    if nic.mtu >= needed {
        let text = format!("{whose} fit through, outer headers included");
        return Some(Finding::ok(CHECK, &nic.name, text));
    }
    let text = format!(
        "MTU {}, and {whose} need {needed} as {}",
        nic.mtu,
        cluster.forward.as_str()
    );
    let finding = Finding::warn(CHECK, &nic.name, text).why(
        "full packets do not fit, outer headers included: weir tells clients by ICMP to send smaller ones, clients whose \
         networks swallow that hang",
    );
    let fits = nic.mtu.saturating_sub(needed - largest);
    Some(finding.remedy(format!(
        "raise the MTU between the nodes to {needed}, or lower the network plugin's to {fits}"
    )))
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{balancer, level, nic},
        *,
    };
    use crate::doctor::finding::Level;

    fn config(forward: &str) -> Config {
        let text = format!(
            "[node]\ninterfaces = [\"eth0\"]\nseed = \"a secret of some length\"\nencap_source = [\"10.0.0.1\"]\n\
             [kubernetes]\nforward = \"{forward}\"\n"
        );
        Config::parse(&text, "f").unwrap()
    }

    fn checked(forward: &str, change: impl FnOnce(&mut Net)) -> Vec<Finding> {
        let mut facts = balancer();
        change(&mut facts.net);
        check(&facts.net, &config(forward))
    }

    fn add(net: &mut Net, name: &str, mtu: u32) {
        let nic = Nic {
            name: name.to_owned(),
            index: 7,
            mtu,
            ..nic()
        };
        net.nics.insert(name.to_owned(), nic);
    }

    #[test]
    fn without_a_cluster_there_is_nothing_to_check() {
        let mut config = config("ipip");
        config.kubernetes = None;
        assert!(check(&balancer().net, &config).is_empty());
    }

    #[test]
    fn vips_on_kube_ipvs0_want_strict_arp() {
        let with = |arp_ignore: u8| {
            let findings = checked("l2", |net| {
                add(net, IPVS, 1500);
                net.all.arp_ignore = Some(arp_ignore);
                net.nics.get_mut("eth0").unwrap().conf.arp_ignore = Some(0);
            });
            level(&findings, "strict-arp")
        };
        assert_eq!(with(0), Level::Fail);
        assert_eq!(with(1), Level::Ok);
        let without = checked("l2", |net| net.all.arp_ignore = Some(0));
        assert_eq!(level(&without, "strict-arp"), Level::Ok);
    }

    #[test]
    fn outer_headers_want_room_beside_the_pods_mtu() {
        let with = |forward: &str, own: u32, pods: Option<u32>| {
            let findings = checked(forward, |net| {
                net.nics.get_mut("eth0").unwrap().mtu = own;
                if let Some(mtu) = pods {
                    add(net, "cali12345", mtu);
                }
            });
            level(&findings, "cluster-mtu")
        };
        // Pods on a network of 1,450 leave room for one header on a wire of 1,500.
        assert_eq!(with("ipip", 1500, Some(1450)), Level::Ok);
        assert_eq!(with("ipip", 1500, Some(1500)), Level::Warn);
        assert_eq!(with("ipip", 1520, Some(1500)), Level::Ok);
        assert_eq!(with("gue", 1500, Some(1480)), Level::Warn);
        assert_eq!(with("gue", 1500, None), Level::Warn);
        assert!(
            checked("l2", |_| {})
                .iter()
                .all(|finding| finding.check != "cluster-mtu")
        );
    }

    #[test]
    fn plugins_are_known_by_their_programs() {
        assert!(of_plugin(Some("cil_xdp_entry")).unwrap().contains("Cilium"));
        assert!(of_plugin(Some("calico_xdp")).unwrap().contains("Calico"));
        assert_eq!(of_plugin(Some("weir_xdp")), None);
        assert_eq!(of_plugin(None), None);
    }
}
