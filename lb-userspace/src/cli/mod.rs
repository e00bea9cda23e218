//! The command line: one file per verb. Data goes to standard output, messages to standard error.
//!
//! Exit codes: 0 done, 1 failed, 2 usage, 3 degraded (`status`: the daemon is away, or a VIP has no backend
//! that packets can reach; `fleet`: some node differs or is unreachable; `decap status`: nothing is attached; `doctor`:
//! something is to be mended; `import`: not all lines were carried over).

mod announce;
mod apply;
mod backend;
mod block;
mod capture;
mod change;
mod check;
mod completions;
mod decap;
mod detach;
mod doctor;
mod drain;
mod drain_node;
mod events;
mod fleet;
mod flows;
mod import;
mod left;
mod limits;
mod man;
mod output;
mod packets;
mod plan;
mod run;
mod status;
mod table;
mod text;
mod top;
mod trace;
mod vip;
mod watchdog;
mod weight;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

/// How a verb ended, if it did not fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    /// Done.
    Done,
    /// The file or the state is not what it should be, and that has been said.
    Refused,
    /// It works, but not all of it.
    Degraded,
}

const EXAMPLES: &str = "\
Examples:
  weir check /etc/weir/weir.toml         is the configuration valid on this host?
  weir run --config /etc/weir/weir.toml  run the daemon
  weir plan new.toml                     what would change with this file
  weir apply                             take the configuration's changes into the running daemon
  weir status                            what it does
  weir top                               how much of it, now: VIPs, backends, drops, sources
  weir fleet                             do the nodes of the fleet agree, and where not?
  weir drain web 10.0.0.11               no new flows for this backend of VIP web
  weir drain-node --wait                 no traffic for this node: withdraw its VIPs, wait until none comes
  weir block 192.0.2.0/24 --for 10m      drop what these addresses send
  weir announce off web                  the network does not find VIP web at this node any more
  weir trace --from 198.51.100.7:40000 --to 203.0.113.10:443
                                         what becomes of this packet, and why
  weir capture --vip web -w web.pcapng   packets as they come and leave, for Wireshark
  weir doctor                            what will not work, why, and the command that mends it
  weir decap attach --interface eth0 --from 10.0.0.1    on a backend: take tunnelled packets
  weir detach                            take the program off and remove every pin
  weir import keepalived keepalived.conf > weir.toml    from another balancer

Exit codes: 0 done, 1 failed, 2 usage, 3 degraded (status, fleet, doctor, import)";

/// What `--version` prints; `-V` has the first word of it.
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit:   ",
    env!("WEIR_COMMIT"),
    "\nprofile:  ",
    env!("WEIR_PROFILE"),
    "\ntarget:   ",
    env!("WEIR_TARGET"),
    "\ncompiler: ",
    env!("WEIR_RUSTC"),
    "\nfeatures: ",
    env!("WEIR_FEATURES"),
);

/// An XDP layer-4 load balancer with direct server return
#[derive(Debug, Parser)]
#[command(name = "weir", version, long_version = VERSION, after_long_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Args),
    Check(check::Args),
    Plan(plan::Args),
    Apply(apply::Args),
    Status(status::Args),
    Top(top::Args),
    Events(events::Args),
    Capture(capture::Args),
    Flows(flows::Args),
    Limits(limits::Args),
    Fleet(fleet::Args),
    Vip(vip::Args),
    Backend(backend::Args),
    Drain(drain::Args),
    Undrain(drain::UndrainArgs),
    DrainNode(drain_node::Args),
    UndrainNode(drain_node::UndrainArgs),
    Weight(weight::Args),
    Announce(announce::Args),
    Block(block::Args),
    Unblock(block::UnblockArgs),
    Trace(trace::Args),
    Doctor(doctor::Args),
    Decap(decap::Args),
    Detach(detach::Args),
    Watchdog(watchdog::Args),
    Import(import::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Run(args) => run::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Plan(args) => plan::run(&args),
        Verb::Apply(args) => apply::run(&args),
        Verb::Status(args) => status::run(&args),
        Verb::Top(args) => top::run(&args),
        Verb::Events(args) => events::run(&args),
        Verb::Capture(args) => capture::run(&args),
        Verb::Flows(args) => flows::run(&args),
        Verb::Limits(args) => limits::run(&args),
        Verb::Fleet(args) => fleet::run(&args),
        Verb::Vip(args) => vip::run(&args),
        Verb::Backend(args) => backend::run(&args),
        Verb::Drain(args) => drain::drain(&args),
        Verb::Undrain(args) => drain::undrain(&args),
        Verb::DrainNode(args) => drain_node::drain(&args),
        Verb::UndrainNode(args) => drain_node::undrain(&args),
        Verb::Weight(args) => weight::run(&args),
        Verb::Announce(args) => announce::run(&args),
        Verb::Block(args) => block::block(&args),
        Verb::Unblock(args) => block::unblock(&args),
        Verb::Trace(args) => trace::run(&args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Decap(args) => decap::run(&args),
        Verb::Detach(args) => detach::run(&args),
        Verb::Watchdog(args) => watchdog::run(&args),
        Verb::Import(args) => import::run(&args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args),
    };
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Refused) => ExitCode::FAILURE,
        Ok(Outcome::Degraded) => ExitCode::from(3),
        // The reader has seen enough: `weir status | head`.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::message(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The command line as clap knows it, for completions and manual pages.
fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_help_has_examples() {
        let mut command = command();
        assert!(
            command
                .render_long_help()
                .to_string()
                .contains("Examples:\n  weir ")
        );
        let verbs = command.get_subcommands_mut();
        for verb in verbs.filter(|verb| verb.get_name() != "help") {
            let help = verb.render_long_help().to_string();
            assert!(help.contains("Examples:\n  weir "), "{help}");
        }
    }
}
