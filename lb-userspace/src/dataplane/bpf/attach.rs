//! Attaching the program to interfaces by links, and swapping it without a gap.

use std::{fs, path::Path};

use anyhow::Context as _;
use aya::programs::{
    ProgramError, Xdp, XdpMode as AyaMode,
    links::{FdLink, PinnedLink},
    loaded_programs,
    xdp::{XdpLink, XdpLinkId},
};
use rustix::io::Errno;

use crate::{
    config::XdpMode,
    model::attached::{AttachMode, ForeignProgram, Refused},
};

/// Attaches `program` to an interface, or swaps it into the link that is pinned at `pin`. Returns how a new link is
/// attached, and nothing where an old one was kept.
///
/// `carries` is the program that the interface carries now (0: none), where that is known: a pinned link of another
/// program is some other interface's, which had this one's name.
///
/// # Errors
/// Where the interface does not exist, carries somebody else's program, or bears no XDP in the wanted mode.
pub(super) fn attach(
    program: &mut Xdp,
    interface: &str,
    mode: XdpMode,
    pin: Option<&Path>,
    carries: Option<u32>,
) -> Result<Option<AttachMode>, Refused> {
    if let Some(pin) = pin
        && pin.exists()
        && replace(program, interface, pin, carries).map_err(failed)?
    {
        return Ok(None);
    }
    let explain = |error| explain(error, interface, mode, carries);
    let create = |program: &mut Xdp, mode| program.attach(interface, mode);
    let (id, mode) = match mode {
        XdpMode::Native => (create(program, AyaMode::Driver), AttachMode::Native),
        XdpMode::Generic => (create(program, AyaMode::Skb), AttachMode::Generic),
        XdpMode::Auto => match create(program, AyaMode::Driver) {
            Err(error) if !is_taken(&error) => {
                tracing::warn!(
                    interface,
                    error = %Chain(&error),
                    "the driver bears no native XDP: falling back to generic, which is slower"
                );
                (create(program, AyaMode::Skb), AttachMode::Generic)
            }
            native => (native, AttachMode::Native),
        },
    };
    keep(program, id.map_err(explain)?, interface, pin).map_err(failed)?;
    tracing::info!(interface, mode = mode.as_str(), "XDP program attached");
    Ok(Some(mode))
}

/// Pins a new link.
fn keep(
    program: &mut Xdp,
    id: XdpLinkId,
    interface: &str,
    pin: Option<&Path>,
) -> anyhow::Result<()> {
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
    Ok(())
}

/// Swaps the program into a pinned link; into none whose interface is gone.
///
/// # Errors
/// Where the link cannot be opened, or the kernel refuses: it carries what it carried, then.
pub(super) fn swap(program: &mut Xdp, pin: &Path) -> anyhow::Result<()> {
    let failed = || format!("swapping the program of the link {}", pin.display());
    let link = FdLink::from(PinnedLink::from_pin(pin).with_context(failed)?);
    match program.attach_to_link(XdpLink::try_from(link).with_context(failed)?) {
        // The pin holds the link; this process must not end it.
        Ok(id) => drop(program.take_link(id)?),
        Err(ProgramError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(Errno::NOLINK.raw_os_error()) => {}
        Err(error) => return Err(error).with_context(failed),
    }
    Ok(())
}

/// Swaps the program into a pinned link. Returns false, and removes the pin, where the link is of no use: its interface
/// is gone, or is another one than that which has its name now.
fn replace(
    program: &mut Xdp,
    interface: &str,
    pin: &Path,
    carries: Option<u32>,
) -> anyhow::Result<bool> {
    let link = FdLink::from(
        PinnedLink::from_pin(pin)
            .with_context(|| format!("opening the pinned link {}", pin.display()))?,
    );
    let holds = link.info().context("asking for a link")?.program_id();
    let unpin = || fs::remove_file(pin).with_context(|| format!("removing {}", pin.display()));
    if carries.is_some_and(|carried| carried != holds) {
        tracing::warn!(
            interface,
            "the pinned link leads to another interface: attaching again"
        );
        unpin()?;
        return Ok(false);
    }
    let link = XdpLink::try_from(link).context("the pinned link is not of an XDP program")?;
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
            unpin()?;
            Ok(false)
        }
    }
}

/// Whether another XDP program is in the way.
fn is_taken(error: &ProgramError) -> bool {
    let taken = [Errno::BUSY, Errno::EXIST].map(|errno| Some(errno.raw_os_error()));
    matches!(error, ProgramError::SyscallError(error) if taken.contains(&error.io_error.raw_os_error()))
}

fn explain(error: ProgramError, interface: &str, mode: XdpMode, carries: Option<u32>) -> Refused {
    if is_taken(&error) {
        return Refused::Foreign {
            interface: interface.to_owned(),
            foreign: carries.filter(|id| *id != 0).map(foreign),
        };
    }
    let hint = if matches!(mode, XdpMode::Native) {
        "the driver bears no native XDP: try xdp_mode = \"auto\" or \"generic\""
    } else {
        "see `ip link show` for the interface's state"
    };
    failed(anyhow::Error::new(error).context(format!("attaching XDP to {interface}: {hint}")))
}

fn failed(error: impl Into<anyhow::Error>) -> Refused {
    Refused::Failed(format!("{:#}", error.into()))
}

/// A program by its number, with its name where the kernel tells it.
#[must_use]
pub fn foreign(id: u32) -> ForeignProgram {
    let program = loaded_programs()
        .flatten()
        .find(|program| program.id() == id);
    ForeignProgram {
        id,
        name: program.and_then(|program| program.name_as_str().map(str::to_owned)),
    }
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
