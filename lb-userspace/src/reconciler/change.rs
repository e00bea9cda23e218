//! Changes of what is wanted: a configuration, a drain, a weight. Each is made as a whole or not at all, counts as
//! one generation, and is kept in the state file before it is told.

use std::{collections::BTreeSet, net::IpAddr, path::Path, sync::Arc, time::Duration};

use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use super::{Desired, Reconciler};
use crate::{
    api::{Actor, Apply, Base, Change, Changed, Refusal, Request, Target, What, within},
    dataplane::DataPlane,
    model::{
        blocks::Blocks,
        overrides::{BackendName, Override},
    },
    neighbours::{Problem, Snapshot},
    state::State,
};

/// How long a start or a new configuration waits for the backends' MAC addresses before packets may come.
const RESOLUTION_PATIENCE: Duration = Duration::from_secs(2);

/// Who waits for what becomes of a change.
pub(super) type Reply = oneshot::Sender<Result<Changed, Refusal>>;

/// A configuration whose new backends have been looked for in the network.
pub(super) struct Prepared {
    apply: Apply,
    by: Actor,
    /// The generation that it was held against.
    base: u64,
    /// Whether whoever asked insists on that generation.
    is_strict: bool,
    stage: Stage,
    reply: Reply,
}

/// How far a configuration is prepared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// It has just come.
    Begun,
    /// The network has been looked at, as new interfaces need it.
    Looked,
    /// The ways to its backends are known, or will not be.
    Resolved,
}

/// Waits until the ways to `addresses` are known, or the patience is over. Returns whether they are.
///
/// # Errors
/// Nobody watches the network any more.
pub(super) async fn resolved(
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    addresses: &BTreeSet<IpAddr>,
) -> anyhow::Result<bool> {
    let known = |snapshot: &Arc<Snapshot>| addresses.iter().all(|address| knows(snapshot, address));
    match timeout(RESOLUTION_PATIENCE, snapshots.wait_for(known)).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(_)) => anyhow::bail!("the task that watches neighbours has ended"),
        Err(_) => Ok(false),
    }
}

/// What must survive the daemon.
pub(super) fn state(generation: u64, desired: &Desired, fleet_nodes: u32) -> State {
    State {
        generation,
        fleet_nodes,
        overrides: desired.overrides().clone(),
        blocks: Blocks::clone(desired.blocks()),
        node_drained: desired.is_node_drained(),
        announce: desired.announce().clone(),
    }
}

pub(super) fn knows(snapshot: &Snapshot, address: &IpAddr) -> bool {
    let hop = snapshot.next_hops.get(address);
    // To this node itself there is no way, and none is needed.
    hop.is_some_and(|hop| hop.mac_destination.is_some())
        || snapshot.problems.get(address) == Some(&Problem::Local)
}

impl<D: DataPlane> Reconciler<D> {
    /// Does what is asked, and answers.
    pub(super) fn change(&mut self, request: Request, reply: Reply) {
        let Request { base, by, change } = request;
        if let Base::Generation(base) = base
            && let Err(refusal) = self.holds(base)
        {
            // Whoever asked may have given up waiting, here and below.
            drop(reply.send(Err(refusal)));
            return;
        }
        let result = match change {
            Change::Apply(apply) => {
                let prepared = Prepared {
                    apply: *apply,
                    by,
                    base: self.generation,
                    is_strict: base != Base::Any,
                    stage: Stage::Begun,
                    reply,
                };
                self.prepare(prepared);
                return;
            }
            Change::Drain(target, is_drained) => self.drain(&target, is_drained, by),
            Change::DrainNode(is_drained) => self.drain_node(is_drained, by),
            Change::Announce(vip, is_on) => self.announce_by_command(&vip, is_on, by),
            Change::Block(block) => self.block(&block, by),
            Change::Unblock(name) => self.unblock(&name, by),
            Change::Weight(vip, backend, weight) => {
                let name = BackendName { vip, backend };
                self.set_weight(&name, weight, by)
            }
        };
        drop(reply.send(result));
    }

