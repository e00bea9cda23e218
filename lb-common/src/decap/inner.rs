//! The inner IP header of a tunnel packet.

use super::{Reason, ecn, outer::Payload};
use crate::{
    checksum,
    flow::Address,
    packet::Packet,
    wire::{
        ethernet,
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
    },
};

/// The inner IP header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inner {
    pub(super) destination: Address,
    pub(super) ether_type: u64,
    ecn: u64,
}

/// Reads the header, and checks it against itself and against the length of what it came in.
#[inline(always)]
pub(super) fn parse<P: Packet>(packet: &P, payload: &Payload) -> Result<Inner, Reason> {
    if payload.version == 6 {
        v6(packet, payload)
    } else {
        v4(packet, payload)
    }
}

#[inline(always)]
fn v4<P: Packet>(packet: &P, payload: &Payload) -> Result<Inner, Reason> {
    if payload.len < ipv4::LEN as u64 {
        return Err(Reason::MalformedInner);
    }
    let ip = packet.at::<Ipv4>(payload.at).ok_or(Reason::Truncated)?;
    let header_len = ip.header_len() as u64;
    let len = u64::from(ip.total_len.get());
    if ip.version() != 4 || header_len < ipv4::LEN as u64 || len < header_len || len > payload.len {
        return Err(Reason::MalformedInner);
    }
    Ok(Inner {
        destination: Address::from_v4(ip.destination),
        ether_type: u64::from(ethernet::IPV4),
        ecn: u64::from(ip.dscp_ecn & ecn::MASK),
    })
}

#[inline(always)]
fn v6<P: Packet>(packet: &P, payload: &Payload) -> Result<Inner, Reason> {
    if payload.len < ipv6::LEN as u64 {
        return Err(Reason::MalformedInner);
    }
    let ip = packet.at::<Ipv6>(payload.at).ok_or(Reason::Truncated)?;
    let len = u64::from(ip.payload_len.get()).wrapping_add(ipv6::LEN as u64);
    let destination = Address::from_v6(ip.destination);
    // A mapped address on the wire could pass for the IPv4 VIP of the same bytes.
    if ip.version() != 6
        || len > payload.len
        || destination.is_v4()
        || Address::from_v6(ip.source).is_v4()
    {
        return Err(Reason::MalformedInner);
    }
    Ok(Inner {
        destination,
        ether_type: u64::from(ethernet::IPV6),
        ecn: u64::from(ip.traffic_class() & ecn::MASK),
    })
}

impl Inner {
    /// Gives the inner header the ECN field that the outer one and its own make.
    #[inline(always)]
    pub(super) fn take_ecn<P: Packet>(
        &self,
        packet: &mut P,
        payload: &Payload,
        outer: u64,
    ) -> Result<(), Reason> {
        let combined = ecn::combine(self.ecn as u8, outer as u8).ok_or(Reason::EcnLost)?;
        if u64::from(combined) == self.ecn {
            return Ok(());
        }
        if payload.version == 6 {
            let ip = packet.at_mut::<Ipv6>(payload.at).ok_or(Reason::Truncated)?;
            let [_, class_low, ..] = &mut ip.version_class_label;
            *class_low = (*class_low & !(ecn::MASK << 4)) | (combined << 4);
        } else {
            let ip = packet.at_mut::<Ipv4>(payload.at).ok_or(Reason::Truncated)?;
            let old = [ip.version_ihl, ip.dscp_ecn];
            ip.dscp_ecn = (ip.dscp_ecn & !ecn::MASK) | combined;
            ip.checksum = checksum::update(ip.checksum, old, [ip.version_ihl, ip.dscp_ecn]);
        }
        Ok(())
    }
}
