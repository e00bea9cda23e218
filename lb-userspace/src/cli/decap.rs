//! `weir decap`: a file per verb.

mod attach;
mod detach;
mod status;

use clap::Subcommand;

use super::Outcome;

/// Where `weir decap` keeps its pins unless told otherwise.
pub(super) const DEFAULT_PIN_PATH: &str = "/sys/fs/bpf/weir-decap";

const EXAMPLES: &str = "\
Examples:
  weir decap attach --interface eth0 --from 10.0.0.0/24 --from 2001:db8::/64
  weir decap status
  weir decap detach

The program goes on without a daemon. After a reboot it must be attached again.";

/// On a backend: take the outer headers off what the fleet sends by ipip and gue
///
/// An XDP program hands the inner packet to the kernel as if it had come plainly, so that a backend needs no tunnel
/// device. Everything else passes untouched.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Attach(attach::Args),
    Status(status::Args),
    Detach(detach::Args),
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    match &args.verb {
        Verb::Attach(args) => attach::run(args),
        Verb::Status(args) => status::run(args),
        Verb::Detach(args) => detach::run(args),
    }
}

/// Runs a question to the kernel to its end.
fn wait<T>(question: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(question)
}
