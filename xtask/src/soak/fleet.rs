//! The load balancers of a soak, one or two, and what is done to them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::{
    change::{BACKENDS, Backends, Change},
    death::Death,
    findings::Counters,
    traffic::Traffic,
};
use crate::lab::{
    Backend, Ecmp, FlowTimes, Host, Lab, Observer, Plan, Process, Protocol, SlotsStatus, Topology,
    VIP_V4, Vip, Weir, WeirConfig, forget_pins, until,
};
use crate::traffic::lasting::now_ms;

const VIP: &str = "lines";
/// Connections speak every two seconds at the latest.
const TIMES: FlowTimes = FlowTimes {
    move_window: 5,
    flow_idle: 10,
};
/// Two holds and a window, on a busy machine.
const MOVES: Duration = Duration::from_mins(1);
/// The sweeper takes a pin for idle a minute after the packets' way does.
const STABLE: Duration = Duration::from_mins(3);
/// A backend that refuses connections fails after four checks, a second apart.
const VERDICT: Duration = Duration::from_mins(1);
/// How the router shares flows, one after the other.
const SPREADS: [[u8; 2]; 5] = [[1, 3], [3, 1], [0, 1], [1, 0], [1, 1]];

/// The load balancers with everything around them.
pub(super) struct Fleet {
    // Fields are dropped in order: the lab, which kills what still runs, comes last.
    nodes: Vec<Node>,
    router: Option<Ecmp>,
    pub(super) topology: Topology,
    /// What answers the backends' health checks.
    checked: Vec<Process>,
    _second: Option<(Host, Observer)>,
    lab: Lab,
}

struct Node {
    weir: Weir,
    config: WeirConfig,
}

impl Fleet {
    pub(super) fn start(nodes: u8, backends: &Backends) -> Result<Self> {
        let lab = Lab::new()?;
        let plan = Plan {
            near: u8::try_from(BACKENDS)?,
            ..Plan::default()
        };
        let topology = Topology::build(&lab, &plan)?;
        let hosts = topology.backends.iter();
        let checked = hosts.map(Topology::answer_checks).collect::<Result<_>>()?;
        let second = (nodes > 1).then(|| topology.second_lb(&lab)).transpose()?;
        let hosts = [Some(&topology.lb), second.as_ref().map(|(host, _)| host)];
        let mut running = Vec::new();
        let mut addresses = Vec::new();
        for (index, host) in hosts.into_iter().flatten().enumerate() {
            let config = config(&topology, &format!("lb-{}", index + 1), backends);
            let weir = Weir::start(&lab, &host.namespace, &config)?;
            running.push(Node { weir, config });
            addresses.push(host.v4);
        }
        let router = (nodes > 1)
            .then(|| Ecmp::create(&lab, &topology, addresses))
            .transpose()?;
        let fleet = Self {
            nodes: running,
            router,
            topology,
            checked,
            _second: second,
            lab,
        };
        for index in backends.configured() {
            fleet.wait_for_verdict(index, true)?;
        }
        Ok(fleet)
    }

