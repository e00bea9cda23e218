//! `weir plan`

use std::{fmt::Write as _, fs, path, path::PathBuf};

use anyhow::Context as _;

use super::{Outcome, change::converse, output, status::Form};
use crate::{
    api::{
        NewConfig, Plan,
        client::{Client, ClientError},
    },
    config::{self, DEFAULT_API_SOCKET, Scope},
    model::preview::{Difference, Kind},
};

const EXAMPLES: &str = "\
Examples:
  weir plan new.toml
  weir plan new.toml -o json | jq '.vips[] | select(.moved_percent > 5) | .name'
  weir apply new.toml --max-move 5%    refuse to move more than that of any VIP

Slots are a VIP's 65,536 shares of flows. Those that move lead new flows to another backend.

Exit codes: 0 it would be taken; 1 it is not valid or would be refused (said on standard error); 2 usage";

/// Show what `weir apply` of a file would change
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Configuration file
    file: PathBuf,
    /// Socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_API_SOCKET)]
    socket: PathBuf,
    /// Form of the output; field names of json are stable
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let file = path::absolute(&args.file).with_context(|| args.file.display().to_string())?;
    if let Err(errors) = config::check(&file, Scope::Offline) {
        output::message(&errors);
        return Ok(Outcome::Refused);
    }
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let config = NewConfig {
        file,
        text,
        force: false,
        max_move_percent: None,
    };
    let plan = match converse(Client::new(&args.socket).plan(&config))? {
        Ok(plan) => plan,
        Err(ClientError::Refused {
            message, findings, ..
        }) if !findings.is_empty() => {
            output::message(message);
            return Ok(Outcome::Refused);
        }
        Err(error) => return Err(error.into()),
    };
    match args.output {
        Form::Json => output::data(format_args!("{}\n", serde_json::to_string_pretty(&plan)?))?,
        Form::Table => output::data(table(&plan))?,
    }
    for finding in &plan.refused {
        output::message(finding);
    }
    if plan.needs_force {
        output::message(
            "the seed is another one, and every flow moves: `weir apply` takes it only with --force",
        );
    }
    Ok(if plan.refused.is_empty() {
        Outcome::Done
    } else {
        Outcome::Refused
    })
}

/// A line for each thing that changes. Writing to a string cannot fail.
fn table(plan: &Plan) -> String {
    let mut text = String::new();
    for difference in &plan.preview.node {
        writeln!(text, "~ node: {}", one(difference)).ok();
    }
    for vip in &plan.preview.vips {
        let moved = match vip.change {
            Kind::Added => String::new(),
            Kind::Removed => ": all of its flows end".to_owned(),
            Kind::Changed => format!(
                ": {} of 65536 slots move ({:.1}%)",
                vip.moved_slots, vip.moved_percent
            ),
        };
        writeln!(text, "{} VIP {}{moved}", sign(vip.change), vip.name).ok();
        for difference in &vip.differences {
            writeln!(text, "    ~ {}", one(difference)).ok();
        }
        for backend in &vip.backends {
            let differences: Vec<_> = backend.differences.iter().map(one).collect();
            let colon = if differences.is_empty() { "" } else { ": " };
            writeln!(
                text,
                "    {} backend {}{colon}{}",
                sign(backend.change),
                backend.address,
                differences.join(", ")
            )
            .ok();
        }
    }
    if text.is_empty() {
        text.push_str("nothing would change\n");
    }
    for command in &plan.overrides {
        writeln!(
            text,
            "by command, whatever the file says: {}",
            super::text::command(command)
        )
        .ok();
    }
    text
}

const fn sign(change: Kind) -> char {
    match change {
        Kind::Added => '+',
        Kind::Removed => '-',
        Kind::Changed => '~',
    }
}

fn one(difference: &Difference) -> String {
    let shown = |value: &str| {
        if value.is_empty() {
            "nothing".to_owned()
        } else {
            value.to_owned()
        }
    };
    let Difference { key, from, to } = difference;
    format!("{key} {} -> {}", shown(from), shown(to))
}
