//! gate_stats: what the losses of a router need: of every expert its assignments and the sum of its scores, and of all tokens the sum of the squared
//! log-sum-exp of their logits.
//!
//! ```text
//! logits   [num_tokens, num_experts] f32   in
//! ids      [num_tokens, width] u32         in
//! scores   [num_tokens, num_experts] f32   in
//! stats    [num_experts + 1] [f32; 4]      out  (assignments, sum of scores, 0, 0); the last one (0, 0, sum of squares, 0)
//! ```

use super::training::gate::log_sum_exp;

pub fn gate_stats(logits: &[f32], ids: &[u32], scores: &[f32], num_experts: usize) -> Vec<[f32; 4]> {
    let assignments = |expert: usize| ids.iter().filter(|id| **id as usize == expert).count() as f32;
    let sum = |expert: usize| scores.iter().skip(expert).step_by(num_experts).copied().map(f64::from).sum::<f64>() as f32;
    let mut stats: Vec<[f32; 4]> = (0..num_experts).map(|expert| [assignments(expert), sum(expert), 0.0, 0.0]).collect();
    let logits: Vec<f64> = logits.iter().copied().map(f64::from).collect();
    let squares: f64 = logits.chunks_exact(num_experts).map(|logits| log_sum_exp(logits).powi(2)).sum();
    stats.push([0.0, 0.0, squares as f32, 0.0]);
    stats
}
