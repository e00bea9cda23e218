//! The kernel, and what this process may do.

use std::{fs, path::Path, thread};

use procfs::Current as _;
use rustix::{
    process::{Resource, getrlimit},
    system::uname,
    thread::{CapabilitySet, capabilities},
};

use crate::{
    dataplane::{Sizes, bpf::BpfDataPlane},
    doctor::facts::{Host, Loaded},
};

/// The fewest flows that can be remembered: a trial needs none.
const TRIAL: Sizes = Sizes {
    max_pins: 1024,
    max_sources: 1024,
};

pub(super) fn host() -> Host {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let is_sys_admin = effective.contains(CapabilitySet::SYS_ADMIN);
    let needed = [
        // What CAP_SYS_ADMIN includes, for older programs' sake.
        ("CAP_BPF", CapabilitySet::BPF, is_sys_admin),
        ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN, false),
        ("CAP_PERFMON", CapabilitySet::PERFMON, is_sys_admin),
    ];
    let missing = needed
        .into_iter()
        .filter(|(_, capability, is_implied)| !is_implied && !effective.contains(*capability));
    Host {
        release: uname().release().to_string_lossy().into_owned(),
        has_btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        missing: missing.map(|(name, ..)| name).collect(),
        is_sys_admin,
        program: load().map_err(|error| format!("{error:#}")),
        jit: super::net::sysctl("net/core/bpf_jit_enable"),
        descriptors: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
        memory: procfs::Meminfo::current()
            .ok()
            .and_then(|memory| memory.mem_available),
        cpus: cpus(),
    }
}

/// Loads the real program over maps of its own, and lets it go.
fn load() -> anyhow::Result<Loaded> {
    let mut plane = BpfDataPlane::private_with(TRIAL)?;
    let sizes = plane.program_sizes().ok();
    let largest = sizes.and_then(|steps| steps.into_iter().map(|step| step.verified).max());
    Ok(Loaded {
        is_jitted: plane.is_jitted().ok(),
        verified: largest,
    })
}

/// CPUs that are online, be they this process's or not.
fn cpus() -> u32 {
    let listed = fs::read_to_string("/sys/devices/system/cpu/online");
    let counted = listed.ok().and_then(|list| numbers_in(list.trim()));
    counted.unwrap_or_else(|| {
        let own = thread::available_parallelism().map_or(1, usize::from);
        u32::try_from(own).unwrap_or(u32::MAX)
    })
}

/// How many numbers a list such as `0-3,8` has.
fn numbers_in(ranges: &str) -> Option<u32> {
    let counts = ranges.split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    });
    counts.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_cpus() {
        assert_eq!(numbers_in("0"), Some(1));
        assert_eq!(numbers_in("0-3,8,10-11"), Some(7));
        assert_eq!(numbers_in(""), None);
        assert!(cpus() > 0);
    }
}
