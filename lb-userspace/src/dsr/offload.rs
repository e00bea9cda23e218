//! Offloads of an interface, by ethtool's netlink family (ethtool-netlink, Linux 5.6). The crates that speak it only read
//! features.

use std::io;

use anyhow::{Context as _, bail};
use rtnetlink::{
    packet_core::{DefaultNla, Emitable as _},
    sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC},
};

/// What must be off: the sender closes checksums and cuts packets to size itself then.
const OFF: [&str; 3] = [
    "tx-checksum-ip-generic",
    "tx-generic-segmentation",
    "rx-gro",
];

// linux/netlink.h
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const ERROR: u16 = 2;
const NESTED: u16 = 1 << 15;
const HEADER_LEN: usize = 16;

// linux/genetlink.h
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const GENERIC_LEN: usize = 4;

// linux/ethtool_netlink.h
const SET_FEATURES: u8 = 12;
const FEATURES_HEADER: u16 = 1;
const FEATURES_WANTED: u16 = 3;
const HEADER_NAME: u16 = 2;
const HEADER_FLAGS: u16 = 3;
const OMIT_REPLY: u32 = 2;
const SET_BITS: u16 = 3;
const BITS_BIT: u16 = 1;
const BIT_NAME: u16 = 2;

/// Turns the offloads of an interface off that keep packets from being whole.
///
/// # Errors
/// There is no such interface, or the kernel refuses.
pub(super) fn turn_off(interface: &str) -> anyhow::Result<()> {
    let socket = Socket::new(NETLINK_GENERIC).context("opening a generic netlink socket")?;
    // The kernel has answered when the question is sent.
    socket.set_non_blocking(true)?;
    let name = DefaultNla::new(FAMILY_NAME, text("ethtool"));
    let answer = ask(&socket, CONTROL, REQUEST, GET_FAMILY, &[name])
        .context("looking for ethtool's netlink family (CONFIG_ETHTOOL_NETLINK)")?;
    let family = family(&answer).context("the kernel does not name ethtool's netlink family")?;
    // Bits without a value, and with no list of all: these go off, and others stay.
    let bits = OFF.map(|feature| {
        let bit = [DefaultNla::new(BIT_NAME, text(feature))];
        nest(BITS_BIT, &bit)
    });
    let attributes = [
        nest(
            FEATURES_HEADER,
            &[
                DefaultNla::new(HEADER_NAME, text(interface)),
                DefaultNla::new(HEADER_FLAGS, OMIT_REPLY.to_ne_bytes().to_vec()),
            ],
        ),
        nest(FEATURES_WANTED, &[nest(SET_BITS, &bits)]),
    ];
    ask(&socket, family, REQUEST | ACK, SET_FEATURES, &attributes).map(drop)
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn emit(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

fn nest(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    DefaultNla::new(kind | NESTED, emit(attributes))
}

/// Sends a message and returns the attributes of the answer; none for an acknowledgement.
fn ask(
    socket: &Socket,
    family: u16,
    flags: u16,
    command: u8,
    attributes: &[DefaultNla],
) -> anyhow::Result<Vec<u8>> {
    let payload = emit(attributes);
    let len = HEADER_LEN + GENERIC_LEN + payload.len();
    let mut message = u32::try_from(len)?.to_ne_bytes().to_vec();
    message.extend(family.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence number and sender: one question at a time, from a socket of its own.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(payload);
    socket.send_to(&message, &SocketAddr::new(0, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let Some(kind) = answer.get(4..).and_then(<[u8]>::first_chunk) else {
        bail!("the kernel's answer is cut short");
    };
    let kind = u16::from_ne_bytes(*kind);
    let body = answer.get(HEADER_LEN..).unwrap_or_default();
    if kind == ERROR {
        let number = body
            .first_chunk()
            .map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        return match number {
            0 => Ok(Vec::new()),
            number => Err(io::Error::from_raw_os_error(-number).into()),
        };
    }
    Ok(body.get(GENERIC_LEN..).unwrap_or_default().to_vec())
}

/// The number of a family, among its attributes.
fn family(mut attributes: &[u8]) -> Option<u16> {
    loop {
        let [l0, l1, k0, k1] = *attributes.first_chunk()?;
        let (len, kind) = (
            usize::from(u16::from_ne_bytes([l0, l1])),
            u16::from_ne_bytes([k0, k1]),
        );
        if kind == FAMILY_ID {
            return attributes
                .get(4..)?
                .first_chunk()
                .map(|id| u16::from_ne_bytes(*id));
        }
        attributes = attributes.get(len.next_multiple_of(4).max(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_number_behind_other_attributes() {
        let attributes = emit(&[
            DefaultNla::new(FAMILY_NAME, text("ethtool")),
            DefaultNla::new(9, vec![1, 2, 3]),
            DefaultNla::new(FAMILY_ID, 0x1234_u16.to_ne_bytes().to_vec()),
        ]);
        assert_eq!(family(&attributes), Some(0x1234));
        assert_eq!(family(&attributes[..12]), None);
        assert_eq!(family(&[0; 8]), None);
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        let error = turn_off("no-such-thing0").unwrap_err();
        assert!(format!("{error:#}").contains("No such device"), "{error:#}");
    }
}
