//! Capture files: pcap and pcapng in, pcap out.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Cursor, Read, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use pcap_file::{
    DataLink, Endianness, PcapError, TsResolution,
    pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter},
    pcapng::{
        Block, PcapNgReader,
        blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
    },
};

use super::Input;

/// First bytes of a pcapng file, in either byte order.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// First bytes of a pcap file: microseconds and nanoseconds, each in both byte orders.
const PCAP: [[u8; 4]; 4] = [
    [0xa1, 0xb2, 0xc3, 0xd4],
    [0xd4, 0xc3, 0xb2, 0xa1],
    [0xa1, 0xb2, 0x3c, 0x4d],
    [0x4d, 0x3c, 0xb2, 0xa1],
];

/// Bytes of a packet that the files written here may hold, as tcpdump has it.
const SNAPLEN: u32 = 262_144;

type Source = BufReader<io::Chain<Cursor<Vec<u8>>, File>>;

/// A capture file that is read packet by packet.
pub struct Capture {
    path: PathBuf,
    format: Format,
    /// Packets read so far.
    count: usize,
}

enum Format {
    Pcap(Box<PcapReader<Source>>),
    PcapNg(Box<PcapNgReader<Source>>),
}

/// A block of a pcapng file that holds a packet.
struct PacketBlock {
    interface: usize,
    /// In units of the interface's clock.
    ticks: Option<u64>,
    data: Vec<u8>,
    wire_len: u32,
}

impl Capture {
    /// Opens a pcap or pcapng file of Ethernet frames.
    ///
    /// # Errors
    /// Where it cannot be read, is neither, or holds other frames.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let mut file = File::open(path).with_context(|| format!("open the capture {shown}"))?;
        let mut magic = Vec::new();
        (&mut file)
            .take(4)
            .read_to_end(&mut magic)
            .with_context(|| format!("read the capture {shown}"))?;
        let start = <[u8; 4]>::try_from(magic.as_slice()).unwrap_or_default();
        let source = BufReader::new(Cursor::new(magic).chain(file));
        let format = if start == PCAPNG {
            PcapNgReader::new(source).map(|reader| Format::PcapNg(Box::new(reader)))
        } else if PCAP.contains(&start) {
            PcapReader::new(source).map(|reader| Format::Pcap(Box::new(reader)))
        } else {
            bail!(
                "{shown} is neither a pcap nor a pcapng file (a bare packet goes with `--packet-hex`)"
            );
        };
        let format = format
            .map_err(|error| anyhow::anyhow!("{}", words(&error)))
            .with_context(|| format!("read the header of {shown}"))?;
        if let Format::Pcap(reader) = &format {
            check_ethernet(reader.header().datalink).with_context(|| shown.to_string())?;
        }
        Ok(Self {
            path: path.to_owned(),
            format,
            count: 0,
        })
    }

    /// Whether its timestamps are finer than microseconds, as far as has been read.
    #[must_use]
    pub fn has_nanoseconds(&self) -> bool {
        match &self.format {
            Format::Pcap(reader) => reader.header().ts_resolution == TsResolution::NanoSecond,
            // Known only once the interfaces have been read: never lose any.
            Format::PcapNg(_) => true,
        }
    }

    fn read(&mut self) -> anyhow::Result<Option<Input>> {
        match &mut self.format {
            Format::Pcap(reader) => read_pcap(reader),
            Format::PcapNg(reader) => read_pcapng(reader),
        }
    }
}

impl Iterator for Capture {
    type Item = anyhow::Result<Input>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.count;
        self.count = self.count.saturating_add(1);
        let read = self.read().transpose()?;
        Some(read.with_context(|| format!("read packet {index} of {}", self.path.display())))
    }
}

fn read_pcap(reader: &mut PcapReader<Source>) -> anyhow::Result<Option<Input>> {
    let unit = match reader.header().ts_resolution {
        TsResolution::MicroSecond => 1000,
        TsResolution::NanoSecond => 1,
    };
    // Raw, since the checked form refuses packets that the capture cut short.
    let Some(packet) = reader.next_raw_packet() else {
        return Ok(None);
    };
    let packet = packet.map_err(|error| anyhow::anyhow!("{}", words(&error)))?;
    let nanoseconds = u64::from(packet.ts_frac).saturating_mul(unit);
    Ok(Some(Input {
        time: Duration::from_secs(u64::from(packet.ts_sec))
            .saturating_add(Duration::from_nanos(nanoseconds)),
        wire_len: packet.orig_len as usize,
        frame: packet.data.into_owned(),
    }))
}

fn read_pcapng(reader: &mut PcapNgReader<Source>) -> anyhow::Result<Option<Input>> {
    while let Some(block) = reader.next_block() {
        let block = block.map_err(|error| anyhow::anyhow!("{}", words(&error)))?;
        let Some(block) = packet_block(block) else {
            continue;
        };
        let interface = reader.interfaces().get(block.interface).with_context(|| {
            format!(
                "it names interface {}, which the file does not describe",
                block.interface
            )
        })?;
        check_ethernet(interface.linktype)?;
        let mut frame = block.data;
        // The padding of a simple packet is not told from its data.
        let snaplen = match interface.snaplen {
            0 => usize::MAX,
            snaplen => snaplen as usize,
        };
        let wire_len = block.wire_len as usize;
        if block.ticks.is_none() {
            frame.truncate(wire_len.min(snaplen));
        }
        return Ok(Some(Input {
            frame,
            time: block
                .ticks
                .map_or(Duration::ZERO, |ticks| time(ticks, interface)),
            wire_len,
        }));
    }
    Ok(None)
}

