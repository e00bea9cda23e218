//! `weir decap status`

use std::{fmt::Write as _, path::PathBuf};

use comfy_table::Cell;
use serde::Serialize;

use super::{DEFAULT_PIN_PATH, Outcome, wait};
use crate::{
    api::AttachMode,
    cli::{output, status::Form, table},
    dataplane::bpf::decap::{self, Attached, DecapSettings},
    interfaces,
};

const EXAMPLES: &str = "\
Examples:
  weir decap status
  weir decap status -o json | jq '.interfaces[].reasons[] | select(.verdict == \"drop\")'

Exit codes: 0 attached, 1 failed, 2 usage, 3 degraded: nothing is attached, or no longer where it was";

/// Show where the program is attached, its settings and counters
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Form of the output; field names of json are stable
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
    /// Directory of the pins
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PIN_PATH)]
    pin_path: PathBuf,
}

/// What `-o json` prints. Field names are stable: scripts read them.
#[derive(Debug, Serialize)]
struct Status {
    interfaces: Vec<Interface>,
}

#[derive(Debug, Serialize)]
struct Interface {
    name: String,
    /// How the program is attached; null where it is not any more.
    mode: Option<AttachMode>,
    #[serde(flatten)]
    settings: DecapSettings,
    reasons: Vec<Count>,
}

#[derive(Debug, Serialize)]
struct Count {
    reason: &'static str,
    verdict: &'static str,
    packets: u64,
    bytes: u64,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let attached = decap::attached(&args.pin_path)?;
    let status = Status {
        interfaces: attached.into_iter().map(interface).collect(),
    };
    match args.output {
        Form::Table => output::data(render(&status))?,
        Form::Json => output::data(format_args!("{}\n", serde_json::to_string_pretty(&status)?))?,
    }
    let is_well = !status.interfaces.is_empty()
        && status
            .interfaces
            .iter()
            .all(|interface| interface.mode.is_some());
    Ok(if is_well {
        Outcome::Done
    } else {
        Outcome::Degraded
    })
}

fn interface(attached: Attached) -> Interface {
    let mode = match wait(interfaces::attached(&attached.interface)) {
        Ok((_, mode)) => Some(mode),
        Err(error) => {
            output::message(format_args!(
                "{error:#}\n  help: attach it again with `weir decap attach`"
            ));
            None
        }
    };
    let reasons = attached.counts.iter().map(|count| Count {
        reason: count.reason.as_str(),
        verdict: count.reason.verdict().as_str(),
        packets: count.counter.packets,
        bytes: count.counter.bytes,
    });
    Interface {
        name: attached.interface,
        mode,
        settings: attached.settings,
        reasons: reasons.collect(),
    }
}

fn render(status: &Status) -> String {
    if status.interfaces.is_empty() {
        return "decap is attached nowhere\n".to_owned();
    }
    let blocks: Vec<_> = status.interfaces.iter().map(block).collect();
    blocks.join("\n")
}

fn block(interface: &Interface) -> String {
    let mut text = String::new();
    let mode = interface.mode.map_or("not attached", AttachMode::as_str);
    let settings = &interface.settings;
    // Writing to a string cannot fail.
    writeln!(text, "interface {} ({mode})", interface.name).ok();
    for (what, values) in [
        ("from", join(&settings.from)),
        ("local", join(&settings.local)),
        ("GUE ports", join(&settings.gue_ports)),
        ("VIPs", join(&settings.vips)),
    ] {
        let values = if values.is_empty() { "any" } else { &values };
        writeln!(text, "  {what}: {values}").ok();
    }
    let mut rows = table::table(&["REASON", "VERDICT", "PACKETS", "BYTES"], 2);
    let counted = interface.reasons.iter().filter(|reason| reason.packets > 0);
    for reason in counted {
        rows.add_row([
            Cell::new(reason.reason),
            Cell::new(reason.verdict),
            table::number(table::count(reason.packets)),
            table::number(table::bytes(reason.bytes)),
        ]);
    }
    if rows.row_count() > 0 {
        writeln!(text, "{}", rows.trim_fmt()).ok();
    }
    text
}

fn join(values: &[impl ToString]) -> String {
    let values: Vec<_> = values.iter().map(ToString::to_string).collect();
    values.join(", ")
}
