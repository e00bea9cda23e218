//! The program that traces: over maps of its own, or over those of a running daemon.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    path::Path,
    time::Instant,
};

use anyhow::Context as _;
use lb_common::{
    packet::{HEADROOM, HostPacket},
    pipeline,
    reason::Reason,
    tables::Interface,
};
use serde::{Serialize, Serializer};

use super::frame::hex;
use crate::{
    announce::{Commands, Owned, on},
    api::Status,
    config::Config,
    dataplane::{
        DataPlane as _,
        apply::apply,
        bpf::{Action, BpfDataPlane, Trace},
        memory::Memory,
    },
    interfaces, lists,
    model::{
        ids::Ids,
        ip_address,
        next_hop::Port,
        plan::Held,
        seed::Keys,
        wanted::{Inputs, Standing, Wanted},
    },
};

/// The interface by which packets come in a private copy: the kernel's test run takes the loopback.
const INGRESS: u32 = 1;

/// MAC address of weir's interface in a trace against a configuration: what packets leave from.
pub const WEIR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// MAC address that packets made from a 5-tuple come from.
pub const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

/// The shortest frame that the kernel's test run takes.
const MIN_FRAME: usize = 14;

/// Longest frame that IPv4 and two VLAN tags allow; the kernel's test run takes a little more.
const MAX_FRAME: usize = 22 + 65_535;

/// Runs packets through the program, one after the other.
pub struct Tracer {
    plane: BpfDataPlane,
    vips: BTreeMap<u32, String>,
    backends: BTreeMap<u16, IpAddr>,
    unresolved: Vec<Unresolved>,
}

/// A backend that no packet can reach, since its MAC address is not known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unresolved {
    /// Name of its VIP.
    pub vip: String,
    /// Its address.
    pub backend: IpAddr,
}

/// What the program did with a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Sent out of the interface by which it came.
    Tx,
    /// Sent out of another interface.
    Redirect,
    /// Handed to the kernel.
    Pass,
    /// Thrown away.
    Drop,
    /// The program failed.
    Aborted,
}

impl From<Action> for Verdict {
    fn from(action: Action) -> Self {
        match action {
            Action::Tx => Self::Tx,
            Action::Redirect => Self::Redirect,
            Action::Pass => Self::Pass,
            Action::Drop => Self::Drop,
            Action::Aborted => Self::Aborted,
        }
    }
}

impl Verdict {
    /// Whether the packet was sent.
    #[must_use]
    pub const fn has_left(self) -> bool {
        matches!(self, Self::Tx | Self::Redirect)
    }

    /// What it means, in words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Tx => "sent out of the interface by which it came",
            Self::Redirect => "sent out of another interface",
            Self::Pass => "handed to the kernel, untouched",
            Self::Drop => "thrown away",
            Self::Aborted => "the program failed: a defect, please report it",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tx => "tx",
            Self::Redirect => "redirect",
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Aborted => "aborted",
        })
    }
}

/// What became of a packet. As JSON, one line of `weir trace -o json`: field names and order are stable.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Traced {
    /// Its place in the input, from 0.
    pub index: usize,
    /// What the program did with it.
    pub verdict: Verdict,
    /// Name of the VIP that it was for.
    pub vip: Option<String>,
    /// Address of the backend that was chosen.
    pub backend: Option<String>,
    /// The slot that its flow hashed to.
    pub slot: Option<u32>,
    /// Why.
    #[serde(serialize_with = "reason_name")]
    pub reason: Reason,
    /// The packet as it left, or as the kernel gets it; `None` where there is none any more.
    #[serde(serialize_with = "hex_digits")]
    pub packet: Option<Vec<u8>>,
}

impl Tracer {
    /// A private copy of program and maps that holds a configuration; attached to nothing.
    ///
    /// Backends with a `mac` are reached by the interface that packets come by; the others are unresolved.
    ///
    /// # Errors
    /// Where the kernel refuses, or the configuration does not fit into the maps.
    pub fn private(config: &Config) -> anyhow::Result<Self> {
        let mut plane = BpfDataPlane::tracer().context(LOADING)?;
        let keys = Keys::derive(config.node.seed.expose());
        let announcements = on::announcements(
            (config, config.vips.len()),
            &Commands::default(),
            &Owned::default(),
            &BTreeSet::new(),
            Instant::now(),
        );
        let standing = Standing {
            silent: on::silent(&announcements),
            ..Standing::default()
        };
        let inputs = Inputs {
            config,
            keys: &keys,
            ports: &[Port {
                ifindex: INGRESS,
                mac: WEIR_MAC,
            }],
            next_hops: &BTreeMap::new(),
            locals: &BTreeSet::new(),
            standing: &standing,
            cpus: plane.cpus(),
        };
        let (mut held, mut ids) = (Held::default(), Ids::default());
        let wanted = Wanted::new(&inputs, &held, &mut ids)?;
        apply(&mut plane, &mut held, &wanted, &mut ids, "trace")?;
        lists::writer::load(&mut *plane.list_plane()?, &wanted.listed)?;
        let interface = Interface {
            mac: WEIR_MAC,
            ..Interface::default()
        };
        plane.set_interface(INGRESS, &interface)?;
        let mut tracer = Self {
            plane,
            vips: BTreeMap::new(),
            backends: BTreeMap::new(),
            unresolved: Vec::new(),
        };
        for vip in wanted.vips {
            for backend in &vip.backends {
                tracer.backends.insert(backend.id, backend.address);
                if !backend.entry.is_resolved() {
                    tracer.unresolved.push(Unresolved {
                        vip: vip.name.clone(),
                        backend: backend.address,
                    });
                }
            }
            tracer.vips.insert(vip.entry.id, vip.name);
        }
        Ok(tracer)
    }

