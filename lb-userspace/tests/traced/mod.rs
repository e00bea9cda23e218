//! What the tests of `weir trace` need: a configuration, packets, captures, and a data plane that stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Output, Stdio},
};

use aya::maps::{HashMap, Map, MapData};
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, PacketBuilder};
use lb_common::{fragment::FragmentKey, tables::Counters};
use lb_userspace::{
    config::Config,
    dataplane::{
        DataPlane as _, ReasonCount, Sizes,
        apply::apply,
        bpf::{self, BpfDataPlane, ProgramLog, layout::Layout},
    },
    model::{
        ids::Ids,
        next_hop::Port,
        plan::Held,
        seed::Keys,
        wanted::{Inputs, Standing, Wanted},
    },
};
use serde_json::Value;

pub(crate) const WEIR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
pub(crate) const BACKEND_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0b];

/// The interface need not exist.
pub(crate) const CONFIG: &str = r#"
[node]
interfaces = ["no-such-if0"]
seed = "fleet-secret"

[[vip]]
name = "web"
address = "203.0.113.10"
port = 443
protocol = "tcp"
[[vip.backend]]
address = "10.0.0.11"
mac = "02:00:00:00:00:0b"

[[vip]]
name = "web6"
address = "2001:db8::10"
port = 443
protocol = "tcp"
[[vip.backend]]
address = "2001:db8:2::11"
mac = "02:00:00:00:00:0b"

[[vip]]
name = "empty"
address = "203.0.113.10"
port = 1001
protocol = "tcp"
[[vip.backend]]
address = "10.0.0.11"
weight = 0
mac = "02:00:00:00:00:0b"

[[vip]]
name = "unresolved"
address = "203.0.113.10"
port = 1002
protocol = "tcp"
[[vip.backend]]
address = "10.0.0.12"

[[vip]]
name = "dns"
address = "203.0.113.53"
port = 53
protocol = "udp"
[[vip.backend]]
address = "10.0.0.11"
mac = "02:00:00:00:00:0b"
[[vip.backend]]
address = "10.0.0.12"
mac = "02:00:00:00:00:0c"
"#;

/// A directory with a configuration.
pub(crate) struct Workspace {
    directory: tempfile::TempDir,
    pub(crate) config: String,
}

impl Workspace {
    pub(crate) fn path(&self, name: &str) -> String {
        self.directory
            .path()
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    }
}

pub(crate) fn workspace() -> Workspace {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test loads BPF programs and must run as root"
    );
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("weir.toml");
    fs::write(&config, CONFIG).unwrap();
    let config = config.to_str().unwrap().to_owned();
    Workspace { directory, config }
}

