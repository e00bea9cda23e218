//! The kernel, and what this process may do.

use super::{count, word};
use crate::{
    config::Config,
    doctor::{
        facts::{Balancer, Bpffs, Host},
        finding::Finding,
    },
};

/// The oldest kernel that weir is tested on.
const OLDEST: (u32, u32) = (6, 1);

/// Descriptors that a daemon needs besides tables, checks and clients: maps, programs, sockets.
const OTHER_DESCRIPTORS: u64 = 256;

/// What a remembered flow takes, in bytes (docs/tables.md).
const PIN_BYTES: u64 = 121;

/// What a remembered source takes, in bytes.
const SOURCE_BYTES: u64 = size_of::<lb_common::limit::Source>() as u64;

pub(super) fn check(facts: &Balancer, config: &Config) -> Vec<Finding> {
    let host = &facts.host;
    vec![
        kernel(host),
        btf(host),
        capabilities(host),
        program(host),
        jit(host),
        bpffs(facts.bpffs, config),
        descriptors(host, config),
        memory(host, config),
    ]
}

fn kernel(host: &Host) -> Finding {
    const CHECK: &str = "kernel";
    let (major, minor) = OLDEST;
    let release = &host.release;
    match version(release) {
        Some(found) if found >= OLDEST => {
            Finding::ok(CHECK, Finding::HOST, format!("Linux {release}"))
        }
        Some(_) => Finding::fail(CHECK, Finding::HOST, format!("Linux {release} is too old"))
            .why(format!(
                "weir is tested on {major}.{minor} and newer; older kernels refuse its program or lack what keeps neighbours resolved"
            ))
            .remedy(format!("install a kernel of {major}.{minor} or newer")),
        None => Finding::note(
            CHECK,
            Finding::HOST,
            format!("the kernel's release {release:?} cannot be read"),
        )
        .why(format!("weir needs Linux {major}.{minor} or newer")),
    }
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

fn btf(host: &Host) -> Finding {
    const CHECK: &str = "btf";
    if host.has_btf {
        return Finding::ok(CHECK, Finding::HOST, "the kernel has BTF");
    }
    Finding::note(CHECK, Finding::HOST, "the kernel has no BTF")
        .why("weir works without it; tools that look into running programs, such as bpftrace, do not")
        .remedy("use a kernel built with CONFIG_DEBUG_INFO_BTF")
}

fn capabilities(host: &Host) -> Finding {
    const CHECK: &str = "capabilities";
    if !host.missing.is_empty() {
        let missing = host.missing.join(", ");
        return Finding::fail(
            CHECK,
            Finding::HOST,
            format!("this process lacks {missing}"),
        )
        .why("a daemon started like this could not load or attach its program")
        .remedy(
            "run weir as root, or give its unit \
                 `AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON`",
        )
        .command("sudo weir doctor");
    }
    let admin = if host.is_sys_admin {
        "CAP_SYS_ADMIN as well"
    } else {
        "not CAP_SYS_ADMIN: other programs on an interface are named by number only"
    };
    Finding::ok(
        CHECK,
        Finding::HOST,
        format!("CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; {admin}"),
    )
}

fn program(host: &Host) -> Finding {
    const CHECK: &str = "program";
    match &host.program {
        Ok(loaded) => {
            let verified = loaded.verified.map_or_else(String::new, |instructions| {
                format!(
                    "; its largest step took the verifier {instructions} instructions of 1000000"
                )
            });
            Finding::ok(
                CHECK,
                Finding::HOST,
                format!("the kernel takes weir's program{verified}"),
            )
        }
        Err(error) => Finding::fail(
            CHECK,
            Finding::HOST,
            format!("the kernel does not take weir's program: {error}"),
        )
        .why("`weir run` would end with the same error")
        .remedy(if host.missing.is_empty() {
            "please report it, with the kernel's release; a newer kernel may take it"
        } else {
            "first mend the capabilities"
        }),
    }
}

fn jit(host: &Host) -> Finding {
    const CHECK: &str = "jit";
    let compiled = host
        .program
        .as_ref()
        .ok()
        .and_then(|loaded| loaded.is_jitted);
    match compiled.or(host.jit.map(|level| level > 0)) {
        Some(true) => Finding::ok(
            CHECK,
            Finding::HOST,
            "programs are compiled to machine code",
        ),
        Some(false) => Finding::warn(CHECK, Finding::HOST, "BPF's JIT is off")
            .why(
                "the kernel interprets every packet's program, which takes about ten times as long",
            )
            .command("sysctl -w net.core.bpf_jit_enable=1"),
        None => Finding::note(
            CHECK,
            Finding::HOST,
            "whether BPF's JIT is on cannot be seen in this network namespace",
        )
        .why("without it every packet takes about ten times as long")
        .command("sysctl net.core.bpf_jit_enable"),
    }
}

fn bpffs(found: Bpffs, config: &Config) -> Finding {
    const CHECK: &str = "bpffs";
    let path = &config.node.pin_path;
    let shown = path.display();
    match found {
        Bpffs::Mounted => Finding::ok(CHECK, shown, "is on a bpffs"),
        Bpffs::Absent => {
            let usual = path.starts_with("/sys/fs/bpf");
            let target = if usual {
                "/sys/fs/bpf".into()
            } else {
                word(&shown.to_string())
            };
            let finding = Finding::note(CHECK, shown, "is on no bpffs yet")
                .why(
                    "`weir run` mounts one there, which needs CAP_SYS_ADMIN, and in a mount namespace of its own \
                     (a container, PrivateMounts=) it ends with the daemon, and the program with it",
                );
            let finding = if usual {
                finding
            } else {
                finding.command(format!("mkdir -p {target}"))
            };
            finding.command(format!("mount -t bpf bpf {target}"))
        }
    }
}

fn descriptors(host: &Host, config: &Config) -> Finding {
    const CHECK: &str = "descriptors";
    let checked = config.vips.iter().filter(|vip| vip.health.is_some());
    let checks: usize = checked.map(|vip| vip.backends.len()).sum();
    // A table is built aside while the old one is held.
    let needed = (config.vips.len() * 2 + checks) as u64 + OTHER_DESCRIPTORS;
    let limit = host.descriptors;
    if limit >= needed {
        return Finding::ok(
            CHECK,
            Finding::HOST,
            "enough for all tables and health checks",
        );
    }
    Finding::fail(
        CHECK,
        Finding::HOST,
        format!("a process may open {limit} files, and this configuration needs {needed}"),
    )
    .why("every VIP's table is a descriptor, and every health check under way is one: some would be refused")
    .remedy(format!(
        "give weir's unit `LimitNOFILE={needed}` or more; in a shell, before weir starts:"
    ))
    .command(format!("ulimit -n {needed}"))
}

fn memory(host: &Host, config: &Config) -> Finding {
    const CHECK: &str = "memory";
    let tables = (config.vips.len() * size_of::<lb_common::slot::SlotTable>()) as u64;
    let pins = 3 * u64::from(config.node.max_pins) * PIN_BYTES;
    let sources = u64::from(config.node.max_sources) * SOURCE_BYTES;
    let needed = tables + pins + sources + size_of::<lb_common::marks::Marks>() as u64;
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    let text = format!(
        "{} MiB for {}, and flows and sources to remember",
        mebibytes(needed),
        count(config.vips.len(), "table")
    );
    match host.memory {
        Some(free) if free < needed => Finding::warn(
            CHECK,
            Finding::HOST,
            format!("{text}, and {} MiB are free", mebibytes(free)),
        )
        .why("the kernel holds these maps in memory that is never swapped out: it refuses them, or ends other processes")
        .remedy("give the host more memory, or write a smaller `max_pins` or `max_sources` (docs/tables.md)"),
        _ => Finding::ok(CHECK, Finding::HOST, text),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{self, config},
        *,
    };
    use crate::doctor::{
        facts::Loaded,
        finding::Level::{self, Fail, Note, Ok as Fine, Warn},
    };

    fn host() -> Host {
        testing::balancer().host
    }

    #[test]
    fn kernels_before_6_1_are_too_old() {
        let level = |release: &str| {
            kernel(&Host {
                release: release.to_owned(),
                ..host()
            })
            .level
        };
        let found = [
            "6.1.0-13-amd64",
            "6.18.4",
            "10.0",
            "5.15.1",
            "6.0.9",
            "strange",
        ]
        .map(level);
        assert_eq!(found, [Fine, Fine, Fine, Fail, Fail, Note]);
    }

    #[test]
    fn btf_is_nice_to_have() {
        let level = |has_btf| btf(&Host { has_btf, ..host() }).level;
        assert_eq!([true, false].map(level), [Fine, Note]);
    }

    #[test]
    fn capabilities_are_needed() {
        assert_eq!(capabilities(&host()).level, Fine);
        let found = capabilities(&Host {
            missing: vec!["CAP_BPF"],
            ..host()
        });
        assert_eq!(found.level, Fail);
        assert!(found.what.contains("CAP_BPF"), "{}", found.what);
    }

    #[test]
    fn a_program_that_is_refused_is_told_with_the_error() {
        assert_eq!(program(&host()).level, Fine);
        let found = program(&Host {
            program: Err("permission denied".to_owned()),
            ..host()
        });
        assert_eq!(found.level, Fail);
        assert!(found.what.contains("permission denied"), "{}", found.what);
    }

    #[test]
    fn the_jit_is_told_by_the_program_first_and_by_the_sysctl_else() {
        let level = |is_jitted, sysctl| -> Level {
            let loaded = Loaded {
                is_jitted,
                verified: None,
            };
            jit(&Host {
                program: Ok(loaded),
                jit: sysctl,
                ..host()
            })
            .level
        };
        assert_eq!(level(Some(true), Some(0)), Fine);
        assert_eq!(level(Some(false), None), Warn);
        assert_eq!(level(None, Some(0)), Warn);
        assert_eq!(level(None, Some(2)), Fine);
        assert_eq!(level(None, None), Note);
    }

    #[test]
    fn a_bpffs_that_is_not_mounted_is_noted() {
        assert_eq!(bpffs(Bpffs::Mounted, &config()).level, Fine);
        let found = bpffs(Bpffs::Absent, &config());
        assert_eq!(found.level, Note);
        assert_eq!(found.commands, ["mount -t bpf bpf /sys/fs/bpf"]);
    }

    #[test]
    fn descriptors_must_do_for_all_tables() {
        let found = |limit| {
            let host = Host {
                descriptors: limit,
                ..host()
            };
            descriptors(&host, &config()).level
        };
        assert_eq!([1024, 200].map(found), [Fine, Fail]);
    }

    #[test]
    fn maps_must_fit_into_memory() {
        let found = |memory| memory_level(memory);
        assert_eq!(
            [None, Some(1 << 30), Some(1 << 20)].map(found),
            [Fine, Fine, Warn]
        );
    }

    fn memory_level(free: Option<u64>) -> Level {
        let host = Host {
            memory: free,
            ..host()
        };
        memory(&host, &config()).level
    }
}
