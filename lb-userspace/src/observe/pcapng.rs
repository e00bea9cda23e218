//! A capture as a pcapng file: one section, an interface block for each interface, a packet block for each packet with
//! what was decided as its comment, and now and then what was skipped.
//!
//! The file may end after any block: whoever reads the stream can stop at any time.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use lb_common::observe::Record;
use pcap_file::{
    DataLink, Endianness, PcapResult,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
            interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption},
            section_header::{SectionHeaderBlock, SectionHeaderOption},
        },
    },
};

use super::{
    Names, Side,
    hub::Wall,
    packet::{parts, slot, verdict},
};

/// `epb_flags`: which way.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// The file as far as it is written, of which the beginning may be taken away.
pub(crate) struct Capture {
    writer: PcapNgWriter<Vec<u8>>,
    /// Numbers in the file, by ifindex.
    interfaces: HashMap<u32, u32>,
    wall: Wall,
    side: Side,
    saved: u32,
    began_ns: u64,
    captured: u64,
}

impl Capture {
    /// Begins a file. `what` tells what it is of.
    ///
    /// # Errors
    /// None: memory takes whatever is written.
    pub(crate) fn begin(
        what: String,
        names: &Names,
        wall: Wall,
        side: Side,
        saved: u32,
    ) -> PcapResult<Self> {
        let application = format!("weir {}", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![
                SectionHeaderOption::Comment(what.into()),
                SectionHeaderOption::UserApplication(application.into()),
            ],
            ..SectionHeaderBlock::default()
        };
        let mut capture = Self {
            writer: PcapNgWriter::with_section_header(Vec::new(), section)?,
            interfaces: HashMap::new(),
            wall,
            side,
            saved,
            began_ns: wall.unix_now_ns(),
            captured: 0,
        };
        for ifindex in &names.own {
            capture.interface(*ifindex, names)?;
        }
        Ok(capture)
    }

    /// How many packets there are in it; one that came and left is one.
    pub(crate) const fn captured(&self) -> u64 {
        self.captured
    }

    /// What has been written since this was last asked.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.get_mut())
    }

    /// Writes a packet, as it came and as it left.
    ///
    /// # Errors
    /// None: see [`Self::begin`].
    pub(crate) fn packet(&mut self, bytes: &[u8], names: &Names) -> PcapResult<()> {
        let Some((record, came, left)) = parts(bytes) else {
            return Ok(());
        };
        let has_left = record.left_len != 0;
        if self.side == Side::Left && !has_left {
            return Ok(());
        }
        self.captured += 1;
        if self.side != Side::Left {
            let interface = self.interface(record.ingress, names)?;
            self.write(
                &record,
                (interface, INBOUND, "came"),
                (came, record.came_len),
                names,
            )?;
        }
        if self.side != Side::Came && has_left {
            let interface = self.interface(record.egress, names)?;
            self.write(
                &record,
                (interface, OUTBOUND, "left"),
                (left, record.left_len),
                names,
            )?;
        }
        Ok(())
    }

    fn write(
        &mut self,
        record: &Record,
        (interface_id, flags, which): (u32, u32, &str),
        (data, original_len): (&[u8], u32),
        names: &Names,
    ) -> PcapResult<()> {
        let data = data.get(..self.saved as usize).unwrap_or(data);
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::from_nanos(self.wall.unix_ns(record.time_ns)),
            original_len,
            data: Cow::Borrowed(data),
            options: vec![
                EnhancedPacketOption::Comment(self.comment(record, which, names).into()),
                EnhancedPacketOption::Flags(flags),
            ],
        };
        self.writer.write_pcapng_block(block).map(drop)
    }

    /// Writes how many packets there are, and how many were skipped: at the first interface, of all.
    ///
    /// # Errors
    /// None: see [`Self::begin`].
    pub(crate) fn statistics(&mut self, skipped: u64) -> PcapResult<()> {
        if self.interfaces.is_empty() {
            return Ok(());
        }
        let now = self.wall.unix_now_ns();
        let text = format!(
            "weir: {} packets captured, {skipped} skipped (beyond the rate, or too fast for the reader)",
            self.captured
        );
        let block = InterfaceStatisticsBlock {
            interface_id: 0,
            timestamp: halves(now),
            options: vec![
                InterfaceStatisticsOption::Comment(text.into()),
                InterfaceStatisticsOption::IsbStartTime(halves(self.began_ns)),
                InterfaceStatisticsOption::IsbEndTime(halves(now)),
                InterfaceStatisticsOption::IsbIfDrop(skipped),
                InterfaceStatisticsOption::IsbUsrDeliv(self.captured),
            ],
        };
        self.writer.write_pcapng_block(block).map(drop)
    }

    /// What was decided, for people and for `tshark -Y 'frame.comment contains "reason=denied"'`. A packet has one number
    /// as it came and as it left.
    fn comment(&self, record: &Record, which: &str, names: &Names) -> String {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let (reason, verdict) = record.reason().map_or(("?", "?"), |reason| {
            (reason.as_str(), verdict(record, reason))
        });
        let backend = names.backend(record.backend);
        format!(
            "weir: {which}; vip={} backend={} slot={} reason={reason} verdict={verdict} packet={}",
            names.vip(record.vip).unwrap_or("-"),
            or_none(backend.map(|address| address.to_string())),
            or_none(slot(record).map(|slot| slot.to_string())),
            self.captured,
        )
    }

    /// The number of an interface in the file, which is described there first.
    fn interface(&mut self, ifindex: u32, names: &Names) -> PcapResult<u32> {
        if let Some(number) = self.interfaces.get(&ifindex) {
            return Ok(*number);
        }
        let number = self.interfaces.len() as u32;
        self.writer.write_pcapng_block(InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: self.saved,
            options: vec![
                InterfaceDescriptionOption::IfName(names.interface(ifindex).into()),
                // Nanoseconds.
                InterfaceDescriptionOption::IfTsResol(9),
            ],
        })?;
        self.interfaces.insert(ifindex, number);
        Ok(number)
    }
}

/// A time as statistics have it, upper half first; the library writes a whole word in little-endian order.
const fn halves(ns: u64) -> u64 {
    ns.rotate_left(32)
}
