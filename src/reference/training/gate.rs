//! What a gating rule is to the trainer, the plainest of them, and the losses of the router.

use super::{LayerReport, LossCoefficients};

/// No expert, among ids.
pub const NONE: u32 = u32::MAX;

/// How a rule routed a batch of `n` tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Routing {
    /// Assignments that a token may have.
    pub width: usize,
    /// `[n, width]`, best first, those that capacity left; [`NONE`] where there is none.
    pub expert_ids: Vec<u32>,
    /// `[n, width]`, what multiplies the output of each expert.
    pub weights: Vec<f64>,
    /// `[n, num_experts]`, what the losses take for the probability of each expert.
    pub scores: Vec<f64>,
    /// Assignments of each expert, before any is dropped.
    pub counts: Vec<u32>,
}

/// A rule by which tokens choose experts.
pub trait Gating: Send + Sync {
    /// Chooses for every token, from `logits [n, num_experts]`.
    fn route(&self, logits: &[f64], num_experts: usize) -> Routing;

    /// The gradient of the logits, from `dweights [n, width]`, that of the routing weights. Choices have none.
    fn grad_logits(&self, logits: &[f64], routing: &Routing, dweights: &[f64]) -> Vec<f64>;
}

/// The `k` best of the softmax. Their weights are the scores, or those divided by their sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopKSoftmax {
    pub k: usize,
    pub renormalize: bool,
}

impl Routing {
    /// Every token uses the one expert there is, with a weight of one.
    pub(super) fn of_one_expert(num_tokens: usize) -> Self {
        Routing { width: 1, expert_ids: vec![0; num_tokens], weights: vec![1.0; num_tokens], ..Routing::default() }
    }
}

impl Gating for TopKSoftmax {
    fn route(&self, logits: &[f64], num_experts: usize) -> Routing {
        let mut routing = Routing { width: self.k, counts: vec![0; num_experts], ..Routing::default() };
        for logits in logits.chunks_exact(num_experts) {
            let log_sum = log_sum_exp(logits);
            let scores: Vec<f64> = logits.iter().map(|logit| (logit - log_sum).exp()).collect();
            let mut order: Vec<usize> = (0..num_experts).collect();
            // Logits are finer than scores. Equal: the lower id first.
            order.sort_by(|&a, &b| (logits[b] + 0.0).total_cmp(&(logits[a] + 0.0)).then(a.cmp(&b)));
            order.truncate(self.k);
            let total = if self.renormalize { order.iter().map(|&expert| scores[expert]).sum() } else { 1.0 };
            for expert in order {
                routing.expert_ids.push(expert as u32);
                routing.weights.push(scores[expert] / total);
                routing.counts[expert] += 1;
            }
            routing.scores.extend(scores);
        }
        routing
    }

    /// Renormalised, the softmax is one over the chosen alone: `w (dw - <w, dw>)` for these. Otherwise it is one over all:
    /// `p (dw - <p, dw>)`, where what was not chosen has no `dw`.
    fn grad_logits(&self, logits: &[f64], routing: &Routing, dweights: &[f64]) -> Vec<f64> {
        let num_experts = routing.counts.len();
        let mut dlogits = vec![0.0; logits.len()];
        for (t, dlogits) in dlogits.chunks_exact_mut(num_experts).enumerate() {
            let chosen = t * self.k..(t + 1) * self.k;
            let [weights, dweights] = [&routing.weights[chosen.clone()], &dweights[chosen.clone()]];
            let mean: f64 = weights.iter().zip(dweights).map(|(weight, dweight)| weight * dweight).sum();
            if !self.renormalize {
                let scores = &routing.scores[t * num_experts..][..num_experts];
                dlogits.iter_mut().zip(scores).for_each(|(dlogit, score)| *dlogit = -score * mean);
            }
            for ((&expert, weight), dweight) in routing.expert_ids[chosen].iter().zip(weights).zip(dweights) {
                let centre = if self.renormalize { mean } else { 0.0 };
                dlogits[expert as usize] += weight * (dweight - centre);
            }
        }
        dlogits
    }
}

/// What a layer's routing came to: `load_balancing = E / (k T^2) sum_e c_e sum_t p_te`, where `c` are counts without a gradient, and
/// `router_z = mean of the squared log-sum-exp of the logits`.
pub(super) fn layer_report(logits: &[f64], routing: &Routing) -> LayerReport {
    let num_experts = routing.counts.len();
    let per_count = count_factor(routing);
    let balance = |scores: &[f64]| scores.iter().zip(&routing.counts).map(|(p, count)| p * f64::from(*count)).sum::<f64>();
    let num_tokens = logits.len() as f64 / num_experts as f64;
    let squares: f64 = logits.chunks_exact(num_experts).map(|logits| log_sum_exp(logits).powi(2)).sum();
    let kept = routing.expert_ids.iter().filter(|id| **id != NONE).count();
    LayerReport {
        dropped: routing.counts.iter().sum::<u32>() - kept as u32,
        load_balancing: per_count * routing.scores.chunks_exact(num_experts).map(balance).sum::<f64>(),
        router_z: squares / num_tokens,
        counts: routing.counts.clone(),
    }
}

/// Adds what both losses teach the router, times their coefficients: with `a_e` what multiplies `p_te`, `p (a - <p, a>)`; and
/// `2 lse p / T`.
pub fn add_loss_gradients(losses: &LossCoefficients, logits: &[f64], routing: &Routing, dlogits: &mut [f64]) {
    let num_experts = routing.counts.len();
    let num_tokens = logits.len() as f64 / num_experts as f64;
    let per_count = losses.load_balancing * count_factor(routing);
    let pull: Vec<f64> = routing.counts.iter().map(|count| per_count * f64::from(*count)).collect();
    for (t, dlogits) in dlogits.chunks_exact_mut(num_experts).enumerate() {
        let [logits, scores] = [logits, &routing.scores].map(|values| &values[t * num_experts..][..num_experts]);
        let mean: f64 = scores.iter().zip(&pull).map(|(p, a)| p * a).sum();
        let log_sum = log_sum_exp(logits);
        for e in 0..num_experts {
            dlogits[e] += scores[e] * (pull[e] - mean);
            dlogits[e] += losses.router_z * 2.0 * log_sum * (logits[e] - log_sum).exp() / num_tokens;
        }
    }
}

/// `E / (k T^2)`, where `k T` are all assignments.
fn count_factor(routing: &Routing) -> f64 {
    let num_experts = routing.counts.len() as f64;
    let num_tokens = routing.scores.len() as f64 / num_experts;
    num_experts / (f64::from(routing.counts.iter().sum::<u32>()) * num_tokens)
}

/// `ln sum exp`, from the maximum on.
pub fn log_sum_exp(values: &[f64]) -> f64 {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + values.iter().map(|value| (value - max).exp()).sum::<f64>().ln()
}
