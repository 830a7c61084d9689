//! What keeps experts balanced without a gradient: state that is moved after the optimiser's step.

use super::{Values, row};

/// What a step of training knows about the choices of one layer.
#[derive(Debug, Clone, Copy)]
pub struct AfterStep<'a> {
    /// The state as it is.
    pub state: &'a [f64],
    /// Assignments of each expert over the whole batch, before any was dropped.
    pub counts: &'a [usize],
    /// `[num_tokens, num_experts]`, without the bias.
    pub scores: &'a [f64],
    /// Share of the weights that were zero, over all layers.
    pub sparsity: f64,
}

/// `b += u sign(mean(c) - c)`, or `b += u (mean(c) - c) / mean(c)`. Source: Wang et al. 2024, arXiv 2408.15664; DeepSeek-V3.
pub fn bias(after: &AfterStep<'_>, values: &Values) -> Vec<f64> {
    let mean = after.counts.iter().sum::<usize>() as f64 / after.counts.len() as f64;
    let rate = values.get("bias_rate");
    let proportional = values.flag("bias_proportional");
    let step = |count: usize| {
        let error = mean - count as f64;
        match proportional {
            true => error / mean.max(1.0),
            false if error == 0.0 => 0.0,
            false => error.signum(),
        }
    };
    after.state.iter().zip(after.counts).map(|(bias, &count)| bias + rate * step(count)).collect()
}

/// The bias that would have balanced this batch: of each expert the score that as many tokens exceed as should have it, where scores count from
/// what a token needs to be chosen. Source: Megatron-LM 2026.
pub fn quantile(after: &AfterStep<'_>, values: &Values) -> Vec<f64> {
    let (num_experts, chosen) = (after.counts.len(), values.count("num_experts_per_tok"));
    let num_tokens = after.scores.len() / num_experts;
    // What the first expert that was not chosen had.
    let least = |row: &[f64]| {
        let mut keys: Vec<f64> = row.iter().zip(after.state).map(|(score, bias)| score - bias).collect();
        keys.sort_by(|a, b| b.total_cmp(a));
        keys[chosen.min(num_experts - 1)]
    };
    let thresholds: Vec<f64> = after.scores.chunks_exact(num_experts).map(least).collect();
    let kept = values.get("ema");
    let next = |expert: usize| {
        let excess: Vec<f64> =
            (0..num_tokens).map(|token| after.scores[token * num_experts + expert] - thresholds[token]).collect();
        let order = row::best_first(&excess);
        excess[order[(num_tokens * chosen / num_experts).min(num_tokens - 1)]]
    };
    (0..num_experts).map(|expert| kept * after.state[expert] + (1.0 - kept) * next(expert)).collect()
}

/// The coefficient of ReMoE's penalty grows while too many weights are positive, and falls while too few are.
/// Source: Wang et al. 2024, arXiv 2412.14711.
pub fn penalty(after: &AfterStep<'_>, values: &Values) -> Vec<f64> {
    let wanted = 1.0 - values.get("num_experts_per_tok") / after.counts.len() as f64;
    let step = values.get("l1_step");
    after.state.iter().map(|coefficient| if after.sparsity < wanted { coefficient * step } else { coefficient / step }).collect()
}

/// Words to experts, so that each expert gets about the same share of a text: words by falling frequency, each to the expert that has least so
/// far. Of equal ones the lower id goes first. Source: Roller et al. 2021, arXiv 2106.04426.
pub fn balanced_table(frequencies: &[u64], num_experts: usize) -> Vec<u32> {
    let mut words: Vec<usize> = (0..frequencies.len()).collect();
    words.sort_by_key(|&word| (std::cmp::Reverse(frequencies[word]), word));
    let mut mass = vec![0u64; num_experts];
    let mut table = vec![0; frequencies.len()];
    for word in words {
        let expert = (0..num_experts).min_by_key(|&expert| (mass[expert], expert)).unwrap_or(0);
        table[word] = expert as u32;
        mass[expert] += frequencies[word];
    }
    table
}
