//! gate: experts and routing weights of every token, by the rule of a gating method.
//!
//! ```text
//! logits   [num_tokens, num_experts] f32   in
//! ids      [num_tokens, width] u32         out  best first; all ones where there is none
//! weights  [num_tokens, width] f32         out
//! scores   [num_tokens, num_experts] f32   out
//! ```
//!
//! The rule is the one that trains on the reference.

use super::training::gate::{Gating, Routing};

/// Returns what the ledger says, in f64, and the counts beside it.
pub fn gate(rule: &dyn Gating, logits: &[f32], num_experts: usize) -> Routing {
    let logits: Vec<f64> = logits.iter().copied().map(f64::from).collect();
    rule.route(&logits, num_experts)
}
