//! `weir decap attach`

use std::{net::IpAddr, path::PathBuf};

use anyhow::ensure;

use super::{DEFAULT_PIN_PATH, Outcome, wait};
use crate::{
    config::XdpMode,
    dataplane::bpf::decap::{self, DecapSettings, IpPrefix},
    interfaces,
    logging::{self, Format},
};

const EXAMPLES: &str = "\
Examples:
  weir decap attach --interface eth0 --from 10.0.0.0/24 --from 2001:db8::/64
  weir decap attach --interface eth0 --from 10.0.0.1 --from 10.0.0.2 --vip 203.0.113.10
  weir decap attach --interface eth0 --from 10.0.0.1 --gue-port 6080 --gue-port 16080

--from names what the load balancers have as encap_source: packets from elsewhere to this host's addresses are
dropped, if they are IP in IP or GUE. Attaching again replaces all settings at once and loses no packet: do so when
addresses of the interface or of the fleet change. Counters go on.";

/// Attach the program to an interface, or give it new settings
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Interface by which the fleet's packets come
    #[arg(short, long, value_name = "NAME")]
    interface: String,
    /// Address or prefix that the fleet sends from; repeat it for more
    #[arg(long, value_name = "PREFIX", required = true)]
    from: Vec<IpPrefix>,
    /// UDP port that GUE comes to; repeat it for up to four
    #[arg(long, value_name = "PORT", default_value = "6080", value_parser = clap::value_parser!(u16).range(1..))]
    gue_port: Vec<u16>,
    /// Address of this host that tunnels end at [default: the interface's own addresses]
    #[arg(long, value_name = "ADDRESS")]
    local: Vec<IpAddr>,
    /// Drop inner packets for other addresses than this; repeat it for more [default: any]
    #[arg(long, value_name = "ADDRESS")]
    vip: Vec<IpAddr>,
    /// Where the program runs
    #[arg(long, value_enum, default_value_t)]
    xdp_mode: Mode,
    /// Directory of the pins, on a bpffs
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PIN_PATH)]
    pin_path: PathBuf,
}

/// Where the program runs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
enum Mode {
    /// Native where the driver can, else generic
    #[default]
    Auto,
    /// In the driver
    Native,
    /// In the kernel's generic path: any interface, slower
    Generic,
}

impl From<Mode> for XdpMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Auto => Self::Auto,
            Mode::Native => Self::Native,
            Mode::Generic => Self::Generic,
        }
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    logging::init(Format::default())?;
    let own = wait(interfaces::addresses(&args.interface))?;
    let local = if args.local.is_empty() {
        ensure!(
            !own.is_empty(),
            "{} has no address: give the one that tunnels end at with --local",
            args.interface
        );
        own
    } else {
        args.local.clone()
    };
    let settings = DecapSettings {
        from: args.from.clone(),
        local,
        gue_ports: args.gue_port.clone(),
        vips: args.vip.clone(),
    };
    decap::attach(
        &args.pin_path,
        &args.interface,
        args.xdp_mode.into(),
        &settings,
    )?;
    Ok(Outcome::Done)
}
