//! `weir decap detach`

use std::path::PathBuf;

use super::{DEFAULT_PIN_PATH, Outcome};
use crate::{cli::output, dataplane::bpf::decap};

const EXAMPLES: &str = "\
Examples:
  weir decap detach
  weir decap detach --interface eth0

From then on the kernel gets the fleet's packets with their outer headers.";

/// Take the program off one interface, or all, and remove its pins
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Interface to take it off [default: all]
    #[arg(short, long, value_name = "NAME")]
    interface: Option<String>,
    /// Directory of the pins
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PIN_PATH)]
    pin_path: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let detached = decap::detach(&args.pin_path, args.interface.as_deref())?;
    if detached.is_empty() {
        output::message("nothing was attached");
    } else {
        output::message(format_args!("detached from {}", detached.join(", ")));
    }
    Ok(Outcome::Done)
}
