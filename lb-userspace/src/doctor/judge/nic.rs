//! An interface that packets come by.

use super::word;
use crate::{
    config::XdpMode,
    doctor::{
        facts::{Nic, Offload},
        finding::Finding,
    },
    model::attached::AttachMode,
};

/// The largest frame that fits one buffer of a page with XDP's headroom, as an IP packet, in bytes. Drivers vary a
/// little; this is what the tightest of them takes.
const ONE_BUFFER: u32 = 3498;

/// A receive ring under this many frames overflows in a burst of small packets.
const SMALL_RING: u32 = 512;

/// Everything about one interface.
pub(super) fn check(nic: &Nic, mode: XdpMode, cpus: u32) -> Vec<Finding> {
    let mut findings = vec![link(nic), xdp(nic, mode)];
    findings.extend(frags(nic, mode));
    findings.extend(queues(nic, cpus));
    findings.extend(ring(nic));
    findings.push(lro(nic));
    findings.extend(gro_hw(nic, mode));
    findings.push(vlan_offload(nic));
    findings.extend(veth(nic));
    findings
}

/// An interface of the configuration that there is not.
pub(super) fn absent(name: &str, present: &[&str]) -> Finding {
    let others = if present.is_empty() {
        String::new()
    } else {
        format!("; there are {}", present.join(", "))
    };
    Finding::fail("link", name, format!("there is no such interface{others}"))
        .why("no packet comes by it; weir waits for it and attaches when it appears")
        .remedy("make the interface, or write another one into `interfaces`")
}

pub(super) fn link(nic: &Nic) -> Finding {
    const CHECK: &str = "link";
    let name = &nic.name;
    if !nic.is_ethernet {
        return Finding::fail(CHECK, name, "is no Ethernet interface")
            .why("weir reads and writes Ethernet frames: it takes every packet of this one for malformed")
            .remedy("write the Ethernet interface that packets come by into `interfaces`");
    }
    if !nic.is_up {
        return Finding::fail(CHECK, name, "is down")
            .why("no packet comes by it, and none leaves")
            .command(format!("ip link set dev {} up", word(name)));
    }
    if !nic.has_carrier {
        return Finding::fail(CHECK, name, "is up and has no carrier")
            .why("no packet comes by it, and none leaves")
            .remedy(
                "look at the cable, the switch's port, or the other end of a virtual interface",
            );
    }
    let what = nic.driver.as_ref().or(nic.kind.as_ref());
    let what = what.map_or_else(String::new, |what| format!(", {what}"));
    Finding::ok(CHECK, name, format!("is up{what}, MTU {}", nic.mtu))
}

fn xdp(nic: &Nic, mode: XdpMode) -> Finding {
    const CHECK: &str = "xdp";
    const SLOW: &str = "the kernel makes a socket buffer of every packet before weir sees it: several times slower";
    let name = &nic.name;
    let is_able = nic.can.map(|can| can.basic);
    match (&nic.xdp, is_able) {
        (Some(carried), _) if !carried.is_weirs => {
            let program = &carried.program;
            let finding = Finding::fail(
                CHECK,
                name,
                format!("carries another XDP program: {program}"),
            )
            .why("an interface bears one XDP program, and weir never replaces somebody else's: it waits until that one is gone");
            if program.name.as_deref() == Some("weir_decap") {
                return finding
                    .remedy("it is `weir decap`, for backends; a host is one or the other on an interface:")
                    .command(format!("weir decap detach --interface {}", word(name)));
            }
            finding
                .remedy(format!(
                    "find out whose it is (`bpftool prog show id {}`); if nobody needs it:",
                    program.id
                ))
                .command(take_off(nic, carried.mode))
        }
        (Some(carried), _) if carried.mode == AttachMode::Native => {
            Finding::ok(CHECK, name, "carries weir's program, native")
        }
        (Some(_), _) if mode == XdpMode::Generic => {
            Finding::note(CHECK, name, "carries weir's program, generic, as configured").why(SLOW)
        }
        (Some(_), Some(true)) => Finding::warn(
            CHECK,
            name,
            "carries weir's program, generic, and the driver could bear it native",
        )
        .why(SLOW)
        .remedy("mend what `weir run` logged when it attached (often the MTU, or too few queues), then attach anew:")
        .command("weir detach")
        .command("systemctl restart weir"),
        (Some(_), _) => Finding::warn(CHECK, name, "carries weir's program, generic")
            .why(SLOW)
            .remedy("use an interface whose driver has native XDP"),
        (None, _) if mode == XdpMode::Generic => {
            Finding::note(CHECK, name, "would carry weir's program, generic, as configured").why(SLOW)
        }
        (None, Some(true)) => Finding::ok(CHECK, name, "could carry weir's program, native"),
        (None, Some(false)) if mode == XdpMode::Native => Finding::fail(
            CHECK,
            name,
            "has no native XDP, and `xdp_mode` wants it",
        )
        .why("weir would refuse to start on it")
        .remedy("write `xdp_mode = \"auto\"`, or use an interface whose driver has native XDP"),
        (None, Some(false)) => {
            Finding::warn(CHECK, name, "has no native XDP: weir would fall back to generic")
                .why(SLOW)
                .remedy("use an interface whose driver has native XDP, or write `xdp_mode = \"generic\"`")
        }
        (None, None) => Finding::note(
            CHECK,
            name,
            "whether the driver has native XDP is not known: this kernel (before 6.3) does not tell",
        )
        .why("weir falls back to generic XDP where it has not, and says so in its log and in `weir status`"),
    }
}

