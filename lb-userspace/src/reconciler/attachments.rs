//! The program on the interfaces of the configuration: put there at the start, again where one has come back under
//! another number, and tried again where something was in the way that has gone.

use std::collections::BTreeMap;

use crate::{
    api::{InterfaceState, InterfaceStatus, What},
    config::XdpMode,
    dataplane::DataPlane,
    model::attached::{AttachMode, Refused},
    neighbours::Link,
};

/// How each interface stands, by name.
#[derive(Debug, Default)]
pub(super) struct Attachments {
    by_name: BTreeMap<String, Attachment>,
}

/// How an interface stands.
#[derive(Clone, Debug, PartialEq)]
enum Attachment {
    /// There is none of that name.
    Absent,
    /// The program is on it.
    Attached {
        ifindex: u32,
        mode: AttachMode,
        /// Whether the network has told of it since: what it told before counts for nothing.
        is_seen: bool,
    },
    /// It is not, and this is why. Tried again when the interface is not what it was.
    Refused {
        ifindex: u32,
        link: Link,
        why: Refused,
    },
}

impl Attachments {
    /// Puts the program on these interfaces, as far as it is not there. Returns what to tell of it.
    pub(super) fn follow<D: DataPlane>(
        &mut self,
        names: &[String],
        mode: XdpMode,
        links: &BTreeMap<u32, Link>,
        plane: &mut D,
    ) -> anyhow::Result<Vec<What>> {
        let own = [Some(plane.program_id()?), plane.observer_id()];
        let mut told = Vec::new();
        for name in names {
            let before = self.by_name.get(name);
            let found = links.iter().find(|(_, link)| link.name == *name);
            let Some(now) = stand(name, mode, found, before, &own, plane) else {
                continue;
            };
            let is_news = before.map(Attachment::state) != Some(now.state());
            if is_news {
                told.push(now.tell(name));
            }
            self.by_name.insert(name.clone(), now);
        }
        Ok(told)
    }

    /// Takes the program off all interfaces but these.
    pub(super) fn retain<D: DataPlane>(
        &mut self,
        names: &[String],
        plane: &mut D,
    ) -> anyhow::Result<()> {
        let others = self.by_name.keys().filter(|name| !names.contains(name));
        for name in others.cloned().collect::<Vec<_>>() {
            plane.take_off(&name)?;
            self.by_name.remove(&name);
            tracing::info!(
                interface = name,
                "XDP program taken off: no longer configured"
            );
        }
        Ok(())
    }

    /// Whether the program is on some interface.
    pub(super) fn is_any(&self) -> bool {
        let mut all = self.by_name.values();
        all.any(|attachment| attachment.state() == InterfaceState::Attached)
    }

    /// Whether the program is on an interface.
    pub(super) fn is_attached(&self, name: &str) -> bool {
        let attachment = self.by_name.get(name);
        attachment.is_some_and(|attachment| attachment.state() == InterfaceState::Attached)
    }

    /// Why the program is not on an interface, if it is not.
    pub(super) fn problem(&self, name: &str) -> Option<String> {
        match self.by_name.get(name)? {
            Attachment::Attached { .. } => None,
            Attachment::Absent => Some(format!(
                "interface {name} is not there: the program is attached once it is"
            )),
            Attachment::Refused { why, .. } => Some(why.to_string()),
        }
    }

    /// How these interfaces stand.
    pub(super) fn status(&self, names: &[String]) -> Vec<InterfaceStatus> {
        let known = names.iter().filter_map(|name| {
            let attachment = self.by_name.get(name)?;
            let (ifindex, mode, foreign) = match attachment {
                Attachment::Absent => (None, None, None),
                Attachment::Attached { ifindex, mode, .. } => (Some(*ifindex), Some(*mode), None),
                Attachment::Refused { ifindex, why, .. } => match why {
                    Refused::Foreign { foreign, .. } => (Some(*ifindex), None, foreign.clone()),
                    Refused::Failed(_) => (Some(*ifindex), None, None),
                },
            };
            Some(InterfaceStatus {
                name: name.clone(),
                state: attachment.state(),
                ifindex,
                mode,
                foreign,
            })
        });
        known.collect()
    }
}