    /// Does a change on every node; `backends` is what is to be after it. A kill meets one of them. Returns who died of it.
    pub(super) fn make(
        &mut self,
        change: Change,
        backends: &Backends,
        random: &mut fastrand::Rng,
    ) -> Result<Option<Death>> {
        if let Change::Flap(backend) = change {
            return self.flap(backend).map(Some);
        }
        let unlucky = random.usize(..self.nodes.len());
        let by_signal = random.bool();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let address = |backend: usize| -> Result<String> {
                let host = self.topology.backends.get(backend);
                Ok(host.context("no such backend")?.v4.to_string())
            };
            match change {
                Change::Flap(_) => {}
                Change::Restart if index != unlucky => {}
                Change::Restart => {
                    node.weir.end_by(Signal::KILL)?;
                    node.weir.restart()?;
                }
                Change::Drain(backend) => {
                    node.weir.ask(&["drain", VIP, &address(backend)?])?;
                }
                Change::Undrain(backend) => {
                    node.weir.ask(&["undrain", VIP, &address(backend)?])?;
                }
                Change::Add(..) | Change::Remove(_) | Change::Reweight(..) | Change::Reload => {
                    node.config = config(&self.topology, &node.config.node, backends);
                    node.weir.rewrite(&self.lab, &node.config)?;
                    if by_signal {
                        node.weir.reload()?;
                    } else {
                        node.weir.ask(&["apply"])?;
                    }
                }
            }
        }
        Ok(None)
    }

    /// Lets a backend fail its checks until every node has taken it out, and pass them until every node has it back. Its server
    /// serves on all the time.
    fn flap(&mut self, backend: usize) -> Result<Death> {
        let from_ms = now_ms();
        self.checks_of(backend)?.end_by(Signal::KILL, MOVES)?;
        self.wait_for_verdict(backend, false)?;
        let until_ms = now_ms();
        let host = self.host(backend)?;
        let name = host.namespace.host().to_owned();
        let answering = Topology::answer_checks(host)?;
        *self.checks_of(backend)? = answering;
        self.wait_for_verdict(backend, true)?;
        Ok(Death {
            backend: name,
            from_ms,
            until_ms,
        })
    }

    fn checks_of(&mut self, backend: usize) -> Result<&mut Process> {
        self.checked.get_mut(backend).context("no such backend")
    }

    fn host(&self, backend: usize) -> Result<&Host> {
        let host = self.topology.backends.get(backend);
        host.context("no such backend")
    }

    /// Waits until every node knows whether a backend is well, and has it in its table or not.
    fn wait_for_verdict(&self, backend: usize, is_well: bool) -> Result<()> {
        let address = self.host(backend)?.v4;
        for node in &self.nodes {
            let what = format!(
                "{} to find that {address} is well: {is_well}",
                node.config.node
            );
            until(&what, VERDICT, || {
                let status = node.weir.status()?;
                let mut found = status.vip(VIP)?.backends.iter();
                let found = found.find(|found| found.address == address);
                Ok(found.is_some_and(|found| {
                    found.healthy == Some(is_well) && (found.slots > 0) == is_well
                }))
            })?;
        }
        Ok(())
    }

    /// Makes every node forget the flows that it remembers, which breaks the rule that slots on the move are served by.
    pub(super) fn forget_pins(&self) -> Result<()> {
        for node in &self.nodes {
            let forgotten = forget_pins(&node.weir.pin_path())?;
            println!("    {} has forgotten {forgotten} flows", node.config.node);
        }
        Ok(())
    }

    /// Lets the router send open flows to other nodes, and every connection speak after each time.
    pub(super) fn rehash(&self, random: &mut fastrand::Rng, traffic: &mut Traffic) -> Result<()> {
        let Some(router) = &self.router else {
            return Ok(());
        };
        let mut spreads = SPREADS;
        random.shuffle(&mut spreads);
        for spread in spreads {
            router.spread(&spread)?;
            traffic.wait_for_a_round()?;
            println!(
                "    the router's weights are {spread:?}, {} broken",
                traffic.broken.len()
            );
        }
        Ok(())
    }

    /// Waits until no slot waits for time to pass: those with flows elsewhere stay Settling as long as these live.
    pub(super) fn wait_for_moves(&self) -> Result<()> {
        self.wait("the moves to end", MOVES, |slots| {
            slots.holding == 0 && slots.moving == 0
        })
    }

    /// Waits until every slot is Stable.
    pub(super) fn wait_until_stable(&self) -> Result<()> {
        self.wait("every slot to be Stable", STABLE, |slots| {
            slots.holding + slots.moving + slots.settling == 0
        })
    }

    fn wait(
        &self,
        what: &str,
        patience: Duration,
        is_so: impl Fn(&SlotsStatus) -> bool,
    ) -> Result<()> {
        for node in &self.nodes {
            let mut last = None;
            until(what, patience, || {
                let slots = node.weir.slots()?;
                last = Some(slots);
                Ok(is_so(&slots))
            })
            .with_context(|| format!("{}: {last:?}", node.config.node))?;
        }
        Ok(())
    }

    /// Returns whichever of these backends had most packets: one that serves.
    pub(super) fn busiest(&self, indexes: &[usize]) -> Result<usize> {
        let mut packets = vec![0; BACKENDS];
        for node in &self.nodes {
            let status = node.weir.status()?;
            for backend in &status.vip(VIP)?.backends {
                let hosts = self.topology.backends.iter().zip(&mut packets);
                for (_, sum) in hosts.filter(|(host, _)| host.v4 == backend.address) {
                    *sum += backend.packets;
                }
            }
        }
        let busiest = indexes.iter().max_by_key(|index| packets.get(**index));
        busiest.copied().context("no backend is in the config")
    }

    /// Kills a backend's server.
    pub(super) fn kill(&mut self, backend: usize) -> Result<Death> {
        let from_ms = now_ms();
        let server = self
            .topology
            .servers
            .get_mut(backend)
            .context("no such server")?;
        server.end_by(Signal::KILL, MOVES)?;
        Ok(Death {
            backend: self.host(backend)?.namespace.host().to_owned(),
            from_ms,
            until_ms: now_ms(),
        })
    }

    /// Returns what each node has counted, once nothing comes any more: two looks that agree.
    pub(super) fn counters(&self) -> Result<Vec<Counters>> {
        let look = |node: &Node| -> Result<Counters> {
            let status = node.weir.status()?;
            Ok(Counters {
                node: node.config.node.clone(),
                by_reason: status.sent_on(),
                by_vip: status.vips.iter().map(|vip| vip.packets).sum(),
            })
        };
        let mut counted = Vec::new();
        for node in &self.nodes {
            let mut last = look(node)?;
            until("the counters to stand still", MOVES, || {
                let now = look(node)?;
                let is_still = now.by_reason == last.by_reason && now.by_vip == last.by_vip;
                last = now;
                Ok(is_still)
            })?;
            counted.push(last);
        }
        Ok(counted)
    }

    /// Returns the digest of each node's lookup table.
    pub(super) fn digests(&self) -> Result<Vec<String>> {
        self.nodes
            .iter()
            .map(|node| Ok(node.weir.status()?.vip(VIP)?.table_digest.clone()))
            .collect()
    }

    /// Returns the digest of a daemon that has neither maps nor a state file to go on with. Ends the first node.
    pub(super) fn fresh_digest(&mut self, backends: &Backends) -> Result<String> {
        let node = self.nodes.first_mut().context("no node")?;
        ensure!(
            node.weir.terminate()?.success(),
            "the first node did not end well"
        );
        node.weir.detach()?;
        // What a command has drained has a weight of 0 here.
        let mut plain = backends.clone();
        for backend in plain.all.iter_mut().filter(|backend| backend.is_drained) {
            backend.weight = backend.weight.map(|_| 0);
        }
        let config = config(&self.topology, "fresh", &plain);
        let weir = Weir::start(&self.lab, &self.topology.lb.namespace, &config)?;
        Ok(weir.status()?.vip(VIP)?.table_digest.clone())
    }
}

fn config(topology: &Topology, node: &str, backends: &Backends) -> WeirConfig {
    let configured = topology.backends.iter().zip(backends.all);
    let backends = configured.filter_map(|(host, wanted)| {
        Some(Backend {
            address: host.v4,
            weight: wanted.weight?,
        })
    });
    let vip = Vip {
        name: VIP.to_owned(),
        address: VIP_V4,
        port: Topology::lasting(VIP_V4).port(),
        protocol: Protocol::Tcp,
        flows: Some(TIMES),
        checked: Some(Topology::checked()),
        backends: backends.collect(),
    };
    WeirConfig {
        node: node.to_owned(),
        vips: vec![vip],
        ..WeirConfig::for_topology(topology, &[])
    }
}
