//! What a node tells the others of itself.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use lb_common::vip::MAX_VIPS;

use super::LARGEST;
use crate::config::{Affinity, Protocol};

/// What a node tells the others of itself. It holds no secret: of the seed only what tables show of it, which the metrics
/// tell as well.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Report {
    /// The node's name.
    pub node: String,
    /// Drawn at every start of a daemon, 16 hexadecimal digits: tells a node that hears itself, and two of one name.
    pub instance: String,
    /// The daemon's version.
    pub version: String,
    /// Grows with every start, configuration and command; each node counts its own.
    pub generation: u64,
    /// Its VIPs, in the order of what clients dial.
    pub vips: Vec<VipReport>,
}

/// What decides which backend a flow of a VIP goes to.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct VipReport {
    /// Its name, which decides nothing.
    pub name: String,
    /// What clients dial.
    pub address: IpAddr,
    /// What clients dial; 0 for every port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// What is hashed of a flow.
    pub affinity: Affinity,
    /// CRC32 of the lookup table, 8 hexadecimal digits.
    pub table_digest: String,
    /// Whether all of its slots are Stable: else flows may be remembered by one node alone (docs/consistency.md).
    pub stable: bool,
}

/// What clients dial: by it the VIPs of several nodes are the same one.
pub(super) type Key = (IpAddr, u16, Protocol);

impl VipReport {
    pub(super) const fn key(&self) -> Key {
        (self.address, self.port, self.protocol)
    }
}

/// A report that no weir makes.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// It is too large.
    #[error("the report is larger than {LARGEST} bytes")]
    Large,
    /// It is not the JSON of a report.
    #[error("the answer is not the report of a weir (line {0}, column {1})")]
    Json(usize, usize),
    /// A name or a number in it is none.
    #[error("the report has {0} that no weir has")]
    Odd(&'static str),
}

impl Report {
    /// The report as JSON, and a tag that is another for another report.
    #[must_use]
    pub fn to_json(&self) -> (String, String) {
        // Strings and numbers always can be written.
        let json = serde_json::to_string(self).unwrap_or_default();
        let hash = Sha256::digest(json.as_bytes());
        let tag = hash.iter().take(8).map(|byte| format!("{byte:02x}"));
        let tag = tag.collect();
        (json, tag)
    }

    /// Reads a report. Others may tell what they like, and it is shown on terminals: it must look like one of weir's.
    ///
    /// # Errors
    /// [`Malformed`]
    pub fn from_json(json: &[u8]) -> Result<Self, Malformed> {
        if json.len() > LARGEST {
            return Err(Malformed::Large);
        }
        // The error's text would have what the other told.
        let report: Self = serde_json::from_slice(json)
            .map_err(|error| Malformed::Json(error.line(), error.column()))?;
        if !is_plain(&report.node) {
            return Err(Malformed::Odd("a name"));
        }
        if !is_hexadecimal(&report.instance, 16) {
            return Err(Malformed::Odd("an instance"));
        }
        if !is_plain(&report.version) {
            return Err(Malformed::Odd("a version"));
        }
        if report.vips.len() > MAX_VIPS {
            return Err(Malformed::Odd("a number of VIPs"));
        }
        // Reports are compared in one walk over all of them, which rests on this.
        if !report.vips.is_sorted_by(|one, next| one.key() < next.key()) {
            return Err(Malformed::Odd("an order of VIPs"));
        }
        if report.vips.iter().any(|vip| !is_plain(&vip.name)) {
            return Err(Malformed::Odd("a VIP's name"));
        }
        let is_digest = |vip: &VipReport| is_hexadecimal(&vip.table_digest, 8);
        if !report.vips.iter().all(is_digest) {
            return Err(Malformed::Odd("a table's digest"));
        }
        Ok(report)
    }
}

/// A name as weir takes them.
fn is_plain(text: &str) -> bool {
    (1..=253).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic())
}