/// How an interface stands now, after an attempt to put the program on it where that is due; `None` where nothing is
/// new.
fn stand<D: DataPlane>(
    name: &str,
    mode: XdpMode,
    found: Option<(&u32, &Link)>,
    before: Option<&Attachment>,
    own: &[Option<u32>],
    plane: &mut D,
) -> Option<Attachment> {
    let Some((&ifindex, link)) = found else {
        return (before != Some(&Attachment::Absent)).then_some(Attachment::Absent);
    };
    match before {
        Some(&Attachment::Attached {
            ifindex: known,
            mode,
            is_seen,
        }) if known == ifindex => {
            let is_ours = link.xdp.is_some_and(|xdp| own.contains(&Some(xdp.program)));
            if is_ours && !is_seen {
                return Some(Attachment::Attached {
                    ifindex,
                    mode,
                    is_seen: true,
                });
            }
            // What it told before the program was attached shows none, or the one before.
            if is_ours || !is_seen {
                return None;
            }
            tracing::warn!(interface = name, "somebody took the XDP program off");
        }
        Some(Attachment::Refused {
            ifindex: known,
            link: then,
            ..
        }) if *known == ifindex && then == link => return None,
        _ => {}
    }
    Some(match plane.attach(name, mode, link.xdp) {
        Ok(mode) => Attachment::Attached {
            ifindex,
            mode,
            is_seen: false,
        },
        Err(why) => Attachment::Refused {
            ifindex,
            link: link.clone(),
            why,
        },
    })
}

impl Attachment {
    const fn state(&self) -> InterfaceState {
        match self {
            Self::Absent => InterfaceState::Absent,
            Self::Attached { .. } => InterfaceState::Attached,
            Self::Refused {
                why: Refused::Foreign { .. },
                ..
            } => InterfaceState::Foreign,
            Self::Refused { .. } => InterfaceState::Refused,
        }
    }

    /// Logs how an interface stands now, and makes the event of it.
    fn tell(&self, name: &str) -> What {
        match self {
            Self::Absent => {
                tracing::warn!(interface = name, "there is no such interface (any more)");
            }
            Self::Attached { ifindex, mode, .. } => {
                tracing::info!(
                    interface = name,
                    ifindex,
                    mode = mode.as_str(),
                    "forwarding"
                );
            }
            Self::Refused { why, .. } => {
                tracing::error!(interface = name, error = %why, "the program is not attached");
            }
        }
        What::Interface {
            interface: name.to_owned(),
            state: self.state(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dataplane::memory::Memory, model::attached::Xdp};

    fn links(ifindex: u32, program: Option<u32>) -> BTreeMap<u32, Link> {
        let xdp = program.map(|program| Xdp {
            program,
            mode: AttachMode::Native,
        });
        let link = Link {
            name: "eth0".to_owned(),
            mac: Some([2; 6]),
            mtu: 1500,
            vlan: None,
            carrier: Some(1),
            xdp,
        };
        [(ifindex, link)].into()
    }

    /// What is told when the network shows `links`.
    fn follow(
        attachments: &mut Attachments,
        plane: &mut Memory,
        links: &BTreeMap<u32, Link>,
    ) -> Vec<InterfaceState> {
        let names = ["eth0".to_owned()];
        let told = attachments.follow(&names, XdpMode::Auto, links, plane);
        told.unwrap()
            .into_iter()
            .map(|what| match what {
                What::Interface { state, .. } => state,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn an_interface_is_followed_by_its_name() {
        let (mut attachments, mut plane) = (Attachments::default(), Memory::default());
        let own = plane.program_id().unwrap();
        let mut see = |links| follow(&mut attachments, &mut plane, &links);
        assert_eq!(see(BTreeMap::new()), [InterfaceState::Absent]);
        assert_eq!(see(BTreeMap::new()), []);
        assert_eq!(see(links(7, None)), [InterfaceState::Attached]);
        // Told before the program was there: nothing to do.
        assert_eq!(see(links(7, None)), []);
        assert_eq!(see(links(7, Some(own))), []);
        assert_eq!(see(BTreeMap::new()), [InterfaceState::Absent]);
        assert_eq!(see(links(8, None)), [InterfaceState::Attached]);
        let names = ["eth0".to_owned()];
        assert_eq!(attachments.status(&names)[0].ifindex, Some(8));
        attachments.retain(&[], &mut plane).unwrap();
        assert!(plane.attached().is_empty() && !attachments.is_any());
    }

    #[test]
    fn a_program_that_somebody_took_off_is_put_there_again_and_one_in_the_way_is_waited_for() {
        let (mut attachments, mut plane) = (Attachments::default(), Memory::default());
        let own = plane.program_id().unwrap();
        follow(&mut attachments, &mut plane, &links(7, None));
        follow(&mut attachments, &mut plane, &links(7, Some(own)));
        plane.refuse(Some(Refused::Foreign {
            interface: "eth0".to_owned(),
            foreign: None,
        }));
        let foreign = links(7, Some(own + 1));
        let mut see = |plane: &mut Memory, links| follow(&mut attachments, plane, &links);
        assert_eq!(see(&mut plane, foreign.clone()), [InterfaceState::Foreign]);
        plane.refuse(None);
        // As long as it shows the same, no attempt is made.
        assert_eq!(see(&mut plane, foreign), []);
        assert_eq!(see(&mut plane, links(7, None)), [InterfaceState::Attached]);
    }
}
