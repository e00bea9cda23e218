//! `weir capture`

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use pcap_file::{
    PcapError,
    pcapng::{
        Block, PcapNgParser, blocks::enhanced_packet::EnhancedPacketOption,
        blocks::interface_statistics::InterfaceStatisticsOption,
    },
};
use tokio::signal::unix::{SignalKind, signal};

use super::{Outcome, change::converse, output};
use crate::{
    api::{
        CaptureFilter, Side,
        client::{Client, Pieces},
    },
    config::{DEFAULT_API_SOCKET, Prefix},
    observe::{DEFAULT_RATE, DEFAULT_SECONDS, DEFAULT_SNAPLEN, MAX_RATE, MAX_SECONDS, MAX_SNAPLEN},
};

const EXAMPLES: &str = "\
Examples:
  weir capture --vip web -c 100 -w web.pcapng
  weir capture --vip web --reason denied,limited --seconds 600 -w refused.pcapng
  weir capture --reason drop -w - | tshark -r - -T fields -e frame.comment
  weir capture --from 198.51.100.7 -s 2048 -c 20 -w client.pcapng

In Wireshark and tshark each packet has what was decided as its comment:
  weir: came; vip=web backend=10.0.0.11 slot=4711 reason=forwarded verdict=tx
While a capture runs packets cost more (docs/capture.md); none is held up or lost, and
what is beyond the rate is skipped and counted.

Exit codes: 0 done, by count, time or Ctrl-C; 1 failed, or there is no such VIP; 2 usage";

/// Capture packets as they come and as they leave, with what was decided
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Only packets to this VIP
    #[arg(long, value_name = "NAME")]
    vip: Option<String>,
    /// Only packets with these reasons, by commas; `drop` and `pass` stand for all of that verdict
    #[arg(long, value_name = "REASONS")]
    reason: Option<String>,
    /// Only packets from this address or prefix
    #[arg(long, value_name = "PREFIX")]
    from: Option<Prefix>,
    /// Only packets to this address or prefix
    #[arg(long, value_name = "PREFIX")]
    to: Option<Prefix>,
    /// Where the pcapng file goes; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
    /// End after so many packets
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so many seconds
    #[arg(long, value_name = "N", default_value_t = DEFAULT_SECONDS,
        value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
    seconds: u64,
    /// Packets in a second at most
    #[arg(long, value_name = "N", default_value_t = DEFAULT_RATE,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_RATE)))]
    rate: u32,
    /// Bytes of each packet
    #[arg(short, long, value_name = "BYTES", default_value_t = DEFAULT_SNAPLEN,
        value_parser = clap::value_parser!(u32).range(14..=i64::from(MAX_SNAPLEN)))]
    snaplen: u32,
    /// Packets as they came, as they left, or both
    #[arg(long = "as", value_enum, default_value_t)]
    side: Side,
    /// Socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_API_SOCKET)]
    socket: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let filter = CaptureFilter {
        vip: args.vip.clone(),
        reason: args.reason.clone(),
        from: args.from,
        to: args.to,
        count: args.count,
        seconds: Some(args.seconds),
        rate: Some(args.rate),
        snaplen: Some(args.snaplen),
        side: Some(args.side),
    };
    if args.write == Path::new("-") && io::stdout().is_terminal() {
        bail!("a capture is no text for a terminal: name a file, or pipe it on");
    }
    converse(async {
        // The daemon is asked first: a refused capture leaves no file.
        let mut pieces = Client::new(&args.socket).capture(&filter).await?;
        let file: Box<dyn Write> = if args.write == Path::new("-") {
            Box::new(io::stdout())
        } else {
            let file = File::create(&args.write);
            Box::new(file.with_context(|| format!("making {}", args.write.display()))?)
        };
        let mut copy = Copy::new(file);
        let copied = copy.all(&mut pieces).await;
        copy.tell();
        copied.map(|()| Outcome::Done)
    })?
}

/// Copies whole blocks: whatever ends the copy, the file is valid.
struct Copy {
    file: Box<dyn Write>,
    /// What is not yet a whole block.
    rest: Vec<u8>,
    parser: Option<PcapNgParser>,
    progress: Progress,
    is_shown: bool,
}

/// How much is captured and skipped.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Progress {
    came: u64,
    left: u64,
    skipped: u64,
}

impl Progress {
    /// Packets; one that came and left is one.
    fn captured(self) -> u64 {
        self.came.max(self.left)
    }

    fn note(&mut self, block: &Block<'_>) {
        match block {
            Block::EnhancedPacket(packet) => {
                let is_outbound = packet.options.iter().any(
                    |option| matches!(option, EnhancedPacketOption::Flags(flags) if flags & 3 == 2),
                );
                let count = if is_outbound {
                    &mut self.left
                } else {
                    &mut self.came
                };
                *count += 1;
            }
            Block::InterfaceStatistics(statistics) => {
                for option in &statistics.options {
                    if let InterfaceStatisticsOption::IsbIfDrop(skipped) = option {
                        self.skipped = *skipped;
                    }
                }
            }
            _ => {}
        }
    }
}

impl Copy {
    fn new(file: Box<dyn Write>) -> Self {
        Self {
            file,
            rest: Vec::new(),
            parser: None,
            progress: Progress::default(),
            is_shown: io::stderr().is_terminal(),
        }
    }

    /// Copies until the daemon ends, or whoever waits for it.
    async fn all(&mut self, pieces: &mut Pieces) -> anyhow::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            tokio::select! {
                piece = pieces.next() => match piece? {
                    Some(piece) => self.take(&piece)?,
                    None => return Ok(()),
                },
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
            }
        }
    }

    fn take(&mut self, piece: &[u8]) -> anyhow::Result<()> {
        self.rest.extend_from_slice(piece);
        let mut whole = 0;
        loop {
            let rest = self.rest.get(whole..).unwrap_or_default();
            let parsed = match &mut self.parser {
                None => PcapNgParser::new(rest).map(|(left, parser)| {
                    self.parser = Some(parser);
                    left.len()
                }),
                Some(parser) => parser.next_block(rest).map(|(left, block)| {
                    self.progress.note(&block);
                    left.len()
                }),
            };
            match parsed {
                Ok(left) => whole = self.rest.len() - left,
                Err(PcapError::IncompleteBuffer) => break,
                Err(error) => return Err(error).context("reading the daemon's capture"),
            }
        }
        let blocks = self.rest.drain(..whole).collect::<Vec<_>>();
        self.file.write_all(&blocks)?;
        self.file.flush()?;
        if self.is_shown {
            let Progress { skipped, .. } = self.progress;
            let captured = self.progress.captured();
            write!(io::stderr(), "\r{captured} captured, {skipped} skipped ").ok();
        }
        Ok(())
    }

    /// Tells what there is in the file, and what is not.
    fn tell(&self) {
        let Progress { skipped, .. } = self.progress;
        let captured = self.progress.captured();
        if self.is_shown {
            output::message("");
        }
        output::message(format_args!(
            "{captured} packets captured, {skipped} skipped"
        ));
    }
}