/// Takes a program off that was attached without a link; each mode is a slot of its own.
fn take_off(nic: &Nic, mode: AttachMode) -> String {
    let slot = match mode {
        AttachMode::Native => "xdp",
        AttachMode::Generic => "xdpgeneric",
    };
    format!("ip link set dev {} {slot} off", word(&nic.name))
}

/// Frames of several buffers.
fn frags(nic: &Nic, mode: XdpMode) -> Option<Finding> {
    const CHECK: &str = "frags";
    let name = &nic.name;
    if nic.mtu <= ONE_BUFFER || mode == XdpMode::Generic || !nic.can?.basic {
        return None;
    }
    if nic.can?.scatter {
        return Some(Finding::ok(CHECK, name, "takes frames of several buffers"));
    }
    let finding = Finding::warn(
        CHECK,
        name,
        format!("MTU {} is more than one buffer, and the driver gives XDP one only", nic.mtu),
    )
    .why("the driver refuses the program, and weir falls back to generic XDP, or frames beyond a page are dropped");
    Some(finding.command(format!("ip link set dev {} mtu {ONE_BUFFER}", word(name))))
}

fn queues(nic: &Nic, cpus: u32) -> Option<Finding> {
    const CHECK: &str = "queues";
    let name = &nic.name;
    let queues = nic.queues?;
    let what = format!(
        "{} receive and {} transmit queues for {cpus} CPUs",
        queues.rx, queues.tx
    );
    let fewest = queues.rx.min(queues.tx);
    if fewest >= cpus {
        return Some(Finding::ok(CHECK, name, what));
    }
    let reachable = cpus.min(queues.max_rx).min(queues.max_tx);
    let set = if queues.is_combined {
        format!("ethtool -L {} combined {reachable}", word(name))
    } else {
        format!("ethtool -L {} rx {reachable} tx {reachable}", word(name))
    };
    let why = "only as many CPUs forward packets as there are receive queues, and CPUs that share a transmit queue \
               wait for each other; some drivers refuse native XDP";
    // Virtual interfaces have few queues, and nobody expects much of them.
    Some(if reachable <= fewest {
        Finding::note(CHECK, name, what)
            .why(why)
            .remedy("this interface has no more; spread flows over more interfaces where that is not enough")
    } else if nic.kind.is_some() {
        Finding::note(CHECK, name, what).why(why).command(set)
    } else {
        Finding::warn(CHECK, name, what).why(why).command(set)
    })
}

fn ring(nic: &Nic) -> Option<Finding> {
    const CHECK: &str = "ring";
    let name = &nic.name;
    let (size, most) = nic.ring.filter(|(size, _)| *size > 0)?;
    let wanted = most.min(SMALL_RING * 2);
    if size >= SMALL_RING || wanted <= size {
        return Some(Finding::ok(
            CHECK,
            name,
            format!("receive rings of {size} frames"),
        ));
    }
    let finding = Finding::note(
        CHECK,
        name,
        format!("receive rings of {size} frames, of {most} possible"),
    );
    Some(
        finding
            .why("a burst while a CPU is busy overflows them, and the NIC drops what does not fit")
            .command(format!("ethtool -G {} rx {wanted}", word(name))),
    )
}

fn is_on(offload: Option<Offload>) -> bool {
    offload.is_some_and(|offload| offload.is_on)
}

/// The command that switches an offload off, or what to do where it is fixed.
fn switch_off(finding: Finding, nic: &Nic, offload: Option<Offload>, key: &str) -> Finding {
    if offload.is_some_and(|offload| offload.is_fixed) {
        return finding.remedy("the driver does not let it be switched off: use another interface");
    }
    finding.command(format!("ethtool -K {} {key} off", word(&nic.name)))
}