    fn holds(&self, base: u64) -> Result<(), Refusal> {
        let now = self.generation;
        if base == now {
            Ok(())
        } else {
            Err(Refusal::Stale { base, now })
        }
    }

    /// Goes on with a configuration for which the network has been looked at.
    pub(super) fn go_on(&mut self, prepared: Prepared) {
        if prepared.stage == Stage::Resolved {
            self.commit(prepared);
        } else {
            self.prepare(prepared);
        }
    }

    /// Has the network look for the backends of a new configuration, so that none takes packets before its MAC
    /// address is known. The task goes on meanwhile, and [`Self::go_on`] follows.
    fn prepare(&mut self, mut prepared: Prepared) {
        let old = &self.desired.config.node.interfaces;
        let mut names = prepared.apply.config.node.interfaces.iter();
        if prepared.stage == Stage::Begun && names.any(|name| !old.contains(name)) {
            prepared.stage = Stage::Looked;
            let looked = self.neighbours.look();
            let sender = self.prepared.0.clone();
            tokio::spawn(async move {
                // One that takes too long is made up for by what is known.
                timeout(RESOLUTION_PATIENCE, looked).await.ok();
                // An error says that the daemon ends.
                sender.send(prepared).await.ok();
            });
            return;
        }
        let apply = &prepared.apply;
        if let Err(refusal) = self.check(apply) {
            self.refuse(prepared, refusal);
            return;
        }
        let next = self.desired.with_file(apply.config.clone());
        let mut watched = self.watched(&next);
        let new: BTreeSet<_> = {
            let snapshot = self.snapshots.borrow();
            let backends = self.watched_backends(&next).into_iter();
            backends
                .filter(|address| !knows(&snapshot, address))
                .collect()
        };
        if new.is_empty() {
            self.commit(prepared);
            return;
        }
        watched.extend(self.watched(&self.desired));
        self.neighbours.watch(watched);
        prepared.stage = Stage::Resolved;
        let snapshots = self.snapshots.clone();
        let sender = self.prepared.0.clone();
        tokio::spawn(async move {
            // Backends without a MAC address are named in the status; that nobody watches is found by `run`.
            resolved(snapshots, &new).await.ok();
            // An error says that the daemon ends.
            sender.send(prepared).await.ok();
        });
    }

    /// Puts a configuration in force.
    fn commit(&mut self, prepared: Prepared) {
        if prepared.base != self.generation {
            if prepared.is_strict {
                let refusal = Refusal::Stale {
                    base: prepared.base,
                    now: self.generation,
                };
                self.refuse(prepared, refusal);
                return;
            }
            if let Err(refusal) = self.check(&prepared.apply) {
                self.refuse(prepared, refusal);
                return;
            }
        }
        let next = self.desired.with_file(prepared.apply.config.clone());
        if let Err(refusal) = self.adopt(next, &prepared.by.to_string()) {
            self.refuse(prepared, refusal);
            return;
        }
        self.watch();
        self.cluster.follow(self.desired.read());
        self.follow_fleet();
        self.follow_agreement();
        self.watch_lists();
        let Prepared {
            apply, by, reply, ..
        } = prepared;
        self.generation += 1;
        self.save_state();
        let generation = self.generation;
        tracing::info!(
            cause = %by,
            generation,
            config = %apply.file.display(),
            vips = apply.config.vips.len(),
            "configuration applied"
        );
        self.origin.applied(apply.file.clone(), &by.to_string());
        self.events.tell(What::Applied {
            generation,
            by: by.to_string(),
            file: apply.file,
        });
        self.tell_changes();
        drop(reply.send(Ok(Changed {
            changed: true,
            generation,
        })));
    }