pub(crate) fn weir(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(args).stdin(Stdio::null());
    command.env_remove("RUST_LOG").env_remove("NO_COLOR");
    command.output().unwrap()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub(crate) fn out(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

pub(crate) fn err(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

/// The JSON objects, one a line.
pub(crate) fn lines(output: &Output) -> Vec<Value> {
    let lines = out(output).lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let bytes = (0..text.len()).step_by(2);
    bytes
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// A TCP segment.
pub(crate) fn frame(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let builder = PacketBuilder::ethernet2([4; 6], [6; 6]);
    let builder = match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            builder.ipv4(from.ip().octets(), to.ip().octets(), 64)
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            builder.ipv6(from.ip().octets(), to.ip().octets(), 64)
        }
        _ => panic!("two families"),
    };
    let mut frame = Vec::new();
    let builder = builder.tcp(from.port(), to.port(), 1, 65535).ack(1);
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// The frame as it must leave for a backend.
pub(crate) fn with_macs(frame: &[u8], destination: [u8; 6]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[..6].copy_from_slice(&destination);
    frame[6..12].copy_from_slice(&WEIR_MAC);
    frame
}

/// A UDP query to the VIP `dns` in two fragments, in hexadecimal. `id` also chooses the client's port.
pub(crate) fn fragments(id: u16) -> Vec<String> {
    let mut datagram = Vec::new();
    let udp = etherparse::UdpHeader::without_ipv4_checksum(40000 + id, 53, 64).unwrap();
    udp.write(&mut datagram).unwrap();
    datagram.extend([0; 64]);
    let fragment = |range: std::ops::Range<usize>, more| {
        let payload = &datagram[range.clone()];
        let (from, to) = ([198, 51, 100, 7], [203, 0, 113, 53]);
        let mut header =
            Ipv4Header::new(payload.len() as u16, 64, IpNumber::UDP, from, to).unwrap();
        header.identification = id;
        header.more_fragments = more;
        header.fragment_offset = IpFragOffset::try_new((range.start / 8) as u16).unwrap();
        header.header_checksum = header.calc_header_checksum();
        let mut frame = [[6; 6], [4; 6]].concat();
        frame.extend([0x08, 0x00]);
        header.write(&mut frame).unwrap();
        frame.extend(payload);
        hex(&frame)
    };
    vec![fragment(0..40, true), fragment(40..72, false)]
}

/// A pcap file of packets with seconds and microseconds.
pub(crate) fn pcap(packets: &[(u32, u32, &Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 1] {
        file.extend(u32::to_le_bytes(word));
    }
    for (seconds, microseconds, packet) in packets {
        for word in [
            *seconds,
            *microseconds,
            packet.len() as u32,
            packet.len() as u32,
        ] {
            file.extend(word.to_le_bytes());
        }
        file.extend(packet.iter());
    }
    file
}

/// The same as pcapng: one interface, whose clock counts microseconds as is the rule.
pub(crate) fn pcapng(packets: &[(u32, u32, &Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut block = |kind: u32, body: &[u8]| {
        let padding = body.len().next_multiple_of(4) - body.len();
        let len = (12 + body.len() + padding) as u32;
        file.extend(kind.to_le_bytes());
        file.extend(len.to_le_bytes());
        file.extend(body);
        file.extend(&[0; 3][..padding]);
        file.extend(len.to_le_bytes());
    };
    let words = |words: &[u32]| {
        words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect::<Vec<_>>()
    };
    block(0x0a0d_0d0a, &words(&[0x1a2b_3c4d, 1, u32::MAX, u32::MAX]));
    block(1, &words(&[1, 0]));
    for (seconds, microseconds, packet) in packets {
        let ticks = u64::from(*seconds) * 1_000_000 + u64::from(*microseconds);
        let len = packet.len() as u32;
        let mut body = words(&[0, (ticks >> 32) as u32, ticks as u32, len, len]);
        body.extend(packet.iter());
        block(6, &body);
    }
    file
}

/// The magic number of a pcap file, and its packets with their timestamps.
pub(crate) fn pcap_packets(file: &[u8]) -> (u32, Vec<(u32, u32, Vec<u8>)>) {
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    assert_eq!(word(20), 1, "link type");
    let mut packets = Vec::new();
    let mut at = 24;
    while at < file.len() {
        let len = word(at + 8);
        assert_eq!(len, word(at + 12), "nothing is cut");
        let end = at + 16 + len as usize;
        packets.push((word(at), word(at + 4), file[at + 16..end].to_vec()));
        at = end;
    }
    (word(0), packets)
}

/// A data plane pinned on a bpffs of its own, as a daemon keeps it.
pub(crate) struct Daemon {
    pub(crate) plane: BpfDataPlane,
    pub(crate) pin_path: String,
    wanted: Wanted,
}

/// Everything that packets change.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct State {
    vips: Vec<Counters>,
    backends: Vec<Counters>,
    pub(crate) reasons: Vec<ReasonCount>,
    pub(crate) fragments: BTreeMap<[u8; size_of::<FragmentKey>()], u32>,
}

impl Daemon {
    pub(crate) fn start(files: &Workspace) -> Self {
        let pin_path = files.path("bpf");
        let mut plane = BpfDataPlane::open(
            Path::new(&pin_path),
            ProgramLog::Off,
            Sizes {
                max_pins: 65_536,
                max_sources: 65_536,
            },
        )
        .unwrap();
        let config = Config::parse(CONFIG, "weir.toml").unwrap();
        let keys = Keys::derive(config.node.seed.expose());
        let inputs = Inputs {
            config: &config,
            keys: &keys,
            ports: &[Port {
                ifindex: 1,
                mac: WEIR_MAC,
            }],
            next_hops: &BTreeMap::new(),
            locals: &BTreeSet::new(),
            standing: &Standing::default(),
            cpus: 1,
        };
        let (mut held, mut ids) = (Held::default(), Ids::default());
        let wanted = Wanted::new(&inputs, &held, &mut ids).unwrap();
        apply(&mut plane, &mut held, &wanted, &mut ids, "test").unwrap();
        Self {
            plane,
            pin_path,
            wanted,
        }
    }

    pub(crate) fn state(&self) -> State {
        let vips = &self.wanted.vips;
        let backends = vips.iter().flat_map(|vip| &vip.backends);
        let layout = Path::new(&self.pin_path).join(Layout::CURRENT.to_string());
        let path = layout.join("maps/FRAGMENTS");
        let map = Map::LruHashMap(MapData::from_pin(path).unwrap());
        let map: HashMap<_, [u8; size_of::<FragmentKey>()], u32> = map.try_into().unwrap();
        State {
            vips: vips
                .iter()
                .map(|vip| self.plane.vip_counters(vip.entry.id).unwrap())
                .collect(),
            backends: backends
                .map(|b| self.plane.backend_counters(b.id).unwrap())
                .collect(),
            reasons: self.plane.reason_counters().unwrap(),
            fragments: map.iter().map(Result::unwrap).collect(),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The plane holds the lock; a private one takes its place, and lets go.
        if let Ok(private) = BpfDataPlane::private() {
            self.plane = private;
        }
        if let Err(error) = bpf::detach(Path::new(&self.pin_path)) {
            assert!(std::thread::panicking(), "{error:#}");
        }
    }
}
