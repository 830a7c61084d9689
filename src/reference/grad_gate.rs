//! grad_gate: the gradient of the router logits: what the rule of the gating method makes of that of the routing weights, and what the losses of the
//! router add.
//!
//! ```text
//! logits    [num_tokens, num_experts] f32   in
//! routing   of gate, in f32                 in
//! dweights  [num_tokens, width] f32         in   the sums of their parts
//! dlogits   [num_tokens, num_experts] f32   out
//! ```

use super::training::LossCoefficients;
use super::training::gate::{Gating, Routing, add_loss_gradients};

/// Returns `dlogits`.
pub fn grad_gate(rule: &dyn Gating, losses: &LossCoefficients, logits: &[f32], routing: &Routing, dweights: &[f64]) -> Vec<f32> {
    let logits: Vec<f64> = logits.iter().copied().map(f64::from).collect();
    let mut dlogits = rule.grad_logits(&logits, routing, dweights);
    add_loss_gradients(losses, &logits, routing, &mut dlogits);
    dlogits.into_iter().map(|value| value as f32).collect()
}