    /// Whether the running daemon can take a configuration at all.
    fn check(&self, apply: &Apply) -> Result<(), Refusal> {
        let running = self.desired.file();
        running.allows(&apply.config, &apply.text, &apply.file)?;
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let exists = |name: &str| snapshot.links.values().any(|link| link.name == name);
        running.finds_interfaces_of(&apply.config, &apply.text, &apply.file, exists)?;
        if !apply.force {
            running.has_seed_of(&apply.config, &apply.text, &apply.file)?;
        }
        if let Some(percent) = apply.max_move_percent {
            let preview = self.basis().preview(&apply.config);
            let preview = preview.map_err(|error| Refusal::Failed(error.to_string()))?;
            within(&preview, percent)?;
        }
        Ok(())
    }

    fn refuse(&mut self, prepared: Prepared, refusal: Refusal) {
        self.watch();
        let Prepared {
            apply, by, reply, ..
        } = prepared;
        self.tell_refused(by, &apply.file, &refusal);
        drop(reply.send(Err(refusal)));
    }

    fn drain(&mut self, target: &Target, is_drained: bool, by: Actor) -> Result<Changed, Refusal> {
        let names = self.names(target)?;
        let edit = |value: Override| Override {
            is_drained,
            ..value
        };
        self.edit(
            names,
            by,
            edit,
            |generation, by, BackendName { vip, backend }| {
                if is_drained {
                    What::Drained {
                        generation,
                        by,
                        vip,
                        backend,
                    }
                } else {
                    What::Undrained {
                        generation,
                        by,
                        vip,
                        backend,
                    }
                }
            },
        )
    }

    fn set_weight(
        &mut self,
        name: &BackendName,
        weight: Option<u16>,
        by: Actor,
    ) -> Result<Changed, Refusal> {
        let names = self.names(&Target::OfVip(name.vip.clone(), name.backend))?;
        let edit = |value: Override| Override { weight, ..value };
        self.edit(
            names,
            by,
            edit,
            |generation, by, BackendName { vip, backend }| What::Weight {
                generation,
                by,
                vip,
                backend,
                weight,
            },
        )
    }

    /// The backends that a command means: those of the configuration, and those of older commands.
    fn names(&self, target: &Target) -> Result<Vec<BackendName>, Refusal> {
        let overridden = self.desired.overrides().iter().map(|(name, _)| name);
        match target {
            Target::OfVip(vip, backend) => {
                let name = BackendName {
                    vip: vip.clone(),
                    backend: *backend,
                };
                if self.desired.has(&name) || overridden.into_iter().any(|known| *known == name) {
                    return Ok(vec![name]);
                }
                let is_vip = self.desired.file().vips.iter().any(|v| v.name == *vip);
                Err(Refusal::Unknown(if is_vip {
                    format!(
                        "VIP {vip} has no backend {backend}: `weir vip show {vip}` lists those that it has"
                    )
                } else {
                    format!("there is no VIP {vip}: `weir vip list` lists those that there are")
                }))
            }
            Target::OfAll(address) => {
                let of_file = self.desired.file().vips.iter().map(|vip| BackendName {
                    vip: vip.name.clone(),
                    backend: *address,
                });
                let mut names: BTreeSet<_> =
                    of_file.filter(|name| self.desired.has(name)).collect();
                names.extend(overridden.filter(|name| name.backend == *address).cloned());
                if names.is_empty() {
                    let text =
                        format!("no VIP has a backend {address}: `weir backend list` lists all");
                    return Err(Refusal::Unknown(text));
                }
                Ok(names.into_iter().collect())
            }
        }
    }

