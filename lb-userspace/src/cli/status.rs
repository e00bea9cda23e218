//! `weir status`

use std::{
    collections::VecDeque,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::bail;
use tokio::time::{Instant, timeout_at};

use super::{Outcome, change::converse, events, left::LeftStatus, output, table, text};
use crate::{
    api::{
        Event, InterfaceState, InterfaceStatus, Status,
        client::{Client, ClientError},
    },
    config::{DEFAULT_API_SOCKET, DEFAULT_PIN_PATH},
};

const EXAMPLES: &str = "\
Examples:
  weir status
  weir status -o json | jq '.vips[].backends[] | select(.resolved | not)'
  weir status --watch                    again whenever something changes, and every 2 s
  weir status --socket /run/weir/weir.sock
  weir status --pin-path /sys/fs/bpf/weir    what a daemon has left, read from its pins

Without a daemon, what it left is read from its pins: interfaces, VIPs, backends, counters; names, weights and health
are not there. The pins are looked for at --pin-path, or at the usual place if the socket is the usual one.

Exit codes: 0 all is well, 1 failed, 2 usage, 3 degraded: the daemon is away (packets are still
forwarded), it is not ready, it is not on one of its interfaces, or a VIP has no backend that packets can reach";

/// Show what the daemon does: interfaces, VIPs, backends, counters
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_API_SOCKET)]
    socket: PathBuf,
    /// Directory of the pins, for when no daemon runs [default: /sys/fs/bpf/weir, with the usual socket]
    #[arg(long, value_name = "DIR")]
    pin_path: Option<PathBuf>,
    /// Form of the output; field names of json are stable
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
    /// Show it again whenever something changes, and every 2 seconds for the counters
    #[arg(short, long)]
    watch: bool,
}

/// How long a watched status stays without an event.
const REFRESH: Duration = Duration::from_secs(2);

/// Events that come within this after the first are shown together.
const TOGETHER: Duration = Duration::from_millis(50);

/// How many of the last events a watched status shows.
const SHOWN_EVENTS: usize = 8;

/// Form of a listing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Form {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    if args.watch {
        return converse(watch(args))?;
    }
    let status = match converse(Client::new(&args.socket).status())? {
        Ok(status) => status,
        Err(error @ ClientError::Away { .. }) => return without_daemon(args, &error.to_string()),
        Err(error) => return Err(error.into()),
    };
    output::listing(args.output, &status, || text::status(&status))?;
    Ok(if is_well(&status) {
        Outcome::Done
    } else {
        Outcome::Degraded
    })
}

/// Shows what the pins tell, if there are any.
fn without_daemon(args: &Args, away: &str) -> anyhow::Result<Outcome> {
    const HELP: &str =
        "start it with `weir run --config FILE`; what it left attached goes on forwarding";
    let is_usual = args.socket == Path::new(DEFAULT_API_SOCKET);
    let usual = is_usual.then(|| PathBuf::from(DEFAULT_PIN_PATH));
    let Some(pin_path) = args.pin_path.clone().or(usual) else {
        output::message(format_args!(
            "the daemon is away: {away}\n  help: {HELP}, and `--pin-path DIR` shows it"
        ));
        return Ok(Outcome::Degraded);
    };
    match converse(LeftStatus::read(&pin_path, away))? {
        Ok(left) => output::listing(args.output, &left, || left.text())?,
        Err(error) => output::message(format_args!(
            "the daemon is away: {away}; what it left cannot be shown: {error:#}\n  help: {HELP}"
        )),
    }
    Ok(Outcome::Degraded)
}

/// Shows the status until the reader or the daemon has gone.
async fn watch(args: &Args) -> anyhow::Result<Outcome> {
    /// Clears a terminal and goes to its top (ECMA-48).
    const CLEAR: &str = "\u{1b}[2J\u{1b}[H";
    let client = Client::new(&args.socket);
    let mut events = client.events().await?;
    let is_terminal = io::stdout().is_terminal();
    let mut last = VecDeque::with_capacity(SHOWN_EVENTS);
    loop {
        let status = client.status().await?;
        let clear = if is_terminal { CLEAR } else { "" };
        match args.output {
            Form::Table => {
                let text = text::status(&status);
                output::data(format_args!("{clear}{text}{}\n", told(&last)))?;
            }
            // A line each, as of events.
            Form::Json => output::data(format_args!("{}\n", serde_json::to_string(&status)?))?,
        }
        // What happens at once is shown at once: a change of 500 VIPs is no 500 pictures.
        let mut next = Instant::now() + REFRESH;
        while let Ok(event) = timeout_at(next, events.next()).await {
            let Some(event) = event? else {
                bail!("the daemon has ended");
            };
            if last.len() == SHOWN_EVENTS {
                last.pop_front();
            }
            last.push_back(event);
            next = next.min(Instant::now() + TOGETHER);
        }
    }
}

/// The last events, a line each.
fn told(events: &VecDeque<Event>) -> String {
    let lines = events.iter().map(|event| table::fit(&events::line(event)));
    lines.fold(String::new(), |text, line| format!("{text}\n{line}"))
}

/// Ready, on every interface, and every VIP has a backend that takes packets.
fn is_well(status: &Status) -> bool {
    let is_attached = |interface: &InterfaceStatus| interface.state == InterfaceState::Attached;
    status.ready
        && status.interfaces.iter().all(is_attached)
        && status.vips.iter().all(crate::api::VipStatus::is_served)
}
