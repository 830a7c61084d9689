//! expert_capacity: which assignments are dropped, because earlier ones of the same call have all the places of their expert.
//!
//! ```text
//! ids       [num_tokens, top_k] u32  in       expert of each assignment, best first
//! weights   [num_tokens, top_k] f32  in, out  0 where an assignment is dropped
//! kept      [num_tokens, top_k] u32  out      ids; `DROPPED` where an assignment is dropped
//! loads     [num_experts] u32        in, out  decremented once per dropped assignment
//! ```
//!
//! All first choices queue before all second choices, each in the order of their tokens.

use crate::gating::CallCapacity;

/// In `kept`: an assignment that nobody computes.
pub const DROPPED: u32 = u32::MAX;

/// Returns `kept`.
pub fn expert_capacity(
    capacity: &CallCapacity,
    num_experts_per_tok: usize,
    ids: &[u32],
    weights: &mut [f32],
    loads: &mut [u32],
) -> Vec<u32> {
    let num_tokens = ids.len() / num_experts_per_tok;
    let limit = capacity.limit(num_tokens);
    let mut kept = ids.to_vec();
    let mut queues = vec![0; loads.len()];
    for rank in 0..num_experts_per_tok {
        for token in 0..num_tokens {
            let assignment = token * num_experts_per_tok + rank;
            let expert = ids[assignment] as usize;
            if queues[expert] >= limit {
                kept[assignment] = DROPPED;
                weights[assignment] = 0.0;
                loads[expert] -= 1;
            }
            queues[expert] += 1;
        }
    }
    if let Some(floor) = capacity.renormalize {
        for weights in weights.chunks_exact_mut(num_experts_per_tok) {
            // weights is weights[t] here
            let sum = weights.iter().map(|weight| f64::from(*weight)).sum::<f64>().max(f64::from(floor));
            weights.iter_mut().for_each(|weight| *weight = (f64::from(*weight) / sum) as f32);
        }
    }
    kept
}