    /// Changes overrides as one change; what is so already is no change.
    fn edit(
        &mut self,
        names: Vec<BackendName>,
        by: Actor,
        edit: impl Fn(Override) -> Override,
        told: impl Fn(u64, String, BackendName) -> What,
    ) -> Result<Changed, Refusal> {
        let mut overrides = self.desired.overrides().clone();
        let mut edited = Vec::new();
        for name in names {
            let (old, new) = (overrides.get(&name), edit(overrides.get(&name)));
            if old != new {
                overrides.set(name.clone(), new);
                edited.push(name);
            }
        }
        if edited.is_empty() {
            return Ok(Changed {
                changed: false,
                generation: self.generation,
            });
        }
        let next = self.desired.with_overrides(overrides);
        let changed = self.commit_command(next, by)?;
        let generation = changed.generation;
        for name in edited {
            let (vip, backend) = (name.vip.clone(), name.backend);
            let value = self.desired.overrides().get(&name);
            tracing::info!(
                cause = %by,
                generation,
                vip,
                %backend,
                drained = value.is_drained,
                weight = value.weight,
                "changed by command"
            );
            self.events.tell(told(generation, by.to_string(), name));
        }
        self.tell_changes();
        Ok(changed)
    }

    /// Puts what a command changes in force, and keeps it. What cannot be kept is not done: a drain that a restart forgets is worse
    /// than one that is refused.
    pub(super) fn commit_command(&mut self, next: Desired, by: Actor) -> Result<Changed, Refusal> {
        let state = state(self.generation + 1, &next, self.fleet.nodes);
        let failed = |error: anyhow::Error| Refusal::Failed(format!("{error:#}"));
        self.state.save(&state).map_err(failed)?;
        if let Err(refusal) = self.adopt(next, &by.to_string()) {
            self.save_state();
            return Err(refusal);
        }
        self.generation = state.generation;
        self.unsaved = None;
        Ok(Changed {
            changed: true,
            generation: self.generation,
        })
    }

    /// Makes `next` what is wanted and the maps follow; where they cannot, everything is as before.
    pub(super) fn adopt(&mut self, next: Desired, cause: &str) -> Result<(), Refusal> {
        let before = std::mem::replace(&mut self.desired, next);
        let result = self.reconcile(cause).and_then(|()| {
            self.has_attached(&before)?;
            let names = &self.desired.config.node.interfaces;
            self.attachments.retain(names, &mut self.plane)
        });
        let Err(error) = result else {
            self.failure = None;
            self.announce();
            return Ok(());
        };
        self.desired = before;
        let rollback = self.reconcile("rollback").and_then(|()| {
            let names = &self.desired.config.node.interfaces;
            self.attachments.retain(names, &mut self.plane)
        });
        let text = match rollback {
            Ok(()) => format!("{error:#}; nothing has changed"),
            Err(rollback) => {
                let text = format!("{error:#}; and the maps could not be set back: {rollback:#}");
                self.failure = Some(text.clone());
                text
            }
        };
        tracing::error!(cause, error = text, "the maps cannot follow the change");
        Err(Refusal::Failed(text))
    }

    /// Whether the program is on every interface that `before` did not have.
    fn has_attached(&self, before: &Desired) -> anyhow::Result<()> {
        let old = &before.config.node.interfaces;
        let new = self.interfaces().iter().filter(|name| !old.contains(name));
        let problems: Vec<_> = new
            .filter_map(|name| self.attachments.problem(name))
            .collect();
        anyhow::ensure!(problems.is_empty(), "{}", problems.join("; "));
        Ok(())
    }

    /// Tells who listens that a configuration was refused.
    pub(super) fn tell_refused(&mut self, by: Actor, file: &Path, refusal: &Refusal) {
        let error = refusal.to_string();
        tracing::warn!(cause = %by, config = %file.display(), error, "configuration refused; nothing has changed");
        if by == Actor::Hangup {
            self.origin.refused(&error);
        }
        self.events.tell(What::Refused {
            by: by.to_string(),
            file: file.to_owned(),
            error,
        });
    }

    /// Keeps what must survive the daemon.
    pub(super) fn save_state(&mut self) {
        let state = state(self.generation, &self.desired, self.fleet.nodes);
        self.unsaved = self.state.save(&state).err().map(|error| {
            let text = format!("{error:#}; until it can, commands are refused");
            tracing::error!(error = text, "the state is not kept");
            text
        });
    }
}
