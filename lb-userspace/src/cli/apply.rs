//! `weir apply`

use std::{
    fs,
    path::{self, PathBuf},
};

use anyhow::Context as _;

use super::{
    Outcome,
    change::{Options, converse},
    output,
};
use crate::{
    api::NewConfig,
    config::{self, Scope},
};

const EXAMPLES: &str = "\
Examples:
  weir apply                     read again the file that the daemon was started with, as SIGHUP does
  weir apply new.toml            take another file, until the next restart, SIGHUP or `weir apply`
  weir apply --max-move 5%       only if no VIP moves more than that of its slots
  weir apply --generation 7      only if nothing has changed since generation 7

A configuration is taken as a whole, or refused as a whole and nothing changes.

Exit codes: 0 done; 1 not valid or refused (each finding on standard error); 2 usage";

/// Take a configuration into the running daemon
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Configuration file [default: the one that the daemon was started with]
    file: Option<PathBuf>,
    /// Take a new seed too, with which every flow moves to another backend
    #[arg(long)]
    force: bool,
    /// Refuse if more than this share of any VIP's slots would move (`weir plan` shows it)
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    max_move: Option<f64>,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let client = args.options.client();
    // Before the file is read: who changes something meanwhile is not overruled.
    let base = converse(args.options.base(&client))??;
    let file = match &args.file {
        Some(file) => path::absolute(file).with_context(|| file.display().to_string())?,
        None => converse(client.status())??.config.file,
    };
    // What the file alone tells is told here; the daemon holds it against its host.
    if let Err(errors) = config::check(&file, Scope::Offline) {
        output::message(&errors);
        return Ok(Outcome::Refused);
    }
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let done = format!("{} is in force", file.display());
    let config = NewConfig {
        file,
        text,
        force: args.force,
        max_move_percent: args.max_move,
    };
    let changed = converse(client.apply(base, &config))?;
    args.options.tell(changed, &done)
}

/// A share as people write it: `5%`, `0.5%` or `5`.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let value = number.parse().ok();
    let value = value.filter(|value| (0.0..=100.0).contains(value));
    value.ok_or_else(|| "wanted a share from 0% to 100%, as in `5%`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percent() {
        assert_eq!(percent("5%"), Ok(5.0));
        assert_eq!(percent("0.5"), Ok(0.5));
        for text in ["", "%", "-1", "101%", "NaN", "five"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }
}