fn lro(nic: &Nic) -> Finding {
    const CHECK: &str = "lro";
    let name = &nic.name;
    if !is_on(nic.offloads.lro) {
        return Finding::ok(CHECK, name, "LRO is off");
    }
    let finding = Finding::warn(CHECK, name, "LRO is on")
        .why("the NIC merges packets before XDP sees them: most drivers refuse native XDP then, and merged packets cannot be forwarded");
    switch_off(finding, nic, nic.offloads.lro, "lro")
}

fn gro_hw(nic: &Nic, mode: XdpMode) -> Option<Finding> {
    const CHECK: &str = "gro-hw";
    let name = &nic.name;
    let offload = nic.offloads.gro_hw?;
    if !offload.is_on || mode == XdpMode::Generic {
        return Some(Finding::ok(
            CHECK,
            name,
            "no packets are merged in hardware",
        ));
    }
    let finding = Finding::warn(CHECK, name, "GRO in hardware is on")
        .why("the NIC merges packets of a flow before XDP sees them: what weir sends on is larger than the MTU; some drivers refuse native XDP");
    Some(switch_off(finding, nic, Some(offload), "rx-gro-hw"))
}

fn vlan_offload(nic: &Nic) -> Finding {
    const CHECK: &str = "vlan-offload";
    let name = &nic.name;
    if !is_on(nic.offloads.vlan_rx) {
        return Finding::ok(CHECK, name, "VLAN tags stay in the frames");
    }
    let what = "the NIC takes VLAN tags out of frames";
    if !nic.has_vlans {
        return Finding::ok(
            CHECK,
            name,
            format!("{what}; no VLAN device is on it, so that does not matter"),
        );
    }
    let finding = Finding::warn(CHECK, name, format!("{what}, and VLAN devices are on it"))
        .why("XDP does not see tags that the NIC took out: a frame of any VLAN looks as if it had none, and is sent on without");
    switch_off(finding, nic, nic.offloads.vlan_rx, "rxvlan")
}

