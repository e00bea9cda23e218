//! `weir detach`

use std::path::PathBuf;

use anyhow::Context as _;

use super::{Outcome, output};
use crate::{
    announce::watchdog,
    api::{
        Detached,
        client::{Client, ClientError},
    },
    config::{self, Announcing, DEFAULT_API_SOCKET, DEFAULT_PIN_PATH, Paths},
    dataplane::bpf,
    dsr,
};

const EXAMPLES: &str = "\
Examples:
  weir detach
  weir detach --config /etc/weir/weir.toml
  weir detach --pin-path /sys/fs/bpf/weir    whose configuration is gone

A running daemon is asked to take the program off and to end; without one the pins are removed here. The routes of
VIPs are withdrawn first: those of the configuration's table, or of the usual one.
From then on nothing forwards packets for the VIPs.";

/// Take the program off every interface and remove every pin
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Configuration file that names `pin_path` and `api_socket`
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the pins [default: the configuration's, or /sys/fs/bpf/weir]
    #[arg(long, value_name = "DIR")]
    pin_path: Option<PathBuf>,
    /// Socket of the daemon [default: the configuration's, or /run/weir/weir.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let configured = match &args.config {
        Some(file) => match config::paths(file) {
            Ok(paths) => paths,
            Err(errors) => {
                output::message(&errors);
                return Ok(Outcome::Refused);
            }
        },
        None => Paths {
            pin_path: DEFAULT_PIN_PATH.into(),
            api_socket: DEFAULT_API_SOCKET.into(),
        },
    };
    // Pins named on the command line alone need not be those of the daemon on the usual socket.
    let is_pins_alone = args.pin_path.is_some() && args.config.is_none();
    let socket = match (&args.socket, is_pins_alone) {
        (Some(socket), _) => Some(socket),
        (None, false) => Some(&configured.api_socket),
        (None, true) => None,
    };
    // Without a configuration there is only the usual place of the usual daemon's routes.
    let announcing = match &args.config {
        Some(file) => Some(Announcing::of_file(file).unwrap_or_default()),
        None if is_pins_alone => None,
        None => Some(Announcing::default()),
    };
    let by_daemon = match socket {
        Some(socket) => ask(&Client::new(socket))?,
        None => None,
    };
    let pin_path = args.pin_path.as_ref().unwrap_or(&configured.pin_path);
    let detached = if let Some(detached) = by_daemon {
        detached
    } else {
        // Before the program goes: a route to a node that balances nothing leads into nothing.
        if let Some(announcing) = announcing {
            let routes = runtime()?.block_on(watchdog::withdraw(&announcing))?;
            if routes > 0 {
                output::message(format_args!("{routes} routes of VIPs withdrawn"));
            }
        }
        let detached = bpf::detach(pin_path)?;
        runtime()?.block_on(dsr::remove(pin_path))?;
        detached
    };
    output::message(sentence(&detached));
    Ok(Outcome::Done)
}

/// What a daemon has taken off, or `None` where there is no daemon.
fn ask(client: &Client) -> anyhow::Result<Option<Detached>> {
    match runtime()?.block_on(client.detach()) {
        Ok(detached) => Ok(Some(detached)),
        Err(ClientError::Away { .. }) => Ok(None),
        Err(error) => Err(error).context("ask the daemon (`--pin-path DIR` alone goes without it)"),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

fn sentence(detached: &Detached) -> String {
    if detached.interfaces.is_empty() && detached.pins == 0 {
        return "nothing was attached".to_owned();
    }
    let interfaces = match detached.interfaces.as_slice() {
        [] => "no interface".to_owned(),
        interfaces => interfaces.join(", "),
    };
    format!("detached from {interfaces}; {} pins removed", detached.pins)
}