fn packet_block(block: Block<'_>) -> Option<PacketBlock> {
    match block {
        Block::EnhancedPacket(packet) => Some(PacketBlock {
            interface: packet.interface_id as usize,
            // The crate takes the clock's units for nanoseconds, whatever the interface says.
            ticks: Some(u64::try_from(packet.timestamp.as_nanos()).unwrap_or(u64::MAX)),
            wire_len: packet.original_len,
            data: packet.data.into_owned(),
        }),
        Block::SimplePacket(packet) => Some(PacketBlock {
            interface: 0,
            ticks: None,
            wire_len: packet.original_len,
            data: packet.data.into_owned(),
        }),
        Block::Packet(packet) => Some(PacketBlock {
            interface: usize::from(packet.interface_id),
            ticks: Some(packet.timestamp),
            wire_len: packet.original_len,
            data: packet.data.into_owned(),
        }),
        _ => None,
    }
}

/// A timestamp of an interface, by its `if_tsresol` and `if_tsoffset`.
fn time(ticks: u64, interface: &InterfaceDescriptionBlock<'_>) -> Duration {
    let (mut resolution, mut offset) = (6, 0);
    for option in &interface.options {
        match option {
            InterfaceDescriptionOption::IfTsResol(value) => resolution = *value,
            InterfaceDescriptionOption::IfTsOffset(value) => offset = *value,
            _ => {}
        }
    }
    let exponent = u32::from(resolution & 0x7f);
    let ticks = u128::from(ticks);
    let billion = 1_000_000_000;
    let nanoseconds = if resolution & 0x80 != 0 {
        ticks.saturating_mul(billion).checked_shr(exponent)
    } else if exponent <= 9 {
        Some(ticks.saturating_mul(10u128.pow(9 - exponent)))
    } else {
        10u128.checked_pow(exponent - 9).map(|unit| ticks / unit)
    };
    let nanoseconds = nanoseconds.unwrap_or_default();
    let seconds = u64::try_from(nanoseconds / billion).unwrap_or(u64::MAX);
    let rest = u64::try_from(nanoseconds % billion).unwrap_or_default();
    Duration::from_secs(seconds.saturating_add(offset)).saturating_add(Duration::from_nanos(rest))
}

fn check_ethernet(link: DataLink) -> anyhow::Result<()> {
    if link != DataLink::ETHERNET {
        bail!(
            "its link type is {link:?}, wanted ETHERNET (`tcpdump -i eth0`, not `-i any`, captures Ethernet frames)"
        );
    }
    Ok(())
}

/// What the crate says, in words that help.
fn words(error: &PcapError) -> String {
    match error {
        PcapError::IncompleteBuffer => "the file ends before it does".to_owned(),
        PcapError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the file ends before it does".to_owned()
        }
        PcapError::IoError(error) => error.to_string(),
        error => error.to_string(),
    }
}

/// A pcap file that is written packet by packet, little-endian on every machine.
pub struct Output {
    path: PathBuf,
    writer: PcapWriter<BufWriter<File>>,
}

impl Output {
    /// Makes or replaces a file.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn create(path: &Path, has_nanoseconds: bool) -> anyhow::Result<Self> {
        let context = || format!("write the capture {}", path.display());
        let file = File::create(path).with_context(context)?;
        let header = PcapHeader {
            snaplen: SNAPLEN,
            datalink: DataLink::ETHERNET,
            ts_resolution: if has_nanoseconds {
                TsResolution::NanoSecond
            } else {
                TsResolution::MicroSecond
            },
            endianness: Endianness::Little,
            ..PcapHeader::default()
        };
        let writer = PcapWriter::with_header(BufWriter::new(file), header).with_context(context)?;
        Ok(Self {
            path: path.to_owned(),
            writer,
        })
    }

    /// Adds a packet.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&mut self, time: Duration, frame: &[u8]) -> anyhow::Result<()> {
        let len = u32::try_from(frame.len()).context("a packet of 4 GiB")?;
        self.writer
            .write_packet(&PcapPacket::new(time, len, frame))
            .with_context(|| format!("write the capture {}", self.path.display()))?;
        Ok(())
    }

    /// Writes what is still buffered.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn finish(self) -> anyhow::Result<()> {
        let flushed = self.writer.into_writer().flush();
        flushed.with_context(|| format!("write the capture {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_follow_the_interfaces_clock() {
        use InterfaceDescriptionOption::{IfTsOffset, IfTsResol};
        for (ticks, options, seconds, nanoseconds) in [
            (1_500_001, vec![], 1, 500_001_000),
            (1_500, vec![IfTsResol(3)], 1, 500_000_000),
            (1_000_000_002, vec![IfTsResol(9), IfTsOffset(10)], 11, 2),
            (1_000_000_002_999, vec![IfTsResol(12)], 1, 2),
            (1536, vec![IfTsResol(0x8a)], 1, 500_000_000),
            (7, vec![IfTsResol(0x7f)], 0, 0),
            (7, vec![IfTsResol(0xff)], 0, 0),
        ] {
            let interface = InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: 0,
                options,
            };
            assert_eq!(time(ticks, &interface), Duration::new(seconds, nanoseconds));
        }
    }
}