fn veth(nic: &Nic) -> Option<Finding> {
    if nic.kind.as_deref() != Some("veth") {
        return None;
    }
    Some(
        Finding::note("veth", &nic.name, "is one end of a veth pair")
            .why("what weir sends arrives only if the other end runs an XDP program too, be it one that passes everything; else it vanishes without a word")
            .remedy("see docs/backends.md: `weir decap` is such a program"),
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{carried, level, nic, of},
        *,
    };
    use crate::doctor::{
        facts::{Carried, Queues, XdpFeatures},
        finding::Level::{self, Fail, Note, Ok as Fine, Warn},
    };

    fn checked(change: impl FnOnce(&mut Nic)) -> Vec<Finding> {
        let mut nic = nic();
        change(&mut nic);
        check(&nic, XdpMode::Auto, 2)
    }

    fn with(check: &str, change: impl FnOnce(&mut Nic)) -> Level {
        level(&checked(change), check)
    }

    #[test]
    fn a_good_interface_is_all_right() {
        let findings = checked(|_| {});
        assert!(findings.iter().all(|f| f.level == Fine), "{findings:?}");
    }

    #[test]
    fn a_link_must_be_ethernet_up_and_carried() {
        assert_eq!(with("link", |nic| nic.is_ethernet = false), Fail);
        assert_eq!(with("link", |nic| nic.has_carrier = false), Fail);
        let down = checked(|nic| nic.is_up = false);
        assert_eq!(of(&down, "link")[0].commands, ["ip link set dev eth0 up"]);
        let missing = absent("eth7", &["eth0"]);
        assert_eq!(missing.level, Fail);
        assert!(missing.what.contains("eth0"), "{}", missing.what);
    }

    fn of_mode(mode: XdpMode, carried: Option<Carried>, is_able: Option<bool>) -> Finding {
        let mut nic = nic();
        nic.xdp = carried;
        nic.can = is_able.map(|basic| XdpFeatures {
            basic,
            transmit: true,
            scatter: true,
        });
        xdp(&nic, mode)
    }

    #[test]
    fn xdp_is_native_or_said_to_be_slow() {
        use AttachMode::{Generic as G, Native as N};
        for (mode, attached, is_able, expected) in [
            (XdpMode::Auto, Some(N), Some(true), Fine),
            (XdpMode::Auto, Some(G), Some(true), Warn),
            (XdpMode::Auto, Some(G), Some(false), Warn),
            (XdpMode::Generic, Some(G), Some(false), Note),
            (XdpMode::Auto, None, Some(true), Fine),
            (XdpMode::Auto, None, Some(false), Warn),
            (XdpMode::Native, None, Some(false), Fail),
            (XdpMode::Generic, None, Some(false), Note),
            (XdpMode::Auto, None, None, Note),
        ] {
            let attached = attached.map(|attached| carried(true, attached));
            let found = of_mode(mode, attached.clone(), is_able);
            assert_eq!(found.level, expected, "{mode:?} {attached:?} {is_able:?}");
        }
    }

    #[test]
    fn somebody_elses_program_is_named() {
        let found = of_mode(
            XdpMode::Auto,
            Some(carried(false, AttachMode::Native)),
            None,
        );
        assert_eq!(found.level, Fail);
        assert!(found.what.contains("id 7, name other"), "{}", found.what);
        assert_eq!(found.commands, ["ip link set dev eth0 xdp off"]);
        let generic = of_mode(
            XdpMode::Auto,
            Some(carried(false, AttachMode::Generic)),
            None,
        );
        assert_eq!(generic.commands, ["ip link set dev eth0 xdpgeneric off"]);
        let mut decap = carried(false, AttachMode::Native);
        decap.program.name = Some("weir_decap".to_owned());
        let found = of_mode(XdpMode::Auto, Some(decap), None);
        assert_eq!(found.commands, ["weir decap detach --interface eth0"]);
    }

    #[test]
    fn large_frames_want_several_buffers() {
        let jumbo = |scatter: bool| {
            with("frags", |nic| {
                nic.mtu = 9000;
                nic.can = Some(XdpFeatures {
                    scatter,
                    basic: true,
                    transmit: true,
                });
            })
        };
        assert_eq!([true, false].map(jumbo), [Fine, Warn]);
        assert!(of(&checked(|_| {}), "frags").is_empty());
    }

    #[test]
    fn queues_are_as_many_as_cpus_where_they_can_be() {
        let few = |max: u32, kind: Option<&str>| {
            checked(|nic| {
                nic.kind = kind.map(str::to_owned);
                nic.queues = Some(Queues {
                    rx: 1,
                    tx: 1,
                    max_rx: max,
                    max_tx: max,
                    is_combined: kind.is_none(),
                });
            })
        };
        let physical = few(8, None);
        assert_eq!(level(&physical, "queues"), Warn);
        assert_eq!(
            of(&physical, "queues")[0].commands,
            ["ethtool -L eth0 combined 2"]
        );
        assert_eq!(level(&few(1, None), "queues"), Note);
        let veth = few(8, Some("veth"));
        assert_eq!(level(&veth, "queues"), Note);
        assert_eq!(
            of(&veth, "queues")[0].commands,
            ["ethtool -L eth0 rx 2 tx 2"]
        );
    }

    #[test]
    fn small_rings_are_noted_where_they_can_grow() {
        assert_eq!(with("ring", |nic| nic.ring = Some((256, 4096))), Note);
        assert_eq!(with("ring", |nic| nic.ring = Some((256, 256))), Fine);
    }

    const ON: Option<Offload> = Some(Offload {
        is_on: true,
        is_fixed: false,
    });

    #[test]
    fn offloads_that_merge_packets_are_warned_of() {
        let found = checked(|nic| nic.offloads.lro = ON);
        assert_eq!(level(&found, "lro"), Warn);
        assert_eq!(of(&found, "lro")[0].commands, ["ethtool -K eth0 lro off"]);
        let found = checked(|nic| nic.offloads.gro_hw = ON);
        assert_eq!(level(&found, "gro-hw"), Warn);
        assert_eq!(
            of(&found, "gro-hw")[0].commands,
            ["ethtool -K eth0 rx-gro-hw off"]
        );
        let fixed = Some(Offload {
            is_on: true,
            is_fixed: true,
        });
        let found = checked(|nic| nic.offloads.lro = fixed);
        assert!(of(&found, "lro")[0].commands.is_empty());
    }

    #[test]
    fn tags_taken_by_the_nic_matter_where_there_are_vlans() {
        assert_eq!(with("vlan-offload", |nic| nic.offloads.vlan_rx = ON), Fine);
        let found = checked(|nic| {
            nic.offloads.vlan_rx = ON;
            nic.has_vlans = true;
        });
        assert_eq!(level(&found, "vlan-offload"), Warn);
        assert_eq!(
            of(&found, "vlan-offload")[0].commands,
            ["ethtool -K eth0 rxvlan off"]
        );
    }

    #[test]
    fn a_veth_wants_a_program_at_its_other_end() {
        assert_eq!(with("veth", |nic| nic.kind = Some("veth".to_owned())), Note);
        assert!(of(&checked(|_| {}), "veth").is_empty());
    }
}
