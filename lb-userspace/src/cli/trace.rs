//! `weir trace`

use std::{
    fs,
    io::{self, BufWriter, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::{Outcome, output};
use crate::{
    api::{
        Status,
        client::{Client, ClientError},
    },
    config::{Config, DEFAULT_API_SOCKET, DEFAULT_PIN_PATH, Errors, Protocol},
    dataplane::bpf::linked_interfaces,
    trace::{
        Input,
        capture::{Capture, Output},
        explain::explain,
        frame::{Flag, HexBytes, Tuple},
        tracer::{Tracer, Unresolved},
    },
};

const EXAMPLES: &str = "\
Examples:
  weir trace --from 198.51.100.7:40000 --to 203.0.113.10:443
  weir trace --from [2001:db8::7]:40000 --to [2001:db8::10]:53 --protocol udp --size 1200
  weir trace --config weir.toml --from 198.51.100.7:40000 --to 203.0.113.10:443 --flags ack
  weir trace --config weir.toml --pcap in.pcap --pcap-out out.pcap -o json
  weir trace --packet-hex \"$(xxd -p frame.bin | tr -d '\\n')\"

Without --config the maps of the running daemon are read; nothing is sent, and no counter and no flow of it
changes. With --config a private copy of program and maps is made, attached to nothing: backends need a `mac`,
and fragments keep their state from packet to packet. Needs root.

Exit codes: 0 traced, whatever became of the packets; 1 failed; 2 usage";

/// Show what becomes of a packet, and why, without sending it
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
#[command(group(clap::ArgGroup::new("input").required(true).args(["pcap", "packet_hex", "from"])))]
pub(super) struct Args {
    /// Trace against this configuration instead of the running daemon
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["pin_path", "socket"])]
    config: Option<PathBuf>,
    /// Directory of the daemon's pins [default: /sys/fs/bpf/weir]
    #[arg(long, value_name = "DIR")]
    pin_path: Option<PathBuf>,
    /// Socket of the daemon, which knows the names [default: /run/weir/weir.sock, if --pin-path is not given]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Interface by which the packets come [default: the first that the daemon is attached to]
    #[arg(short, long, value_name = "NAME", conflicts_with = "config")]
    interface: Option<String>,
    /// Trace the packets of a pcap or pcapng file of Ethernet frames
    #[arg(long, value_name = "IN")]
    pcap: Option<PathBuf>,
    /// Trace a frame in hexadecimal, from its Ethernet header on; may be given more than once
    #[arg(long, value_name = "HEX")]
    packet_hex: Vec<HexBytes>,
    /// Trace a packet from this client
    #[arg(long, value_name = "ADDRESS:PORT", requires = "to")]
    from: Option<SocketAddr>,
    /// … to this address
    #[arg(long, value_name = "ADDRESS:PORT", requires = "from")]
    to: Option<SocketAddr>,
    /// … by this protocol
    #[arg(long, value_enum, default_value_t, requires = "from")]
    protocol: Transport,
    /// … with these TCP flags [default: syn]
    #[arg(long, value_enum, value_delimiter = ',', requires = "from")]
    flags: Vec<Flag>,
    /// … as a frame of this many bytes in all [default: no payload]
    #[arg(long, value_name = "BYTES", requires = "from")]
    size: Option<u16>,
    /// Write the packets that left (tx, redirect) to a pcap file, with the timestamps of the input
    #[arg(long, value_name = "OUT")]
    pcap_out: Option<PathBuf>,
    /// Form of the output; field names of json are stable
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// Protocol of a packet by its 5-tuple.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
enum Transport {
    /// A TCP segment
    #[default]
    Tcp,
    /// A UDP datagram
    Udp,
}

/// Form of a trace.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
enum Form {
    /// Every step in words
    #[default]
    Table,
    /// One object a line
    Json,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    // What is wrong with the input is said before anything is loaded.
    let (inputs, has_nanoseconds) = inputs(args)?;
    let tracer = match &args.config {
        Some(file) => match load(file) {
            Ok(config) => Tracer::private(&config)?,
            Err(errors) => {
                output::message(&errors);
                return Ok(Outcome::Refused);
            }
        },
        None => live(args)?,
    };
    hint(tracer.unresolved());
    let pcap = match &args.pcap_out {
        Some(path) => Some(Output::create(path, has_nanoseconds)?),
        None => None,
    };
    trace(tracer, inputs, pcap, args.output)?;
    Ok(Outcome::Done)
}

fn trace(
    mut tracer: Tracer,
    inputs: Inputs,
    mut pcap: Option<Output>,
    form: Form,
) -> anyhow::Result<()> {
    let mut stdout = BufWriter::new(io::stdout().lock());
    let mut is_cut = false;
    for (index, input) in inputs.enumerate() {
        let input = input?;
        if input.wire_len > input.frame.len() && !is_cut {
            is_cut = true;
            output::message(format_args!(
                "hint: packet {index} was cut short by the capture ({} of {} bytes), maybe others too: \
                 weir sees a truncated packet; capture whole ones (`tcpdump -s 0`)",
                input.frame.len(),
                input.wire_len
            ));
        }
        let result = tracer.trace(index, &input.frame)?;
        if let (Some(pcap), Some(packet), true) =
            (&mut pcap, &result.packet, result.verdict.has_left())
        {
            pcap.write(input.time, packet)?;
        }
        match form {
            Form::Json => writeln!(stdout, "{}", serde_json::to_string(&result)?)?,
            Form::Table => write!(stdout, "{}", explain(&input.frame, &result))?,
        }
    }
    stdout.flush()?;
    pcap.map_or(Ok(()), Output::finish)
}

type Inputs = Box<dyn Iterator<Item = anyhow::Result<Input>>>;

/// The packets, and whether their timestamps are finer than microseconds.
fn inputs(args: &Args) -> anyhow::Result<(Inputs, bool)> {
    if let Some(path) = &args.pcap {
        let capture = Capture::open(path)?;
        let has_nanoseconds = capture.has_nanoseconds();
        return Ok((Box::new(capture), has_nanoseconds));
    }
    let frames = match (args.from, args.to) {
        (Some(from), Some(to)) => {
            let tuple = Tuple {
                from,
                to,
                protocol: match args.protocol {
                    Transport::Tcp => Protocol::Tcp,
                    Transport::Udp => Protocol::Udp,
                },
                flags: args.flags.clone(),
                size: args.size,
            };
            vec![tuple.frame()?]
        }
        _ => args
            .packet_hex
            .iter()
            .map(|bytes| bytes.0.clone())
            .collect(),
    };
    Ok((
        Box::new(frames.into_iter().map(|frame| Ok(Input::made(frame)))),
        false,
    ))
}

/// A configuration, of which this host needs to have no interface.
fn load(file: &Path) -> Result<Config, Errors> {
    let text = fs::read_to_string(file).map_err(|source| Errors::Read {
        path: file.to_owned(),
        source,
    })?;
    Config::parse(&text, &file.display().to_string())
}

/// The running daemon's maps, with the names that it knows.
fn live(args: &Args) -> anyhow::Result<Tracer> {
    let socket = match (&args.socket, &args.pin_path) {
        (Some(socket), _) => Some(socket.as_path()),
        (None, None) => Some(Path::new(DEFAULT_API_SOCKET)),
        // Pins named alone need not be those of the daemon on the usual socket.
        (None, Some(_)) => None,
    };
    let status = match socket {
        Some(socket) => ask(&Client::new(socket))?,
        None => None,
    };
    if status.is_none() {
        output::message(
            "hint: VIPs are shown by number: the daemon that knows their names was not asked, or is away (`--socket`)",
        );
    }
    let pin_path = args
        .pin_path
        .as_deref()
        .unwrap_or(Path::new(DEFAULT_PIN_PATH));
    let interface = match &args.interface {
        Some(name) => name.clone(),
        None => first_interface(pin_path, status.as_ref())?,
    };
    Tracer::live(pin_path, status.as_ref(), &interface)
}

/// The first interface of the daemon, by its configuration or by what it left pinned.
fn first_interface(pin_path: &Path, status: Option<&Status>) -> anyhow::Result<String> {
    if let Some(interface) = status.and_then(|status| status.interfaces.first()) {
        return Ok(interface.name.clone());
    }
    let linked = linked_interfaces(pin_path)?;
    linked.into_iter().next().with_context(|| {
        format!(
            "weir is attached to no interface by {}: say by which one the packets come (`--interface`)",
            pin_path.display()
        )
    })
}

/// What the daemon says of itself, or `None` where there is none.
fn ask(client: &Client) -> anyhow::Result<Option<Status>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match runtime.block_on(client.status()) {
        Ok(status) => Ok(Some(status)),
        Err(ClientError::Away { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Says once which backends no packet can reach.
fn hint(unresolved: &[Unresolved]) {
    let Some(first) = unresolved.first() else {
        return;
    };
    let others = match unresolved.len() {
        1 => String::new(),
        count => format!(" and {} more", count.saturating_sub(1)),
    };
    output::message(format_args!(
        "hint: no MAC address is known for backend {} of VIP {}{others}: their packets end as no_next_hop\n  \
         help: write `mac = \"02:00:00:00:00:0b\"` under [[vip.backend]]: a trace with --config asks no network",
        first.backend, first.vip
    ));
}
