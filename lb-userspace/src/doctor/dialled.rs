//! A VIP as somebody writes it.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use crate::config::Protocol;

/// What clients dial: `203.0.113.10`, `203.0.113.10:443`, `[2001:db8::10]:53/udp`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Dialled {
    /// The address.
    pub address: IpAddr,
    /// The port; `None` where nobody told it, 0 for every port.
    pub port: Option<u16>,
    /// The protocol.
    pub protocol: Protocol,
}

impl FromStr for Dialled {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (dialled, protocol) = match text.rsplit_once('/') {
            None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), Protocol::Tcp),
            Some((dialled, "udp")) => (dialled, Protocol::Udp),
            Some((_, other)) => return Err(format!("expected tcp or udp, found {other:?}")),
        };
        let (address, port) = if let Ok(address) = dialled.parse::<IpAddr>() {
            (address, None)
        } else if let Ok(socket) = dialled.parse::<SocketAddr>() {
            (socket.ip(), Some(socket.port()))
        } else {
            return Err(
                "expected an address, such as 203.0.113.10, 203.0.113.10:443 or [2001:db8::10]:53/udp"
                    .to_owned(),
            );
        };
        Ok(Self {
            address,
            port,
            protocol,
        })
    }
}

impl fmt::Display for Dialled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => write!(f, "{}", self.address),
            Some(port) => write!(
                f,
                "{}/{}",
                SocketAddr::new(self.address, port),
                self.protocol.as_str()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, shown) in [
            ("203.0.113.10", "203.0.113.10"),
            ("203.0.113.10:443", "203.0.113.10:443/tcp"),
            ("203.0.113.10:443/tcp", "203.0.113.10:443/tcp"),
            ("[2001:db8::10]:53/udp", "[2001:db8::10]:53/udp"),
            ("2001:db8::10", "2001:db8::10"),
        ] {
            assert_eq!(text.parse::<Dialled>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "web",
            "203.0.113.10:99999",
            "203.0.113.10/24",
            "203.0.113.10:443/sctp",
        ] {
            assert!(text.parse::<Dialled>().is_err(), "{text}");
        }
    }
}
