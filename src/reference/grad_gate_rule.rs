//! grad_gate_rule: the gradient of the router's product: what the rule of the gating method makes of that of the routing weights, and of the losses.
//!
//! ```text
//! batch     what the rule reads                       in
//! kept      [num_tokens, width] u32                   in   expert ids after dropping
//! dweights  [num_tokens, width] f32                   in   the gradient of the weights, summed over its parts
//! effect    how losses reach shares, weights, logits  in
//! drouter   [num_tokens, router_rows] f32             out
//! ```
//!
//! Nothing is derived by hand: the rule runs on a tape, and the tape runs backwards.

use crate::gating::{Batch, Effect, Gate, NONE, Named, Real, Routing, Tape, Values, Var, shares};

/// What the kernel reads beside what the rule reads.
#[derive(Debug, Clone, Copy)]
pub struct Backward<'a> {
    pub kept: &'a [u32],
    pub dweights: &'a [f32],
    pub effect: &'a Effect,
}

/// Returns `drouter`.
pub fn grad_gate_rule(gate: &Gate, batch: &Batch<'_, f64>, values: &Values, backward: &Backward) -> Vec<f32> {
    let tape = Tape::new();
    let (x, router) = (tape.vars(batch.x), tape.vars(batch.router));
    let leaves: Named<Var<'_>> = batch.leaves.iter().map(|(name, numbers)| (*name, tape.vars(numbers))).collect();
    let taped = Batch {
        dims: batch.dims,
        training: batch.training,
        x: &x,
        router: &router,
        leaves: &leaves,
        noise: batch.noise,
        state: batch.state,
        token_ids: batch.token_ids,
        domains: batch.domains,
    };
    let routing = (gate.twin.taped)(&taped, values);
    let mut seeds = of_weights(&routing, values, backward);
    seeds.extend(of_losses(&routing, batch, backward.effect));
    tape.gradient(seeds).of_all(&router).into_iter().map(|number| number as f32).collect()
}

/// The weights that were kept, each with its gradient.
fn of_weights<'t>(routing: &Routing<Var<'t>>, values: &Values, backward: &Backward) -> Vec<(Var<'t>, f64)> {
    let renormalized = values.number("renormalize_after_drop").is_some_and(|flag| flag != 0.0);
    let least = values.number("eps").unwrap_or(0.0);
    let mut seeds = Vec::new();
    for (row, weights) in routing.weights.chunks_exact(routing.width).enumerate() {
        let kept: Vec<usize> = (0..routing.width).filter(|rank| backward.kept[row * routing.width + rank] != NONE).collect();
        let total = kept.iter().fold(Var::zero(), |sum, &rank| sum + weights[rank]);
        let divisor = match renormalized {
            true => total.max(Var::of(least)),
            false => Var::of(1.0),
        };
        for rank in kept {
            let place = row * routing.width + rank;
            let slope = backward.effect.weights.get(backward.kept[place] as usize).copied().unwrap_or(0.0);
            seeds.push((weights[rank] / divisor, f64::from(backward.dweights[place]) + slope));
        }
    }
    seeds
}

/// Shares, entropies and squared logs of sums, each with what a loss multiplies it with.
fn of_losses<'t>(routing: &Routing<Var<'t>>, batch: &Batch<'_, f64>, effect: &Effect) -> Vec<(Var<'t>, f64)> {
    let num_experts = batch.dims.num_experts;
    let shares = shares(routing, num_experts);
    let rows = effect.shares.len() / num_experts;
    let mut seeds = Vec::new();
    for (token, (shares, logits)) in shares.chunks_exact(num_experts).zip(routing.logits.chunks_exact(num_experts)).enumerate() {
        let row = if rows > 1 { token / batch.dims.seq_len } else { 0 };
        let slope = |expert: usize| effect.shares.get(row * num_experts + expert).copied().unwrap_or(0.0);
        seeds.extend(shares.iter().enumerate().map(|(expert, &share)| (share, slope(expert))));
        let live = shares.iter().filter(|share| share.value() > 0.0);
        let entropy = live.fold(Var::zero(), |sum, &share| sum - share * share.ln());
        let largest = logits.iter().map(|logit| logit.value()).fold(f64::NEG_INFINITY, f64::max);
        let log_sum = logits.iter().fold(Var::zero(), |sum, &logit| sum + (logit - largest).exp()).ln() + largest;
        seeds.extend([(entropy, effect.entropy), (log_sum.square(), effect.lse)]);
    }
    seeds
}
