//! `weir top`
//!
//! Pure: [`rates`] and [`talkers`] make a [`model`] of what the daemon tells, [`state`] is what keys make of the view, [`draw`]
//! is the picture of both. [`watch`] and [`once`] ask the daemon, [`terminal`] owns the terminal.

mod ask;
mod draw;
mod look;
mod model;
mod once;
mod rates;
mod samples;
mod sketch;
mod state;
mod talkers;
mod terminal;
#[cfg(test)]
mod testing;
mod text;
mod watch;

use std::{num::ParseFloatError, path::PathBuf, time::Duration};

use super::{Outcome, change::converse, status::Form};
use crate::config::DEFAULT_API_SOCKET;

const EXAMPLES: &str = "\
Examples:
  weir top                                 ? tells the keys, q quits
  weir top --vip web --interval 0.5        one VIP and its backends, twice a second
  weir top --once                          a table, of what happened in one interval
  weir top --once --interval 10 -o json | jq '.vips[] | {name, packets_per_second, limit_used}'
  weir top --once --sources -o json | jq '.sampled_sources.top[:5]'

Rates are those between two samples an interval apart; what is not known yet is `-`, in json null. docs/top.md tells
the fields of json.

Exit codes: 0 done; 1 failed, the daemon is away (--once), or there is no such VIP; 2 usage";

/// Show rates as they are: VIPs and backends, shares, health, drops, limits, sources
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_API_SOCKET)]
    socket: PathBuf,
    /// Time between two samples: 0.2 to 300
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Begin with the backends of this VIP; with --once, only this VIP
    #[arg(long, value_name = "NAME")]
    vip: Option<String>,
    /// Show the top sources, too, which samples packets while it does
    #[arg(long)]
    sources: bool,
    /// Take two samples, tell what happened between them, and end
    #[arg(long)]
    once: bool,
    /// Form of the output of --once; field names of json are stable
    #[arg(short, long, value_enum, requires = "once")]
    output: Option<Form>,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|error: ParseFloatError| error.to_string())?;
    if (0.2..=300.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("from 0.2 to 300 seconds".to_owned())
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    if args.once {
        converse(once::run(args))?
    } else {
        converse(watch::run(args))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_seconds_within_reason() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "0.1", "301", "-1", "NaN", "1s", ""] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
