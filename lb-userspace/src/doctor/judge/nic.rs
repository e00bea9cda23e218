//! An interface that packets come by.

use super::{cluster, word};
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
            if let Some(remedy) = cluster::of_plugin(program.name.as_deref()) {
                return finding.remedy(remedy);
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
mod tests;
