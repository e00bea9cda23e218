//! `weir-gen`: a load of packets from one core, made in the kernel on live frames.
//!
//! It writes another source (and, where asked, another destination) into every packet and keeps the checksums right. Sources
//! differ in the low 16 bits of their address and in their port.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the counters are the output")]

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, ValueEnum};
use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};
use lb_userspace::dataplane::bpf::driver::{Flows, Generator, Sample};

/// Sends packets out of an interface as fast as one core makes them.
///
/// Made for test networks: it asks nobody before it floods.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
    weir-gen --interface eth1 --to 203.0.113.10:443 --mac 02:00:00:00:00:01 --seconds 10\n  \
    weir-gen --interface eth1 --to '[2001:db8::10]:53' --mac 02:00:00:00:00:01 --kind udp --flows 1000 --packets 100000\n  \
    weir-gen --interface eth1 --to 203.0.113.10:443 --mac 02:00:00:00:00:01 --kind syn --flows 4294967295 --json"
)]
struct Arguments {
    /// The interface by which packets leave; its driver must take frames from XDP (veth: the peer runs an XDP program)
    #[arg(long)]
    interface: String,
    /// Where they go; with --destinations the first of the addresses
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: SocketAddr,
    /// MAC address of the next hop
    #[arg(long)]
    mac: Mac,
    /// MAC address that they come from
    #[arg(long, default_value = "02:00:00:00:00:02")]
    source_mac: Mac,
    /// What they are
    #[arg(long, value_enum, default_value_t = Kind::Ack)]
    kind: Kind,
    /// The first source address; the low 16 bits and the port differ by flow
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// How many flows, in scattered order
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..))]
    flows: u32,
    /// How many destination addresses, counted up from that of --to in the low 16 bits, which must be zero then
    #[arg(long, default_value_t = 0)]
    destinations: u32,
    /// Length of the frames in bytes, without the FCS
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(64..=3000))]
    size: u32,
    /// For how long
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How many packets at most
    #[arg(long)]
    packets: Option<u64>,
    /// How many a second at most; as many as can be made without it
    #[arg(long)]
    rate: Option<u64>,
    /// The counters as one JSON object
    #[arg(long)]
    json: bool,
}

/// A MAC address, as `02:00:00:00:00:01`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Mac([u8; 6]);

impl std::str::FromStr for Mac {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let bytes = text
            .split(':')
            .map(|part| u8::from_str_radix(part, 16))
            .collect::<Result<Vec<_>, _>>()
            .context("a MAC address is six hexadecimal bytes with colons")?;
        match bytes.try_into() {
            Ok(bytes) => Ok(Self(bytes)),
            Err(_) => bail!("a MAC address is six hexadecimal bytes with colons"),
        }
    }
}

/// What the packets are.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// TCP, of an established connection
    Ack,
    /// TCP, asking for a connection
    Syn,
    /// UDP
    Udp,
}

/// How many packets are made before the clock is looked at.
const BURST: u32 = 1 << 14;
/// With a rate, how often in a second.
const BURSTS_PER_SECOND: u64 = 1000;
/// In a second.
const NANOSECONDS: u128 = 1_000_000_000;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let frame = frame(&arguments)?;
    let sample = Sample {
        frame,
        flows: Flows::Cycle(arguments.flows),
        destinations: arguments.destinations,
        action: 0,
    };
    let mut generator = Generator::load(&sample, &arguments.interface)?;
    let began = Instant::now();
    let end = Duration::from_secs(arguments.seconds);
    let most = arguments.packets.unwrap_or(u64::MAX);
    let mut sent = 0u64;
    while sent < most && began.elapsed() < end {
        let burst = match arguments.rate {
            None => u64::from(BURST),
            Some(rate) => {
                // What is due by now, in bursts of a thousandth of a second.
                let due = began.elapsed().as_nanos() * u128::from(rate) / NANOSECONDS;
                let due = u64::try_from(due)?;
                let burst = (rate / BURSTS_PER_SECOND).max(1);
                if due < sent + burst {
                    thread::sleep(Duration::from_secs(1) / BURSTS_PER_SECOND as u32);
                    continue;
                }
                (due - sent).min(u64::from(BURST))
            }
        };
        let burst = burst.min(most - sent);
        generator.send(u32::try_from(burst)?)?;
        sent += burst;
    }
    let took = began.elapsed();
    let rate = u128::from(sent) * NANOSECONDS / took.as_nanos().max(1);
    let rate = u64::try_from(rate)?;
    let bits = rate * u64::from(arguments.size) * 8;
    let seconds = took.as_secs_f64();
    if arguments.json {
        println!(
            "{}",
            serde_json::json!({ "packets": sent, "seconds": seconds, "packets_per_second": rate, "bits_per_second": bits })
        );
    } else {
        println!(
            "{sent} packets in {seconds:.2} s: {} thousand packets and {} Mbit a second",
            rate / 1000,
            bits / 1_000_000
        );
    }
    Ok(())
}

/// The first packet.
fn frame(arguments: &Arguments) -> anyhow::Result<Vec<u8>> {
    let link = PacketBuilder::ethernet2(arguments.source_mac.0, arguments.mac.0);
    let (builder, headers) = match (arguments.to.ip(), arguments.from) {
        (IpAddr::V4(to), None) => (link.ipv4([198, 18, 0, 0], to.octets(), 64), 34),
        (IpAddr::V4(to), Some(IpAddr::V4(from))) => (link.ipv4(from.octets(), to.octets(), 64), 34),
        // The prefix for benchmarks (RFC 5180).
        (IpAddr::V6(to), None) => {
            let from = [0x20, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            (link.ipv6(from, to.octets(), 64), 54)
        }
        (IpAddr::V6(to), Some(IpAddr::V6(from))) => (link.ipv6(from.octets(), to.octets(), 64), 54),
        _ => bail!("--from and --to are of different families"),
    };
    if arguments.destinations != 0 {
        let low = match arguments.to.ip() {
            IpAddr::V4(to) => to.to_bits() & 0xffff,
            IpAddr::V6(to) => (to.to_bits() & 0xffff) as u32,
        };
        ensure!(
            low == 0,
            "with --destinations the last two bytes of --to must be zero"
        );
    }
    let port = arguments.to.port();
    let size = arguments.size as usize;
    let padding = |transport: usize| vec![0; size.saturating_sub(headers + transport)];
    let mut frame = Vec::new();
    match arguments.kind {
        Kind::Udp => builder.udp(1024, port).write(&mut frame, &padding(8))?,
        Kind::Ack => tcp(builder, port, false, &mut frame, &padding(20))?,
        Kind::Syn => tcp(builder, port, true, &mut frame, &padding(20))?,
    }
    Ok(frame)
}

fn tcp(
    builder: PacketBuilderStep<etherparse::IpHeaders>,
    port: u16,
    is_syn: bool,
    frame: &mut Vec<u8>,
    padding: &[u8],
) -> anyhow::Result<()> {
    let header = TcpHeader {
        syn: is_syn,
        ack: !is_syn,
        acknowledgment_number: u32::from(!is_syn),
        ..TcpHeader::new(1024, port, 0, 65_535)
    };
    builder.tcp_header(header).write(frame, padding)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_is_six_bytes() {
        assert_eq!(
            "02:00:00:00:00:0a".parse::<Mac>().unwrap(),
            Mac([2, 0, 0, 0, 0, 10])
        );
        for wrong in ["", "02:00", "02:00:00:00:00:0a:0b", "02:00:00:00:00:xx"] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }
}
