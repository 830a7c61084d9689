//! gate_rule: experts and routing weights of every token, by the rule of a gating method.
//!
//! ```text
//! batch     what the rule reads                     in
//! ids       [num_tokens, width] u32                 out  best first; all ones where there is none
//! weights   [num_tokens, width] f32                 out  before anything is dropped
//! shares    [num_tokens, num_experts] f32           out  what losses take for the shares of experts
//! log_sums  [num_tokens] f32                        out  log of the sum of the exponentials of the logits; 0 without a router
//! ```

use crate::gating::{Batch, Gate, Values, shares};

/// What the ledger says.
#[derive(Debug, Clone)]
pub struct Ruled {
    pub ids: Vec<u32>,
    pub weights: Vec<f32>,
    pub shares: Vec<f32>,
    pub log_sums: Vec<f32>,
}

pub fn gate_rule(gate: &Gate, batch: &Batch<'_, f64>, values: &Values) -> Ruled {
    let routing = (gate.twin.plain)(batch, values);
    let (num_tokens, num_experts) = (batch.dims.num_tokens, batch.dims.num_experts);
    let mut ruled = Ruled {
        ids: routing.expert_ids.clone(),
        weights: routing.weights.iter().map(|&weight| weight as f32).collect(),
        shares: shares(&routing, num_experts).into_iter().map(|share| share as f32).collect(),
        log_sums: routing.logits.chunks_exact(num_experts).map(log_sum_exp).collect(),
    };
    ruled.shares.resize(num_tokens * num_experts, 0.0);
    ruled.log_sums.resize(num_tokens, 0.0);
    ruled
}

fn log_sum_exp(logits: &[f64]) -> f32 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (largest + logits.iter().map(|logit| (logit - largest).exp()).sum::<f64>().ln()) as f32
}
