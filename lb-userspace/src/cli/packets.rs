//! `weir events --packets`

use std::{net::SocketAddr, str::FromStr};

use anyhow::bail;

use super::{Outcome, output, status::Form};
use crate::api::{PacketFilter, PacketSeen, client::Client};

/// One packet in so many: `1/10000`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct OneIn(u32);

impl FromStr for OneIn {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wanted = "one packet in so many, as `1/10000`; `1/1` is every one";
        let number = match text.split_once('/') {
            Some(("1", number)) => number,
            Some(_) => return Err(wanted),
            None => text,
        };
        match number.parse() {
            Ok(number) if number != 0 => Ok(Self(number)),
            _ => Err(wanted),
        }
    }
}

/// Tells of packets until the daemon ends, or whoever reads goes.
pub(super) async fn follow(
    client: &Client,
    OneIn(sample): OneIn,
    vip: Option<String>,
    reason: Option<String>,
    form: Form,
) -> anyhow::Result<Outcome> {
    let filter = PacketFilter {
        sample: Some(sample),
        vip,
        reason,
        rate: None,
    };
    let mut packets = client.packets(&filter).await?;
    while let Some(packet) = packets.next().await? {
        match form {
            Form::Json => output::data(format_args!("{}\n", serde_json::to_string(&packet)?))?,
            Form::Table => output::data(format_args!("{}\n", line(&packet)))?,
        }
    }
    bail!("the daemon has ended the stream of packets")
}

/// A packet as a line for people.
fn line(packet: &PacketSeen) -> String {
    let end = |address, port: Option<u16>| match (address, port) {
        (Some(address), Some(port)) => SocketAddr::new(address, port).to_string(),
        (Some(address), None) => address.to_string(),
        (None, _) => "-".to_owned(),
    };
    let to = packet.backend.map(|backend| format!(" to {backend}"));
    let of = packet.vip.as_deref().map(|vip| format!(" of VIP {vip}"));
    format!(
        "{} {} {} > {}{} {} ({}){}, {} bytes",
        packet.time,
        packet.protocol.as_deref().unwrap_or("-"),
        end(packet.source, packet.source_port),
        end(packet.destination, packet.destination_port),
        of.unwrap_or_default(),
        packet.verdict,
        packet.reason,
        to.unwrap_or_default(),
        packet.length_bytes
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_written_as_a_share() {
        assert_eq!("1/10000".parse(), Ok(OneIn(10_000)));
        assert_eq!("1".parse(), Ok(OneIn(1)));
        for wrong in ["", "0", "1/0", "2/3", "1/", "/2", "-1", "1/5000000000"] {
            assert!(wrong.parse::<OneIn>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_packet_is_a_line() {
        let packet = PacketSeen {
            time: "2026-01-01T00:00:00.000001Z".to_owned(),
            vip: Some("web".to_owned()),
            backend: "10.0.0.11".parse().ok(),
            slot: Some(7),
            verdict: "tx".to_owned(),
            reason: "forwarded".to_owned(),
            source: "198.51.100.7".parse().ok(),
            source_port: Some(40000),
            destination: "203.0.113.10".parse().ok(),
            destination_port: Some(443),
            protocol: Some("tcp".to_owned()),
            length_bytes: 74,
            sample: 10,
            skipped: 0,
        };
        assert_eq!(
            line(&packet),
            "2026-01-01T00:00:00.000001Z tcp 198.51.100.7:40000 > 203.0.113.10:443 of VIP web tx \
             (forwarded) to 10.0.0.11, 74 bytes"
        );
    }
}
