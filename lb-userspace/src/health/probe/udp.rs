//! A datagram is answered. Silence fails: it cannot be told from a server that is gone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::net::UdpSocket;

use super::{Failure, Target, failure};
use crate::config::health::Udp;

/// Room for the largest datagram.
const LARGEST: usize = 65_535;

pub(super) async fn probe(to: &Target, udp: &Udp) -> Result<(), Failure> {
    let answer = ask(to, &udp.send).await?;
    if answer.starts_with(&udp.expect) {
        return Ok(());
    }
    let beginning = answer.get(..udp.expect.len()).unwrap_or(&answer);
    Err(Failure::Failed(format!(
        "the answer begins with \"{}\", not \"{}\"",
        beginning.escape_ascii(),
        udp.expect.escape_ascii()
    )))
}

/// Sends a datagram and waits for one from there. An ICMP error fails: the socket is connected.
pub(super) async fn ask(to: &Target, question: &[u8]) -> Result<Vec<u8>, Failure> {
    let any: IpAddr = if to.address.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let ask = async {
        let socket = UdpSocket::bind((to.aim.source.unwrap_or(any), 0)).await?;
        to.aim.mark(&socket)?;
        socket.connect(to.address).await?;
        socket.send(question).await?;
        let mut answer = Vec::with_capacity(LARGEST);
        socket.recv_buf(&mut answer).await?;
        Ok(answer)
    };
    ask.await.map_err(|error| failure("ask", &error))
}
