//! Adaptive mixtures of local experts: the first mixture of experts, and the three losses that its paper compares.

use super::rule::twin;
use super::{Chooser, Gate, Real, dense_softmax, row};

pub static GATE: Gate = Gate {
    name: "jacobs_1991",
    summary: "adaptive mixtures of local experts: a softmax over all experts, which learn in proportion to how well they explain the target",
    source: "Jacobs, Jordan, Nowlan, Hinton 1991, Neural Computation 3",
    chooses: Chooser::Everybody,
    width: |dims, _| dims.num_experts,
    twin: {
        use dense_softmax::route;
        twin!(route)
    },
    wgsl: Some(dense_softmax::WGSL),
    ..Gate::BASE
};

/// The three losses of the paper, means over tokens, and how responsible each expert is.
#[derive(Debug, Clone)]
pub struct Supervised<R> {
    /// `|d - sum p o|^2`: experts share what is left over, and do not specialise.
    pub cooperative: R,
    /// `sum p |d - o|^2`
    pub associative: R,
    /// `-ln sum p exp(-|d - o|^2 / 2)`: each expert learns in proportion to its posterior.
    pub competitive: R,
    /// `[num_tokens, num_experts]`
    pub posterior: Vec<f64>,
}

/// From `scores [num_tokens, num_experts]`, the outputs of experts for each token, `[num_tokens, num_experts, len]`, and `wanted [num_tokens, len]`.
pub fn supervised<R: Real>(scores: &[R], outputs: &[R], wanted: &[f64]) -> Supervised<R> {
    let len = outputs.len() / scores.len();
    let num_tokens = wanted.len() / len;
    let num_experts = scores.len() / num_tokens;
    let mut sums = [R::zero(); 3];
    let mut posterior = Vec::with_capacity(scores.len());
    for (token, wanted) in wanted.chunks_exact(len).enumerate() {
        let scores = &scores[token * num_experts..][..num_experts];
        let outputs = &outputs[token * num_experts * len..][..num_experts * len];
        let mixed =
            |index: usize| row::sum(scores.iter().enumerate().map(|(expert, &score)| score * outputs[expert * len + index]));
        let distance = |output: &[R]| row::sum(output.iter().zip(wanted).map(|(&output, &wanted)| (output - wanted).square()));
        let distances: Vec<R> = outputs.chunks_exact(len).map(distance).collect();
        let logs: Vec<R> = scores.iter().zip(&distances).map(|(&score, &distance)| score.ln() - distance * 0.5).collect();
        sums[0] = sums[0] + row::sum((0..len).map(|index| (mixed(index) - wanted[index]).square()));
        sums[1] = sums[1] + row::sum(scores.iter().zip(&distances).map(|(&score, &distance)| score * distance));
        sums[2] = sums[2] - row::log_sum_exp(&logs);
        posterior.extend(row::softmax(&row::values(&logs)));
    }
    let [cooperative, associative, competitive] = sums.map(|sum| sum / num_tokens as f64);
    Supervised { cooperative, associative, competitive, posterior }
}
