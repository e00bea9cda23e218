//! Walks the steps of a plan on a data plane.

use anyhow::Context as _;
use lb_common::backend::Backend;

use super::DataPlane;
use crate::model::{
    ids::Ids,
    plan::{Held, Step, plan},
    wanted::Wanted,
};

/// Makes the data plane hold what is wanted, then frees the ids that nothing names any more. Returns how many
/// writes it took.
///
/// # Errors
/// The first write that failed. `held` tells how far it came, so that the next call goes on from there.
pub fn apply(
    data_plane: &mut dyn DataPlane,
    held: &mut Held,
    wanted: &Wanted,
    ids: &mut Ids,
) -> anyhow::Result<usize> {
    let steps = plan(held, wanted);
    for step in &steps {
        write(data_plane, step)?;
        held.record(step);
    }
    held.release(ids);
    Ok(steps.len())
}

fn write(data_plane: &mut dyn DataPlane, step: &Step) -> anyhow::Result<()> {
    match step {
        Step::Node(node) => data_plane.set_node(node).context("write the node"),
        Step::Port(ifindex) => data_plane
            .add_port(*ifindex)
            .with_context(|| format!("add interface {ifindex}")),
        Step::Backend(id, backend) => data_plane
            .set_backend(*id, backend)
            .with_context(|| format!("write backend {id}")),
        Step::Table(vip, table) => data_plane
            .set_table(*vip, &table.slot_table())
            .with_context(|| format!("write the lookup table of VIP {vip}")),
        Step::Vips(vips) => data_plane.set_vips(&vips.table).context("write the VIPs"),
        Step::ClearTable(vip) => data_plane
            .clear_table(*vip)
            .with_context(|| format!("clear the lookup table of VIP {vip}")),
        Step::ClearBackend(id) => data_plane
            .set_backend(*id, &Backend::default())
            .with_context(|| format!("clear backend {id}")),
    }
}
