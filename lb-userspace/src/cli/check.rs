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
    /// Check only the file: interfaces need not exist, and neither the seed file nor files of prefixes are read
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
        "{}: valid: node {}, {}, {}, {} KiB of lookup tables{}\n",
        args.file.display(),
        summary.node,
        count(summary.vips, "VIP"),
        count(summary.backends, "backend"),
        summary.table_bytes / 1024,
        listed(summary.prefixes),
    ))?;
    Ok(Outcome::Done)
}

/// What the access lists take: a prefix and the branch that leads to it are 64 bytes each in the kernel.
fn listed(prefixes: usize) -> String {
    if prefixes == 0 {
        return String::new();
    }
    let most = (prefixes * 2 * 64).div_ceil(1024);
    let plural = if prefixes == 1 { "" } else { "es" };
    format!(", {prefixes} listed prefix{plural} in at most {most} KiB")
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
