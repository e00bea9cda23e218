//! `weir man`

use std::{fs, path::PathBuf};

use anyhow::Context as _;

use super::{Outcome, command, output};

const EXAMPLES: &str = "\
Examples:
  weir man | man -l -               read weir(1)
  weir man /usr/share/man/man1      write weir.1, weir-run.1, …";

/// Print the manual page, or write all pages to a directory
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Directory for one page per verb; made if need be
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let mut command = command();
    command.build();
    let Some(directory) = &args.directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        output::data(String::from_utf8(page)?)?;
        return Ok(Outcome::Done);
    };
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    clap_mangen::generate_to(command, directory)
        .with_context(|| format!("write manual pages to {}", directory.display()))?;
    Ok(Outcome::Done)
}
