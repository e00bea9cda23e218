//! The UDP client: datagrams from ports of their own, and a count of who echoed them.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

/// How long one echo may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sends `flows` datagrams, each from a new port, and counts the echoes by backend; a lost or wrong one is an error.
pub fn echoes(target: SocketAddr, flows: u32) -> Result<BTreeMap<String, u32>> {
    let mut by_backend = BTreeMap::new();
    for flow in 0..flows {
        let name = echo(target, &format!("datagram {flow}"))
            .with_context(|| format!("datagram {flow} of {flows}"))?;
        *by_backend.entry(name).or_default() += 1;
    }
    Ok(by_backend)
}

/// Sends one datagram and returns the name of the backend that echoed it.
fn echo(target: SocketAddr, text: &str) -> Result<String> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // A connected socket takes answers from the VIP only.
    socket.connect(target)?;
    socket.send(text.as_bytes())?;
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).context("wait for the echo")?;
    let answer = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
    match answer.split_once(' ') {
        Some((name, echoed)) if echoed == text => Ok(name.to_owned()),
        _ => bail!("wrong echo: {answer:?}"),
    }
}
