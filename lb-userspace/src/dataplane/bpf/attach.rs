//! Attaching the program to interfaces by links, and swapping it without a gap.

use std::{fs, path::Path};

use anyhow::Context as _;
use aya::programs::{
    ProgramError, Xdp, XdpMode as AyaMode,
    links::{FdLink, PinnedLink},
    xdp::{XdpLink, XdpLinkId},
};
use rustix::io::Errno;

use crate::config::XdpMode;

/// Attaches `program` to an interface, or swaps it into the link that is pinned at `pin`.
///
/// # Errors
/// Where the interface does not exist, carries somebody else's program, or bears no XDP in the wanted mode.
pub(super) fn attach(
    program: &mut Xdp,
    interface: &str,
    mode: XdpMode,
    pin: Option<&Path>,
) -> anyhow::Result<()> {
    if let Some(pin) = pin
        && pin.exists()
        && replace(program, interface, pin)?
    {
        return Ok(());
    }
    let id = match mode {
        XdpMode::Native => create(program, interface, AyaMode::Driver),
        XdpMode::Generic => create(program, interface, AyaMode::Skb),
        XdpMode::Auto => create(program, interface, AyaMode::Driver).or_else(|error| {
            if is_taken(&error) {
                return Err(error);
            }
            tracing::warn!(
                interface,
                error = %Chain(&error),
                "the driver bears no native XDP: falling back to generic, which is slower"
            );
            create(program, interface, AyaMode::Skb)
        }),
    }
    .map_err(|error| explain(error, interface, mode))?;
    let link = FdLink::try_from(program.take_link(id)?).with_context(|| {
        format!("{interface}: this kernel has no BPF links for XDP (5.9 or newer is needed)")
    })?;
    match pin {
        Some(pin) => {
            link.pin(pin)
                .with_context(|| format!("pinning the link of {interface}"))?;
        }
        // Without a pin the program stays as long as this process.
        None => {
            program.attach_to_link(XdpLink::try_from(link)?)?;
        }
    }
    tracing::info!(interface, "XDP program attached");
    Ok(())
}

fn create(program: &mut Xdp, interface: &str, mode: AyaMode) -> Result<XdpLinkId, ProgramError> {
    program.attach(interface, mode)
}

/// Swaps the program into a pinned link. Returns false where the link's interface is gone.
fn replace(program: &mut Xdp, interface: &str, pin: &Path) -> anyhow::Result<bool> {
    let link = PinnedLink::from_pin(pin)
        .with_context(|| format!("opening the pinned link {}", pin.display()))?;
    let link = XdpLink::try_from(FdLink::from(link))
        .context("the pinned link is not of an XDP program")?;
    match program.attach_to_link(link) {
        Ok(id) => {
            // The pin holds the link; this process must not end it.
            let link = program.take_link(id)?;
            drop(link);
            tracing::info!(interface, "XDP program swapped in without a gap");
            Ok(true)
        }
        Err(error) => {
            tracing::warn!(interface, error = %Chain(&error), "the pinned link leads nowhere: attaching again");
            fs::remove_file(pin).with_context(|| format!("removing {}", pin.display()))?;
            Ok(false)
        }
    }
}

/// Whether another XDP program is in the way.
fn is_taken(error: &ProgramError) -> bool {
    let taken = [Errno::BUSY, Errno::EXIST].map(|errno| Some(errno.raw_os_error()));
    matches!(error, ProgramError::SyscallError(error) if taken.contains(&error.io_error.raw_os_error()))
}

fn explain(error: ProgramError, interface: &str, mode: XdpMode) -> anyhow::Error {
    let hint = if is_taken(&error) {
        "another XDP program is attached there, and weir never replaces one: `ip link show` names it"
    } else if matches!(mode, XdpMode::Native) {
        "the driver bears no native XDP: try xdp_mode = \"auto\" or \"generic\""
    } else {
        "see `ip link show` for the interface's state"
    };
    anyhow::Error::new(error).context(format!("attaching XDP to {interface}: {hint}"))
}

/// An error with its causes on one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
