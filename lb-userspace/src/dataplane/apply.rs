//! Walks the steps of a plan on a data plane.

use lb_common::backend::Backend;

use super::{DataPlane, set_slots};
use crate::{
    config::Prefix,
    model::{
        ids::Ids,
        ip_address, mac_text,
        plan::{Held, Step, plan},
        slots::Census,
        wanted::Wanted,
    },
};

/// Makes the data plane hold what is wanted, then frees the ids that nothing names any more. Returns how many
/// writes it took. `cause` is for the log.
///
/// # Errors
/// The first write that failed. `held` tells how far it came, so that the next call goes on from there.
pub fn apply(
    data_plane: &mut dyn DataPlane,
    held: &mut Held,
    wanted: &Wanted,
    ids: &mut Ids,
    cause: &str,
) -> anyhow::Result<usize> {
    let steps = plan(held, wanted);
    let is_table = |step: &Step| matches!(step, Step::Table(..));
    for steps in steps.chunk_by(|a, b| is_table(a) && is_table(b)) {
        let results = write(data_plane, steps);
        let mut failed = Ok(());
        for (step, result) in steps.iter().zip(results) {
            // Of tables that are written at the same time those after a failure count, too.
            match result {
                Ok(()) => {
                    held.record(step);
                    log(cause, step);
                }
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed?;
    }
    held.release(ids);
    Ok(steps.len())
}

/// Writes a step, or several tables. Returns what became of each, up to a failure.
fn write(data_plane: &mut dyn DataPlane, steps: &[Step]) -> Vec<anyhow::Result<()>> {
    let tables = steps.iter().filter_map(|step| match step {
        Step::Table(vip, _, slots) => Some((*vip, &**slots)),
        _ => None,
    });
    let tables: Vec<_> = tables.collect();
    if !tables.is_empty() {
        return data_plane.set_tables(&tables);
    }
    steps
        .iter()
        .map(|step| write_one(data_plane, step))
        .collect()
}

fn write_one(data_plane: &mut dyn DataPlane, step: &Step) -> anyhow::Result<()> {
    match step {
        Step::Node(node) => data_plane.set_node(node),
        Step::Port(ifindex) => data_plane.add_port(*ifindex),
        Step::Interface(ifindex, interface) => data_plane.set_interface(*ifindex, interface),
        Step::Peer(mac) => data_plane.set_peer(*mac, true),
        Step::ClearPeer(mac) => data_plane.set_peer(*mac, false),
        Step::NewBackend(id) => data_plane.clear_backend_counters(*id),
        Step::NewVip(vip) => data_plane.clear_vip_counters(*vip),
        Step::Backend(id, backend) => data_plane.set_backend(*id, backend),
        Step::Idle(vip, idle) => data_plane.set_idle(*vip, idle),
        Step::Block(key) => data_plane.set_block(key),
        Step::Unblock(key) => data_plane.clear_block(key),
        Step::BlockScopes(vip, scopes) => data_plane.set_block_scopes(*vip, *scopes),
        Step::Limits(vip, limits) => data_plane.set_limits(*vip, limits),
        Step::Table(vip, _, slots) => set_slots(data_plane, *vip, slots),
        Step::ClearInterface(ifindex) => data_plane.clear_interface(*ifindex),
        Step::Vips(vips) => data_plane.set_vips(&vips.table),
        Step::ClearLimits(vip) => data_plane.clear_limits(*vip),
        Step::ClearTable(vip) => data_plane.clear_table(*vip),
        Step::ClearBackend(id, heir) => {
            if let Some(heir) = heir {
                data_plane.inherit_counters(*id, *heir)?;
            }
            data_plane.set_backend(*id, &Backend::default())
        }
    }
}

/// One line for every change of the data plane, with its cause.
fn log(cause: &str, step: &Step) {
    match step {
        Step::Node(_) => tracing::info!(cause, "node settings written"),
        Step::Port(ifindex) => tracing::info!(cause, ifindex, "frames may leave by this interface"),
        Step::Interface(ifindex, interface) => {
            let mac = mac_text(interface.mac);
            tracing::info!(cause, ifindex, mac, "interface written");
        }
        Step::Peer(mac) => tracing::info!(cause, mac = mac_text(*mac), "another node of the fleet"),
        Step::ClearPeer(mac) => {
            tracing::info!(
                cause,
                mac = mac_text(*mac),
                "no other node of the fleet any more"
            );
        }
        Step::NewBackend(id) => tracing::debug!(cause, backend = id, "counters begin at zero"),
        Step::NewVip(vip) => tracing::debug!(cause, vip, "counters begin at zero"),
        Step::Backend(id, backend) => {
            let address = ip_address(backend.address);
            let resolved = backend.is_resolved();
            let alive = backend.is_alive();
            tracing::info!(cause, backend = id, vip = backend.vip, %address, resolved, alive, "backend written");
        }
        Step::Idle(vip, idle) => {
            let seconds = idle.open_ns / 1_000_000_000;
            tracing::info!(cause, vip, seconds, "flows may be silent for so long");
        }
        Step::Block(key) => {
            tracing::info!(cause, scope = key.owner(), prefix = %Prefix::of_key(key), "blocked");
        }
        Step::Unblock(key) => {
            tracing::info!(cause, scope = key.owner(), prefix = %Prefix::of_key(key), "blocked no longer");
        }
        Step::BlockScopes(vip, scopes) => tracing::debug!(cause, vip, scopes, "blocks looked up"),
        Step::Limits(vip, _) => tracing::info!(cause, vip, "limits written"),
        Step::Table(vip, table, slots) => {
            let Census {
                stable,
                holding,
                moving,
                settling,
            } = slots.census();
            tracing::info!(cause, vip, digest = %table.digest(), stable, holding, moving, settling, "lookup table swapped in");
        }
        Step::Vips(vips) => tracing::info!(cause, vips = vips.entries.len(), "VIPs swapped in"),
        Step::ClearInterface(ifindex) => tracing::info!(cause, ifindex, "interface forgotten"),
        Step::ClearLimits(vip) => tracing::info!(cause, vip, "limits taken away"),
        Step::ClearTable(vip) => tracing::info!(cause, vip, "lookup table taken away"),
        Step::ClearBackend(id, _) => tracing::info!(cause, backend = id, "backend taken away"),
    }
}