    /// The program over the maps that the daemon pinned below `pin_path`; nothing is written to them.
    ///
    /// Names are those of `status`; without it VIPs have numbers. Packets come by `interface`, of the network namespace
    /// that this runs in.
    ///
    /// # Errors
    /// Where nothing is pinned there, there is no such interface, or the kernel refuses.
    pub fn live(pin_path: &Path, status: Option<&Status>, interface: &str) -> anyhow::Result<Self> {
        let ingress = interfaces::index(interface)
            .context("a trace against the running daemon runs in the daemon's network namespace")?;
        let plane = BpfDataPlane::live_tracer(pin_path, ingress).context(LOADING)?;
        let mut vips = BTreeMap::new();
        let mut backends = BTreeMap::new();
        if let Some(status) = status {
            for vip in &status.vips {
                vips.insert(vip.id, vip.name.clone());
                backends.extend(vip.backends.iter().map(|b| (b.id, b.address)));
            }
        } else {
            let held = plane.backends()?;
            backends.extend(held.iter().map(|(id, b)| (*id, ip_address(b.address))));
        }
        Ok(Self {
            plane,
            vips,
            backends,
            unresolved: Vec::new(),
        })
    }

    /// The configuration's backends that no packet can reach.
    #[must_use]
    pub fn unresolved(&self) -> &[Unresolved] {
        &self.unresolved
    }

    /// Runs a frame through the program.
    ///
    /// # Errors
    /// Where the kernel takes no frame of this length.
    pub fn trace(&mut self, index: usize, frame: &[u8]) -> anyhow::Result<Traced> {
        if frame.len() < MIN_FRAME {
            return on_host(index, frame);
        }
        if frame.len() > MAX_FRAME {
            anyhow::bail!(
                "packet {index} has {} bytes, more than any IP packet ({MAX_FRAME}): the kernel runs none so large",
                frame.len()
            );
        }
        let Trace {
            run,
            reason,
            vip,
            slot,
            backend,
        } = self.plane.trace(frame).with_context(|| {
            format!(
                "packet {index} ({} bytes): the kernel's test run refused it",
                frame.len()
            )
        })?;
        let verdict = Verdict::from(run.action);
        let packet = match verdict {
            Verdict::Tx | Verdict::Redirect => Some(run.packet),
            Verdict::Pass => Some(frame.to_vec()),
            Verdict::Drop | Verdict::Aborted => None,
        };
        Ok(Traced {
            index,
            verdict,
            vip: vip.map(|id| name(&self.vips, id)),
            backend: backend.map(|id| name(&self.backends, id)),
            slot,
            reason,
            packet,
        })
    }
}

const LOADING: &str =
    "loading the program that traces (it runs in the kernel: start `weir trace` as root)";

/// What is known under an id, or the id itself.
fn name<K: Copy + Ord + fmt::Display, V: fmt::Display>(names: &BTreeMap<K, V>, id: K) -> String {
    names
        .get(&id)
        .map_or_else(|| format!("#{id}"), ToString::to_string)
}

/// A frame without a whole Ethernet header, which the kernel's test run refuses: the same pipeline on the host.
/// No such frame gets as far as the maps, so that empty ones do.
fn on_host(index: usize, frame: &[u8]) -> anyhow::Result<Traced> {
    let mut buffer = vec![0; HEADROOM.saturating_add(frame.len())];
    let mut packet = HostPacket::new(&mut buffer, frame).context("a buffer for the packet")?;
    let outcome = pipeline::run(&mut packet, &Memory::default(), INGRESS);
    let verdict = match outcome.verdict() {
        lb_common::reason::Verdict::Pass => Verdict::Pass,
        lb_common::reason::Verdict::Drop => Verdict::Drop,
        lb_common::reason::Verdict::Tx | lb_common::reason::Verdict::Forward => Verdict::Tx,
    };
    Ok(Traced {
        index,
        verdict,
        vip: None,
        backend: None,
        slot: None,
        reason: outcome.reason,
        packet: (verdict != Verdict::Drop).then(|| packet.bytes().to_vec()),
    })
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn reason_name<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.as_str())
}

#[expect(clippy::ref_option, reason = "serde's form")]
fn hex_digits<S: Serializer>(packet: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    match packet {
        Some(packet) => serializer.serialize_str(&hex(packet)),
        None => serializer.serialize_none(),
    }
}
