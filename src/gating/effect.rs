//! How losses reach the scores of a token, from sums over the batch: what a device adds to what the router learns.

use super::losses::{Routed, device_fractions, group_tokens, groups, shares};
use super::row;

/// Sums over the tokens of one layer, from which every [`Effect`] is made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sums {
    pub num_tokens: usize,
    pub seq_len: usize,
    pub num_experts: usize,
    /// Experts of a token.
    pub num_chosen: usize,
    /// Groups of experts on one device, and of how many of them a token may use experts.
    pub num_groups: usize,
    pub num_kept_groups: usize,
    /// Assignments, before any is dropped: of all tokens, and of each sequence, `[sequences, num_experts]`.
    pub counts: Vec<f64>,
    pub sequence_counts: Vec<f64>,
    pub first_choices: Vec<f64>,
    /// Tokens that use each group.
    pub group_tokens: Vec<f64>,
    /// Of the shares, which are scores divided by their sum.
    pub shares: Vec<f64>,
    pub sequence_shares: Vec<f64>,
    pub weights: Vec<f64>,
    pub global_share: Vec<f64>,
}

/// How a loss reaches the router's scores: the derivatives that do not depend on the token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Effect {
    /// Derivative with respect to each share, `[num_experts]`, or `[sequences, num_experts]`.
    pub shares: Vec<f64>,
    /// Derivative with respect to each weight, `[num_experts]`.
    pub weights: Vec<f64>,
    /// Factor of the derivative of the squared log of the sum of exponentials.
    pub lse: f64,
    /// Factor of the derivative of the entropy of a token's shares.
    pub entropy: f64,
}

impl Sums {
    pub(super) fn tokens(&self) -> f64 {
        self.num_tokens as f64
    }

    /// The sums of a routing.
    pub fn of(routed: &Routed<'_, f64>) -> Sums {
        let (dims, routing) = (routed.dims, routed.routing);
        let num_experts = dims.num_experts;
        let numbers = |counts: Vec<usize>| counts.into_iter().map(|count| count as f64).collect::<Vec<_>>();
        let shares = shares(routing, num_experts);
        let num_sequences = dims.num_tokens / dims.seq_len;
        let mut sums = Sums {
            num_tokens: dims.num_tokens,
            seq_len: dims.seq_len,
            num_experts,
            num_chosen: routing.width,
            num_groups: groups(routed.values),
            num_kept_groups: routed.values.number("num_kept_groups").map_or(1, |number| number as usize),
            counts: numbers(routing.counts(num_experts)),
            sequence_counts: vec![0.0; num_sequences * num_experts],
            first_choices: numbers(routing.first_choices(num_experts)),
            group_tokens: group_tokens(routed),
            shares: vec![0.0; num_experts],
            sequence_shares: vec![0.0; num_sequences * num_experts],
            weights: vec![0.0; num_experts],
            global_share: routed.global_share.to_vec(),
        };
        for (place, share) in shares.iter().enumerate() {
            let (token, expert) = (place / num_experts, place % num_experts);
            sums.shares[expert] += share;
            sums.sequence_shares[token / dims.seq_len * num_experts + expert] += share;
        }
        for (place, weight) in routing.dense(num_experts).iter().enumerate() {
            sums.weights[place % num_experts] += weight;
        }
        for token in 0..if routing.scores.is_empty() { 0 } else { dims.num_tokens } {
            for expert in row::top(&routing.scores[token * num_experts..][..num_experts], routing.width) {
                sums.sequence_counts[token / dims.seq_len * num_experts + expert] += 1.0;
            }
        }
        sums
    }
}

impl Effect {
    /// The derivatives with respect to the shares and weights of one token, from its logits and shares: `[num_experts]` each, and what goes
    /// straight to the logits.
    pub fn on_token(&self, token: &TokenScores<'_>) -> TokenGradient {
        let num_experts = token.shares.len();
        let rows = self.shares.len() / num_experts;
        let of_sequence = if rows > 1 { &self.shares[token.sequence * num_experts..][..num_experts] } else { &self.shares[..] };
        let entropy = |expert: usize| match token.shares[expert] {
            share if share > 0.0 => -self.entropy * (share.ln() + 1.0),
            _ => 0.0,
        };
        let lse = if self.lse == 0.0 { 0.0 } else { 2.0 * self.lse * row::log_sum_exp(token.logits) };
        TokenGradient {
            shares: (0..num_experts).map(|expert| of_sequence.get(expert).copied().unwrap_or(0.0) + entropy(expert)).collect(),
            weights: if self.weights.is_empty() { vec![0.0; num_experts] } else { self.weights.clone() },
            logits: row::softmax(token.logits).into_iter().map(|share| lse * share).collect(),
        }
    }
}

/// One token, for [`Effect::on_token`].
#[derive(Debug, Clone, Copy)]
pub struct TokenScores<'a> {
    pub sequence: usize,
    pub logits: &'a [f64],
    pub shares: &'a [f64],
}

/// Derivatives of a loss with respect to what one token has.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenGradient {
    pub shares: Vec<f64>,
    pub weights: Vec<f64>,
    pub logits: Vec<f64>,
}

pub(super) fn of_shares(given: &[f64], factor: f64) -> Effect {
    Effect { shares: given.iter().map(|number| number * factor).collect(), ..Effect::default() }
}

pub(super) fn sequence_effect(sums: &Sums) -> Effect {
    let (length, sequences) = (sums.seq_len as f64, (sums.num_tokens / sums.seq_len) as f64);
    of_shares(&sums.sequence_counts, sums.num_experts as f64 / (sums.num_chosen as f64 * length * length * sequences))
}

fn per_group(sums: &Sums, of_group: &[f64]) -> Effect {
    let of_expert = |expert: usize| of_group[expert * of_group.len() / sums.num_experts];
    of_shares(&(0..sums.num_experts).map(of_expert).collect::<Vec<_>>(), sums.tokens().recip())
}

pub(super) fn device_effect(sums: &Sums) -> Effect {
    per_group(sums, &device_fractions(&sums.counts, sums.num_groups, sums.tokens() * sums.num_chosen as f64))
}

pub(super) fn communication_effect(sums: &Sums) -> Effect {
    let factor = sums.num_groups as f64 / (sums.num_kept_groups as f64 * sums.tokens());
    per_group(sums, &sums.group_tokens.iter().map(|tokens| tokens * factor).collect::<Vec<_>>())
}

/// The derivative of variance over squared mean: of each sum `2 (s - m) / (E (m^2 + eps)) - 2 var m / (E (m^2 + eps)^2)`.
pub(super) fn importance_effect(sums: &Sums, factor: f64) -> Effect {
    let len = sums.num_experts as f64;
    let mean = sums.weights.iter().sum::<f64>() / len;
    let variance = sums.weights.iter().map(|sum| (sum - mean).powi(2)).sum::<f64>() / len;
    let square = mean * mean + 1e-10;
    let slope = |sum: &f64| factor * 2.0 / len * ((sum - mean) / square - variance * mean / (square * square));
    Effect { weights: sums.weights.iter().map(slope).collect(), ..Effect::default() }
}

pub(super) fn mutual_information_effect(sums: &Sums) -> Effect {
    let tokens = sums.tokens();
    let slope = |sum: &f64| if *sum > 0.0 { ((sum / tokens).ln() + 1.0) / tokens } else { 0.0 };
    Effect { shares: sums.shares.iter().map(slope).collect(), entropy: tokens.recip(), ..Effect::default() }
}