pub(super) fn is_hexadecimal(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            node: "lb-1".to_owned(),
            instance: "0123456789abcdef".to_owned(),
            version: "0.1.0".to_owned(),
            generation: 7,
            vips: vec![VipReport {
                name: "web".to_owned(),
                address: "203.0.113.10".parse().unwrap(),
                port: 443,
                protocol: Protocol::Tcp,
                affinity: Affinity::Flow,
                table_digest: "0badcaf0".to_owned(),
                stable: true,
            }],
        }
    }

    /// Fleets mix versions of weir while they are upgraded.
    #[test]
    fn the_form_is_what_other_versions_read() {
        let (json, tag) = report().to_json();
        assert_eq!(
            json,
            r#"{"node":"lb-1","instance":"0123456789abcdef","version":"0.1.0","generation":7,"vips":[{"name":"web","address":"203.0.113.10","port":443,"protocol":"tcp","affinity":"flow","table_digest":"0badcaf0","stable":true}]}"#
        );
        assert_eq!(Report::from_json(json.as_bytes()), Ok(report()));
        // A later version may tell more.
        let more = json.replacen('{', r#"{"more":1,"#, 1);
        assert_eq!(Report::from_json(more.as_bytes()), Ok(report()));
        let other = Report {
            generation: 8,
            ..report()
        };
        assert_ne!(other.to_json().1, tag);
        assert_eq!(report().to_json().1, tag);
    }

    #[test]
    fn as_many_vips_as_there_can_be_are_read_and_no_more() {
        let mut report = report();
        let vip = VipReport {
            name: "x".repeat(63),
            address: "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap(),
            affinity: Affinity::Source,
            stable: false,
            ..report.vips[0].clone()
        };
        let vips = (10_000..).map(|port| VipReport {
            port,
            ..vip.clone()
        });
        report.vips = vips.take(MAX_VIPS).collect();
        let (json, _) = report.to_json();
        assert!(Report::from_json(json.as_bytes()).is_ok(), "{}", json.len());
        report.vips.push(VipReport {
            port: 65_535,
            ..vip
        });
        let (json, _) = report.to_json();
        assert_eq!(
            Report::from_json(json.as_bytes()),
            Err(Malformed::Odd("a number of VIPs"))
        );
    }

    #[test]
    fn what_no_weir_tells_is_refused() {
        let refused = |change: &dyn Fn(&mut Report)| {
            let mut report = report();
            change(&mut report);
            Report::from_json(report.to_json().0.as_bytes()).unwrap_err()
        };
        let escape = "\u{1b}[2J";
        for (change, what) in [
            (
                &(|r: &mut Report| r.node = escape.to_owned()) as &dyn Fn(&mut Report),
                "a name",
            ),
            (&|r| r.node = String::new(), "a name"),
            (&|r| r.node = "x".repeat(254), "a name"),
            (&|r| r.instance = "lb-1".to_owned(), "an instance"),
            (&|r| r.version = escape.to_owned(), "a version"),
            (&|r| r.vips[0].name = escape.to_owned(), "a VIP's name"),
            (
                &|r| r.vips = [r.vips.clone(), r.vips.clone()].concat(),
                "an order of VIPs",
            ),
            (
                &|r| {
                    let mut before = r.vips[0].clone();
                    before.port = 80;
                    r.vips.push(before);
                },
                "an order of VIPs",
            ),
            (
                &|r| r.vips[0].table_digest = "0badcafe0".to_owned(),
                "a table's digest",
            ),
            (
                &|r| r.vips[0].table_digest = "\u{1b}1234567".to_owned(),
                "a table's digest",
            ),
        ] {
            assert_eq!(refused(change), Malformed::Odd(what));
        }
        assert_eq!(Report::from_json(b"<html>"), Err(Malformed::Json(1, 1)));
        let large = vec![b' '; LARGEST + 1];
        assert_eq!(Report::from_json(&large), Err(Malformed::Large));
    }
}
