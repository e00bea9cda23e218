//! `weir run`

use std::path::PathBuf;

use super::{Outcome, output};
use crate::{
    config::Config,
    daemon::{self, Start},
    dataplane::bpf::ProgramLog,
    logging::{self, Format},
};

const EXAMPLES: &str = "\
Examples:
  weir run --config /etc/weir/weir.toml
  weir run --config weir.toml --log-format json
  weir run --config weir.toml --fresh    forget everything that an earlier daemon left
  RUST_LOG=debug weir run --config weir.toml

SIGTERM and Ctrl-C end the daemon; the program goes on forwarding unless `on_exit = \"detach\"`.
`weir detach` takes it off.

--fresh takes the program of an earlier daemon off, removes every pin (tables, ids, flows, health, counters) and
forgets what drain and weight commanded; then it starts as on a new machine. Until the new program is attached,
nothing forwards, and connections whose slot was not Stable may break.";

/// Run the daemon: attach the program and keep its maps
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Configuration file
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "/etc/weir/weir.toml"
    )]
    config: PathBuf,
    /// Remove what an earlier daemon left (program, pins, commands) before the start: interrupts forwarding
    #[arg(long)]
    fresh: bool,
    /// How log lines look; `RUST_LOG` says which there are (default: info)
    #[arg(long, value_enum, default_value_t)]
    log_format: Format,
    /// Messages of the BPF program: `debug` has one for every packet dropped, which costs them time
    #[arg(long, value_enum, default_value_t)]
    program_log: ProgramLog,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    logging::init(args.log_format)?;
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(errors) => {
            match args.log_format {
                Format::Text => output::message(&errors),
                Format::Json => {
                    let config = args.config.display();
                    tracing::error!(%config, error = errors.to_string(), "configuration refused");
                }
            }
            return Ok(Outcome::Refused);
        }
    };
    let runtime = tokio::runtime::Runtime::new()?;
    // SIGHUP reads it again, and `weir apply` from wherever that is started.
    let path = std::path::absolute(&args.config)?;
    let start = Start {
        is_fresh: args.fresh,
        program_log: args.program_log,
    };
    match runtime.block_on(daemon::run(config, &path, start)) {
        Ok(()) => Ok(Outcome::Done),
        // Whoever reads the log as JSON finds the end in it, too.
        Err(error) if args.log_format == Format::Json => {
            tracing::error!(error = format!("{error:#}"), "the daemon has failed");
            Ok(Outcome::Refused)
        }
        Err(error) => Err(error),
    }
}
