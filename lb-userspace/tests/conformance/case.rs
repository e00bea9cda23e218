//! A case: packets in, verdict, reason and packet out.

use std::fmt::Write as _;

use lb_common::reason::Reason;
use lb_userspace::dataplane::{DataPlane as _, bpf::Action};

use super::{
    frame::{Tag, frame, sent},
    ip::{Family, Host, Ip},
    planes::{Judged, World},
    world::{flow_hash, service},
};

/// One packet in, and what must become of it.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// What came before, for its state; nothing is asked of it.
    pub(crate) before: Vec<Vec<u8>>,
    pub(crate) frame: Vec<u8>,
    pub(crate) action: Action,
    pub(crate) reason: Reason,
    pub(crate) out: Vec<u8>,
}

impl Case {
    pub(crate) fn new(
        name: impl Into<String>,
        (action, reason): (Action, Reason),
        frame: Vec<u8>,
        out: Vec<u8>,
    ) -> Self {
        Self {
            name: name.into(),
            before: Vec::new(),
            frame,
            action,
            reason,
            out,
        }
    }

    /// The packet comes after these.
    pub(crate) fn after(self, before: Vec<Vec<u8>>) -> Self {
        Self { before, ..self }
    }

    /// Runs the case on the host and in the kernel.
    pub(crate) fn check(&self, world: &mut World) {
        for frame in &self.before {
            let (_, host) = world.on_host(frame);
            if let Some(kernel) = world.in_kernel(frame) {
                assert_eq!(kernel, host, "{}: a packet before", self.name);
            }
        }
        let (outcome, judged) = world.on_host(&self.frame);
        self.compare("host", outcome.reason, &judged);
        let before = world.dropped(outcome.vip);
        if let Some((reason, judged)) = world.counted_in_kernel(&self.frame) {
            self.compare("kernel", reason, &judged);
        }
        // A drop is the VIP's too, and only that; on the host as in the kernel.
        if let Some((mut wanted, after)) = before.zip(world.dropped(outcome.vip)) {
            if let Some(index) = self.reason.drop_index() {
                wanted.add(index);
            }
            assert_eq!(after, wanted, "{}: drops of the VIP (kernel)", self.name);
            let host = world.host.vip_drops(outcome.vip).unwrap();
            assert_eq!(host, after, "{}: drops of the VIP (host)", self.name);
        }
    }

    fn compare(&self, place: &str, reason: Reason, judged: &Judged) {
        let name = &self.name;
        assert_eq!(reason, self.reason, "{name}: reason ({place})");
        assert_eq!(judged.action, self.action, "{name}: verdict ({place})");
        assert!(
            judged.packet == self.out,
            "{name}: packet out ({place})\n  in       {}\n  expected {}\n  got      {}",
            hex(&self.frame),
            hex(&self.out),
            hex(&judged.packet)
        );
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// The kernel gets the frame as it came.
pub(crate) fn passes(name: impl Into<String>, reason: Reason, frame: Vec<u8>) -> Case {
    Case::new(name, (Action::Pass, reason), frame.clone(), frame)
}

/// The frame is thrown away.
pub(crate) fn drops(name: impl Into<String>, reason: Reason, frame: Vec<u8>) -> Case {
    Case::new(name, (Action::Drop, reason), frame.clone(), frame)
}

/// weir answers by itself.
pub(crate) fn answers(
    name: impl Into<String>,
    reason: Reason,
    frame: Vec<u8>,
    answer: Vec<u8>,
) -> Case {
    Case::new(name, (Action::Tx, reason), frame, answer)
}

/// The packet, in a frame with `tags`, goes with these tags to the one backend that serves `port`.
pub(crate) fn forwards(name: impl Into<String>, tags: &[Tag], ip: &Ip, port: u16) -> Case {
    let service = service(family(ip), ip.protocol, port, 0);
    let out = sent(&service, tags, ip, flow_hash(ip, port));
    let verdict = (Action::Tx, Reason::Forwarded);
    Case::new(name, verdict, frame(tags, ip), out)
}

pub(crate) fn family(ip: &Ip) -> Family {
    match ip.destination {
        Host::V4(_) => Family::V4,
        Host::V6(_) => Family::V6,
    }
}
