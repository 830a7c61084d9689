//! How tokens choose experts.

mod change;
mod top_k;

pub use change::{ExpertAt, RouterChange, RoutingOverride};
pub use top_k::{Assignment, ExpertGroups, GroupScore, Normalize, RouterMethod, RouterSpec, WeightOn};
