//! What weir calls its things in the kernel: derived from where its pins are, so that two daemons in one network
//! namespace do not meet.

use std::path::Path;

/// Half of every mark that is one daemon's own: a digit that few others use, and 12 bits of its pins' place.
const OWN: u16 = 0x5000;
const PLACE: u16 = 0x0fff;

/// Names and numbers of one daemon's path for health checks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Names {
    tag: u16,
    /// The end of the veth that probes leave by.
    pub(super) near: String,
    /// The other end.
    pub(super) far: String,
    /// What both interfaces say of whose they are.
    pub(super) alias: String,
}

impl Names {
    /// The names of the daemon whose pins lie there.
    pub(super) fn of(pin_path: &Path) -> Self {
        let place = crc32fast::hash(pin_path.as_os_str().as_encoded_bytes()) as u16;
        let tag = OWN | (place & PLACE);
        Self {
            tag,
            near: format!("weir-dsr0-{tag:04x}"),
            far: format!("weir-dsr1-{tag:04x}"),
            alias: format!("weir's health checks, pins at {}", pin_path.display()),
        }
    }

    /// The mark of packets for a backend.
    pub(super) fn mark(&self, backend: u16) -> u32 {
        self.table() | u32::from(backend)
    }

    /// What tells the daemon's own marks from others'.
    pub(super) const MASK: u32 = 0xffff_0000;

    /// The mark without a backend, and the number of the routing table.
    pub(super) fn table(&self) -> u32 {
        u32::from(self.tag) << 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ_from_place_to_place() {
        let usual = Names::of(Path::new("/sys/fs/bpf/weir"));
        let other = Names::of(Path::new("/sys/fs/bpf/weir-2"));
        // IFNAMSIZ holds 15 characters.
        assert!(usual.near.len() <= 15 && usual.near != usual.far);
        assert!(usual.near != other.near && usual.table() != other.table());
        assert_eq!(usual.mark(0x1234), usual.table() + 0x1234);
        assert_eq!(usual.mark(0xffff) & Names::MASK, usual.table());
        assert_eq!(usual.table() >> 28, 5);
    }
}
