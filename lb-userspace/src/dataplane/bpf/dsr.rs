//! The programs of health checks with `via = "dsr"`: over the pinned maps of the daemon, on the two ends of a veth.
//!
//! Nothing of it is pinned: the programs go with the value, at the latest with the process.

use std::path::Path;

use anyhow::{Context as _, bail};
use aya::{
    Ebpf, EbpfLoader,
    programs::{
        Program, SchedClassifier, TcAttachType, XdpMode,
        tc::{NlOptions, TcAttachOptions, qdisc_add_clsact},
    },
};

use super::{layout::MAPS, pins, test_run};

/// The object that lb-userspace/build.rs made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-dsr-ebpf"));

/// The program that sends frames to backends.
const PROGRAM: &str = "weir_dsr";

/// The program that names the backend in a frame.
const MARK: &str = "weir_dsr_mark";

/// The daemon's maps that the programs read.
const LENT: [&str; 3] = ["NODE", "BACKENDS", "PORTS"];

/// The attached programs.
pub struct Dsr {
    _ebpf: Ebpf,
}

impl Dsr {
    /// Attaches the programs to the ends of a veth: what leaves by `near` comes out at `far` and goes to the backends of
    /// the maps that are pinned below `pin_path`.
    ///
    /// # Errors
    /// Where nothing is pinned there, an interface does not exist, or the kernel refuses.
    pub fn attach(pin_path: &Path, near: &str, far: &str) -> anyhow::Result<Self> {
        let directory = pins::maps(pin_path)?;
        let mut loader = EbpfLoader::new();
        let lent = MAPS.iter().filter(|shape| LENT.contains(&shape.name));
        let paths: Vec<_> = lent
            .map(|shape| (shape, directory.join(shape.name)))
            .collect();
        for (shape, path) in &paths {
            shape.check(path)?;
            loader.map_pin_path(shape.name, path.as_path());
        }
        let mut ebpf = loader
            .load(OBJECT)
            .context("loading the programs of dsr health checks")?;

        let program = test_run::xdp(&mut ebpf, PROGRAM)?;
        program
            .load()
            .with_context(|| format!("loading {PROGRAM}"))?;
        // Generic: it hands frames to any interface, also to one whose driver takes none from other drivers' XDP.
        program
            .attach(far, XdpMode::Skb)
            .with_context(|| format!("attaching {PROGRAM} to {far}"))?;

        qdisc_add_clsact(near)
            .with_context(|| format!("making room for a program on {near} (clsact)"))?;
        let program = classifier(&mut ebpf)?;
        program.load().with_context(|| format!("loading {MARK}"))?;
        // By netlink, which every kernel has; a link (6.6) would tell nothing more of a device of weir's own.
        let options = TcAttachOptions::Netlink(NlOptions::default());
        program
            .attach_with_options(near, TcAttachType::Egress, options)
            .with_context(|| format!("attaching {MARK} to {near}"))?;
        Ok(Self { _ebpf: ebpf })
    }
}

impl std::fmt::Debug for Dsr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dsr").finish_non_exhaustive()
    }
}

fn classifier(ebpf: &mut Ebpf) -> anyhow::Result<&mut SchedClassifier> {
    match ebpf.program_mut(MARK) {
        Some(Program::SchedClassifier(program)) => Ok(program),
        _ => bail!("the object lacks the classifier {MARK}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::object::tests::symbols, *};

    #[test]
    fn no_panic_is_linked_into_the_object() {
        for needle in ["panicking", "panic_fmt", "panic_bounds_check"] {
            let found = symbols(OBJECT).any(|name| name.contains(needle));
            assert!(!found, "{needle} is linked into the BPF object");
        }
        assert!(symbols(OBJECT).any(|name| name == PROGRAM));
    }
}
