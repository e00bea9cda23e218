//! `weir check`

use std::path::PathBuf;

use super::{Outcome, output};
use crate::config::{self, Scope};

const EXAMPLES: &str = "\
Examples:
  weir check /etc/weir/weir.toml
  weir check --offline weir.toml    on another machine than the load balancer

Exit codes: 0 valid, 1 not valid or not readable (each finding on standard error), 2 usage";

/// Check a configuration file: every finding with its line, key and remedy
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Configuration file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Check only the file: interfaces need not exist, and the seed file is not read
    #[arg(long, alias = "no-host")]
    offline: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let scope = if args.offline {
        Scope::Offline
    } else {
        Scope::Host
    };
    let summary = match config::check(&args.file, scope) {
        Ok(summary) => summary,
        Err(errors) => {
            output::message(&errors);
            let count = errors.findings().len();
            if count > 1 {
                output::message(format_args!("{}: {count} errors", args.file.display()));
            }
            return Ok(Outcome::Refused);
        }
    };
    output::data(format_args!(
        "{}: valid: node {}, {}, {}, {} KiB of lookup tables\n",
        args.file.display(),
        summary.node,
        count(summary.vips, "VIP"),
        count(summary.backends, "backend"),
        summary.table_bytes / 1024,
    ))?;
    Ok(Outcome::Done)
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
