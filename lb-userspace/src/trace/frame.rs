//! Packets from the command line: hexadecimal digits, or a 5-tuple.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use anyhow::{Context as _, bail};
use etherparse::{
    IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder, TcpHeader,
};

use super::tracer::{CLIENT_MAC, WEIR_MAC};
use crate::config::Protocol;

/// TTL or hop limit of a packet made here.
const TTL: u8 = 64;

/// A packet as hexadecimal digits; spaces, colons and dashes between them are skipped.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HexBytes(pub Vec<u8>);

impl FromStr for HexBytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_prefix("0x").unwrap_or(text);
        let mut digits = Vec::with_capacity(text.len());
        for (at, c) in text.chars().enumerate() {
            match c.to_digit(16) {
                Some(digit) => digits.push(digit as u8),
                None if c.is_whitespace() || matches!(c, ':' | '-') => {}
                None => {
                    return Err(format!(
                        "character {} is {c:?}, wanted a hexadecimal digit (0-9, a-f)",
                        at.saturating_add(1)
                    ));
                }
            }
        }
        if digits.is_empty() {
            return Err("there is no digit, wanted a frame from its Ethernet header on".to_owned());
        }
        let (bytes, rest) = digits.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(format!(
                "{} digits are no whole number of bytes: two make one",
                digits.len()
            ));
        }
        Ok(Self(
            bytes.iter().map(|[high, low]| high << 4 | low).collect(),
        ))
    }
}

/// A byte string as lowercase hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}

/// A flag of a TCP header.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Flag {
    /// Opens a connection
    Syn,
    /// Acknowledges
    Ack,
    /// Ends a direction
    Fin,
    /// Breaks off
    Rst,
    /// Hands over at once
    Psh,
}

/// A packet by its 5-tuple.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tuple {
    /// The client.
    pub from: SocketAddr,
    /// What it dials.
    pub to: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Flags of the TCP header.
    pub flags: Vec<Flag>,
    /// Length of the whole frame; `None` for one without payload.
    pub size: Option<u16>,
}

impl Tuple {
    /// The frame, with right checksums and a payload of zeros.
    ///
    /// # Errors
    /// Addresses of two families, flags for UDP, or a size that does not hold the headers.
    pub fn frame(&self) -> anyhow::Result<Vec<u8>> {
        if self.protocol == Protocol::Udp && !self.flags.is_empty() {
            bail!("UDP has no flags: leave `--flags` out, or write `--protocol tcp`");
        }
        let step = PacketBuilder::ethernet2(CLIENT_MAC, WEIR_MAC).ip(self.ip_header()?);
        let mut frame = Vec::new();
        match self.protocol {
            Protocol::Tcp => {
                let step = step.tcp_header(self.tcp_header());
                let payload = self.payload(step.size(0))?;
                step.write(&mut frame, &payload)
            }
            Protocol::Udp => {
                let step = step.udp(self.from.port(), self.to.port());
                let payload = self.payload(step.size(0))?;
                step.write(&mut frame, &payload)
            }
        }
        .context("make the packet")?;
        Ok(frame)
    }

    fn ip_header(&self) -> anyhow::Result<IpHeaders> {
        let number = IpNumber(self.protocol.number());
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let header = Ipv4Header::new(0, TTL, number, from.octets(), to.octets());
                let mut header = header.context("make the IPv4 header")?;
                header.dont_fragment = true;
                Ok(IpHeaders::Ipv4(
                    header,
                    etherparse::Ipv4Extensions::default(),
                ))
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let header = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: 0,
                    next_header: number,
                    hop_limit: TTL,
                    source: from.octets(),
                    destination: to.octets(),
                };
                Ok(IpHeaders::Ipv6(
                    header,
                    etherparse::Ipv6Extensions::default(),
                ))
            }
            (from, to) => {
                bail!("{from} and {to} are of two families: write both as IPv4 or both as IPv6")
            }
        }
    }

    fn tcp_header(&self) -> TcpHeader {
        let mut header = TcpHeader::new(self.from.port(), self.to.port(), 1, 65535);
        let flags: &[Flag] = if self.flags.is_empty() {
            &[Flag::Syn]
        } else {
            &self.flags
        };
        for flag in flags {
            match flag {
                Flag::Syn => header.syn = true,
                Flag::Ack => {
                    header.ack = true;
                    header.acknowledgment_number = 1;
                }
                Flag::Fin => header.fin = true,
                Flag::Rst => header.rst = true,
                Flag::Psh => header.psh = true,
            }
        }
        header
    }

    fn payload(&self, headers: usize) -> anyhow::Result<Vec<u8>> {
        let size = self.size.map_or(headers, usize::from);
        let Some(len) = size.checked_sub(headers) else {
            bail!("`--size {size}` does not hold the headers: they are {headers} bytes");
        };
        Ok(vec![0; len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_takes_what_people_paste() {
        for text in ["0aff00", "0A:ff:00", "0x0aff00", " 0a ff-00\n"] {
            let HexBytes(bytes) = text.parse().unwrap();
            assert_eq!(bytes, [0x0a, 0xff, 0x00], "{text}");
            assert_eq!(hex(&bytes), "0aff00");
        }
        for (text, needle) in [
            ("", "no digit"),
            ("0a0", "3 digits"),
            ("0az0", "character 3 is 'z'"),
        ] {
            let error = text.parse::<HexBytes>().unwrap_err();
            assert!(error.contains(needle), "{error}");
        }
    }
}
