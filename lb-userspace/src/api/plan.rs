//! `POST /v1/plan`: what a configuration would change, and whether it would be taken.

use serde::{Deserialize, Serialize};

use super::{OverrideStatus, Refusal};
use crate::{
    config::{Config, Finding},
    model::preview::{Basis, Preview, VipPreview},
};

/// What a configuration would change.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Plan {
    /// The generation that it is held against.
    pub generation: u64,
    /// What would change.
    #[serde(flatten)]
    pub preview: Preview,
    /// What commands have changed of the configuration, and would go on changing.
    pub overrides: Vec<OverrideStatus>,
    /// Why it would be refused.
    pub refused: Vec<Finding>,
    /// Whether it would be taken only by force.
    pub needs_force: bool,
}

/// What a plan is made of: a copy of what the daemon's task knows, so that planning holds up nobody.
pub struct PlanBasis {
    /// The generation of the copy.
    pub generation: u64,
    /// The configuration in force, and what the data plane holds.
    pub basis: Basis,
}

impl std::fmt::Debug for PlanBasis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlanBasis")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl PlanBasis {
    /// What `next`, read from `text`, would change.
    ///
    /// # Errors
    /// The maps cannot hold it.
    pub fn plan(&self, next: &Config, text: &str, file: &std::path::Path) -> Result<Plan, Refusal> {
        let running = &self.basis.file;
        let mut refused = Vec::new();
        if let Err(errors) = running.allows(next, text, file) {
            refused.extend_from_slice(errors.findings());
        }
        let preview = self.basis.preview(next);
        let (whole, _) = self.basis.services.beside(next);
        Ok(Plan {
            generation: self.generation,
            preview: preview.map_err(|error| Refusal::Failed(error.to_string()))?,
            overrides: OverrideStatus::all(&self.basis.overrides, &whole),
            refused,
            needs_force: running.has_seed_of(next, text, file).is_err(),
        })
    }
}

/// Refuses what moves more than `percent` of any VIP's slots.
///
/// # Errors
/// The VIPs that would.
pub(crate) fn within(preview: &Preview, percent: f64) -> Result<(), Refusal> {
    let moves = |vip: &&VipPreview| vip.moved_percent > percent;
    let vips: Vec<_> = preview.vips.iter().filter(moves).collect();
    if vips.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = vips
        .iter()
        .map(|vip| format!("{:.1}% of VIP {}", vip.moved_percent, vip.name))
        .collect();
    Err(Refusal::TooMuch(format!(
        "{} would move, and at most {percent}% may: change less at a time, or allow more with `--max-move`",
        list.join(", ")
    )))
}
