//! What clients, forgers and time do to a flow.

use super::*;

impl World {
    #[expect(clippy::too_many_lines, reason = "one event after the other")]
    pub(super) fn client_events(&self, flow: usize, events: &mut Vec<Event>) {
        let tracked = &self.flows[flow];
        // Packets: at once, or held up between slot and pins.
        let may_send = matches!(tracked.client, Client::Answered(_) | Client::Open(_));
        // A SYN is repeated after a second: the first is long through.
        let may_syn = !may_send && tracked.flying.is_none();
        for (is_syn, may) in [(true, may_syn), (false, may_send)] {
            if !may {
                continue;
            }
            let begin = |world: &mut Self| {
                let client = &mut world.flows[flow].client;
                if *client == Client::Idle {
                    *client = Client::Handshake(0);
                }
            };
            let name = if is_syn { "SYN" } else { "packet" };
            let mut before = self.clone();
            begin(&mut before);
            events.push(before.deliver(
                flow,
                is_syn,
                self.slot,
                &say!(self, "{name} of flow {flow}"),
            ));
            if self.scope.held_up && tracked.flying.is_none() && !self.slot.is_stable() {
                let text = say!(self, "{name} of flow {flow} reads {:?}", self.slot);
                events.push(self.event(text, |world| {
                    begin(world);
                    world.flows[flow].flying = Some(Flying {
                        is_syn,
                        slot: self.slot,
                    });
                }));
            }
        }
        if let Some(flying) = tracked.flying {
            let mut before = self.clone();
            before.flows[flow].flying = None;
            let text = say!(
                self,
                "held-up packet of flow {flow}, SYN: {}",
                flying.is_syn
            );
            events.push(before.deliver(flow, flying.is_syn, flying.slot, &text));
        }
        // The answer to a SYN arrives: the first one counts.
        if let Client::Handshake(half) = tracked.client {
            for backend in (1..=BACKENDS).filter(|backend| half & bit(*backend) != 0) {
                let text = say!(self, "flow {flow} opens with {backend}");
                events.push(self.event(text, |world| {
                    world.flows[flow].client = Client::Answered(backend);
                }));
            }
        }
        let is_handshake = tracked.flying.is_some_and(|flying| flying.is_syn)
            || !matches!(tracked.client, Client::Idle | Client::Open(_));
        if self.scope.forged && !is_handshake {
            // Somebody who sees the flow but not its sequence numbers. (During a handshake this can break it.)
            let forged = [SYN, ACK, FIN | ACK, RST];
            let known = if self.scope.fin { 4 } else { 2 };
            for control in forged.into_iter().take(known) {
                let mut pins = self.flows[flow].pins;
                let segment = Segment {
                    sequence: if control == SYN {
                        FORGED
                    } else {
                        FORGED ^ 0x4000_0000
                    },
                    control: u32::from(control),
                };
                self.route(flow, self.slot, segment, &mut pins);
                let text = say!(self, "forged packet of flow {flow}, flags {control}");
                events.push(self.event(text, |world| world.flows[flow].pins = pins));
            }
        }
        if let Client::Open(_) = tracked.client {
            for is_said in [false, true]
                .into_iter()
                .filter(|said| !said || self.scope.fin)
            {
                let mut pins = self.flows[flow].pins;
                if is_said {
                    let segment = Segment {
                        sequence: OWN + 1,
                        control: u32::from(FIN | ACK),
                    };
                    self.route(flow, self.slot, segment, &mut pins);
                }
                let text = say!(self, "flow {flow} closes, FIN: {is_said}");
                events.push(self.event(text, |world| {
                    world.flows[flow].client = Client::Idle;
                    world.flows[flow].flying = None;
                    world.flows[flow].pins = pins;
                }));
            }
        }
        // A pin of a flow that is gone, or one that is not looked at while the slot is Stable.
        if self.scope.expiry && (tracked.client == Client::Idle || self.slot.is_stable()) {
            for kind in Kind::ALL {
                if tracked.pins[kind as usize].is_some_and(|held| !held.is_expired) {
                    let text = say!(self, "{} pin of flow {flow} expires", kind.as_str());
                    events.push(self.event(text, |world| {
                        if let Some(held) = &mut world.flows[flow].pins[kind as usize] {
                            held.is_expired = true;
                        }
                    }));
                }
            }
        }
    }

    fn route(
        &self,
        flow: usize,
        slot: Slot,
        segment: Segment,
        pins: &mut [Option<Held>; 3],
    ) -> u16 {
        // A Stable slot asks nobody.
        if slot.is_stable() {
            return slot.current;
        }
        let view = View {
            pins: RefCell::new(*pins),
            world: self,
        };
        let backend = pin::route(&view, slot, &IDLE, (&key(flow), flow as u32), segment);
        *pins = view.pins.into_inner();
        backend
    }

    /// A packet of the client itself reaches a backend, by a slot that was read now or before.
    fn deliver(&self, flow: usize, is_syn: bool, slot: Slot, text: &str) -> Event {
        let mut after = self.clone();
        let segment = Segment {
            sequence: if is_syn { OWN } else { OWN + 1 },
            control: u32::from(if is_syn { SYN } else { ACK }),
        };
        let mut pins = self.flows[flow].pins;
        let backend = self.route(flow, slot, segment, &mut pins);
        let tracked = &mut after.flows[flow];
        tracked.pins = pins;
        tracked.is_heard |= slot == self.slot;
        let mut is_violation = false;
        match &mut tracked.client {
            Client::Handshake(half) if is_syn && self.is_alive(backend) => *half |= bit(backend),
            Client::Answered(own) | Client::Open(own) if !is_syn => {
                is_violation = *own != backend;
                tracked.client = Client::Open(backend);
            }
            // A SYN that comes late does no harm by itself.
            _ => {}
        }
        Event {
            text: say!(self, "{text} goes to {backend}"),
            after,
            is_violation,
        }
    }
}
