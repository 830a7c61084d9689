//! How tokens choose experts.

mod top_k;

pub use top_k::{Assignment, ExpertGroups, GroupScore, Normalize, RouterMethod, RouterSpec, WeightOn};
