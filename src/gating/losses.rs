//! Losses that keep routers balanced, small or decided.
//!
//! What is counted carries no gradient. Every loss says its value from the routing of one layer, and, where a device has to add it to what the
//! router learns, how it reaches the scores of a token: [`Effect`]. Where code bases differ in a factor, each form has a name of its own.

use super::effect::{
    Effect, Sums, communication_effect, device_effect, importance_effect, mutual_information_effect, of_shares, sequence_effect,
};
use super::{Dims, NONE, Real, Routing, Values, Var, row};

/// A loss: an entry of [`LOSSES`].
#[derive(Debug)]
pub struct Loss {
    pub name: &'static str,
    pub summary: &'static str,
    pub source: &'static str,
    /// Its value where every expert has the same share; empty where that says nothing.
    pub balanced: &'static str,
    pub twin: LossTwin,
    /// How it reaches a token; `None` for a loss that its method or its parameters define alone.
    pub effect: Option<fn(&Sums) -> Effect>,
}

/// What a loss reads.
#[derive(Debug, Clone, Copy)]
pub struct Routed<'a, R> {
    pub routing: &'a Routing<R>,
    pub dims: &'a Dims,
    pub values: &'a Values,
    /// The router's matrix, `[rows, hidden_size]`; empty where no loss reads it.
    pub router: &'a [R],
    /// Share of each expert in a batch that is larger than this one; empty where there is none.
    pub global_share: &'a [f64],
}

/// A loss for both kinds of numbers.
pub struct LossTwin {
    pub plain: fn(&Routed<'_, f64>) -> f64,
    pub taped: for<'a, 't> fn(&Routed<'a, Var<'t>>) -> Var<'t>,
}

impl std::fmt::Debug for LossTwin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LossTwin")
    }
}

macro_rules! loss_twin {
    ($value:ident) => {
        LossTwin { plain: $value::<f64>, taped: |routed| $value(routed) }
    };
}

/// Every loss that any method can be given.
pub static LOSSES: &[Loss] = &[
    Loss {
        name: "load_balancing_loss",
        summary: "E sum_e f P: share of first choices times mean score; what Switch and GShard's code compute",
        source: "Fedus et al. 2021, arXiv 2101.03961",
        balanced: "1",
        twin: loss_twin!(load_balancing),
        effect: Some(|sums| of_shares(&sums.first_choices, sums.num_experts as f64 / sums.tokens().powi(2))),
    },
    Loss {
        name: "load_balancing_loss_gshard",
        summary: "the mean over experts of f P, as GShard's paper has it: the former over E squared",
        source: "Lepikhin et al. 2020, arXiv 2006.16668",
        balanced: "1/E^2",
        twin: loss_twin!(load_balancing_gshard),
        effect: Some(|sums| of_shares(&sums.first_choices, (sums.num_experts as f64 * sums.tokens().powi(2)).recip())),
    },
    Loss {
        name: "load_balancing_loss_top_k",
        summary: "E/k sum_e f P over all assignments: Megatron, DeepSeek, MegaBlocks; the expert-level loss of DeepSeek-V2",
        source: "Megatron-LM; Dai et al. 2024, arXiv 2401.06066",
        balanced: "1",
        twin: loss_twin!(load_balancing_top_k),
        effect: Some(|sums| of_shares(&sums.counts, sums.num_experts as f64 / (sums.num_chosen as f64 * sums.tokens().powi(2)))),
    },
    Loss {
        name: "load_balancing_loss_transformers",
        summary: "the former without 1/k, as transformers computes it for Mixtral: coefficients are smaller by k",
        source: "transformers, `load_balancing_loss_func`",
        balanced: "k",
        twin: loss_twin!(load_balancing_transformers),
        effect: Some(|sums| of_shares(&sums.counts, sums.num_experts as f64 / sums.tokens().powi(2))),
    },
    Loss {
        name: "global_balancing_loss",
        summary: "E/k sum_e f P, where f was counted over a larger batch",
        source: "Qiu et al. 2025, arXiv 2501.11873",
        balanced: "1",
        twin: loss_twin!(global_balancing),
        effect: Some(|sums| of_shares(&sums.global_share, sums.num_experts as f64 / sums.tokens())),
    },
    Loss {
        name: "sequence_loss",
        summary: "E/k sum_e f P within each sequence, over shares of the scores; f counts the best scores without a bias",
        source: "DeepSeek-V3, arXiv 2412.19437",
        balanced: "1",
        twin: loss_twin!(sequence),
        effect: Some(sequence_effect),
    },
    Loss {
        name: "device_loss",
        summary: "over groups of experts: mean share of assignments in the group times its sum of scores",
        source: "DeepSeek-V2, arXiv 2405.04434",
        balanced: "1",
        twin: loss_twin!(device),
        effect: Some(device_effect),
    },
    Loss {
        name: "communication_loss",
        summary: "over groups of experts: tokens that are sent to the group times its sum of scores",
        source: "DeepSeek-V2, arXiv 2405.04434",
        balanced: "1",
        twin: loss_twin!(communication),
        effect: Some(communication_effect),
    },
    Loss {
        name: "importance_loss",
        summary: "squared coefficient of variation of the sums of weights, by the variance of the population",
        source: "Shazeer et al. 2017, arXiv 1701.06538; tensor2tensor, V-MoE",
        balanced: "0",
        twin: loss_twin!(importance),
        effect: Some(|sums| importance_effect(sums, 1.0)),
    },
    Loss {
        name: "importance_loss_sample",
        summary: "the former by the variance of a sample, as Tutel and most ports have it: E/(E-1) of it",
        source: "Tutel",
        balanced: "0",
        twin: loss_twin!(importance_sample),
        effect: Some(|sums| importance_effect(sums, sums.num_experts as f64 / (sums.num_experts as f64 - 1.0))),
    },
    Loss {
        name: "z_loss",
        summary: "mean of the squared log of the sum of exponentials: keeps logits small",
        source: "Zoph et al. 2022, ST-MoE, arXiv 2202.08906",
        balanced: "",
        twin: loss_twin!(z),
        effect: Some(|sums| Effect { lse: sums.tokens().recip(), ..Effect::default() }),
    },
    Loss {
        name: "entropy_loss",
        summary: "mean entropy of a token's scores: less makes the router decided; with a negative coefficient it spreads",
        source: "Huang et al. 2024, arXiv 2403.07652",
        balanced: "ln E",
        twin: loss_twin!(entropy),
        effect: Some(|sums| Effect { entropy: sums.tokens().recip(), ..Effect::default() }),
    },
    Loss {
        name: "mutual_information_loss",
        summary: "mean entropy of a token's scores less the entropy of their mean: decided per token, spread over the batch",
        source: "Shen et al. 2023, ModuleFormer, arXiv 2306.04640",
        balanced: "0 where no token is decided, -ln E where every one is",
        twin: loss_twin!(mutual_information),
        effect: Some(mutual_information_effect),
    },
    Loss {
        name: "orthogonality_loss",
        summary: "mean squared cosine of different rows of the router's matrix",
        source: "Omi et al. 2025, arXiv 2506.14038",
        balanced: "0",
        twin: loss_twin!(orthogonality),
        effect: None,
    },
    Loss {
        name: "tutel_loss",
        summary: "half of importance and load as Tutel adds them up, where the load compares scores with a noisy logit",
        source: "Tutel",
        balanced: "0",
        twin: loss_twin!(tutel),
        effect: None,
    },
];

/// Losses that only one method has: its rule gives their values.
pub static OWN_LOSSES: &[(&str, &str, &str)] = &[
    (
        "load_loss",
        "noisy_top_k, hierarchical_noisy, v_moe",
        "squared coefficient of variation of the smooth load, which has a gradient through the noise",
    ),
    ("second_place_loss", "top2_gshard", "half the load-balancing loss of second choices among the scores without the first one"),
    (
        "stable_balance_loss",
        "stable_moe",
        "sum over experts of how much too often they are chosen times the weights of their tokens",
    ),
    ("distillation_loss", "stable_moe", "cross-entropy by which the light router learns the choices"),
    ("l1_loss", "relu_routing", "weights of experts that are active too often"),
    ("router_bce", "mixture_of_depths", "cross-entropy of the router's score against being chosen"),
    ("predictor_bce", "mixture_of_depths", "cross-entropy by which the predictor learns who is chosen, from the token alone"),
    ("selector_entropy", "dselect_k", "mean entropy of what a selector chooses"),
    (
        "unused_codes",
        "dselect_k",
        "mean of one over the share of codes that name an expert, where their number is no power of two",
    ),
];

/// A loss by its name.
pub fn loss(name: &str) -> Option<&'static Loss> {
    LOSSES.iter().find(|loss| loss.name == name)
}

impl Loss {
    pub fn value(&self, routed: &Routed<'_, f64>) -> f64 {
        let own = routed.routing.losses.iter().find(|(name, _)| *name == self.name);
        own.map_or_else(|| (self.twin.plain)(routed), |(_, value)| *value)
    }

    pub fn value_taped<'t>(&self, routed: &Routed<'_, Var<'t>>) -> Var<'t> {
        let own = routed.routing.losses.iter().find(|(name, _)| *name == self.name);
        own.map_or_else(|| (self.twin.taped)(routed), |(_, value)| *value)
    }
}

/// Scores of every token, divided by their sum, or what the method takes instead: `[num_tokens, num_experts]`.
pub fn shares<R: Real>(routing: &Routing<R>, num_experts: usize) -> Vec<R> {
    if !routing.shares.is_empty() {
        return routing.shares.clone();
    }
    let share = |scores: &[R]| {
        let total = row::sum(scores.iter().copied());
        scores.iter().map(|&score| score / total).collect::<Vec<_>>()
    };
    routing.scores.chunks_exact(num_experts).flat_map(share).collect()
}

/// `factor sum_e given_e sum_t share_te`
fn weighted<R: Real>(routed: &Routed<'_, R>, given: &[f64], factor: f64) -> R {
    let shares = shares(routed.routing, routed.dims.num_experts);
    row::sum(shares.iter().enumerate().map(|(place, &share)| share * given[place % given.len()])) * factor
}

fn numbers(counts: &[usize]) -> Vec<f64> {
    counts.iter().map(|&count| count as f64).collect()
}

fn load_balancing<R: Real>(routed: &Routed<'_, R>) -> R {
    let Dims { num_tokens, num_experts, .. } = *routed.dims;
    let first = numbers(&routed.routing.first_choices(num_experts));
    weighted(routed, &first, num_experts as f64 / (num_tokens as f64).powi(2))
}

fn load_balancing_gshard<R: Real>(routed: &Routed<'_, R>) -> R {
    load_balancing(routed) / (routed.dims.num_experts as f64).powi(2)
}

fn load_balancing_transformers<R: Real>(routed: &Routed<'_, R>) -> R {
    let Dims { num_tokens, num_experts, .. } = *routed.dims;
    let counts = numbers(&routed.routing.counts(num_experts));
    weighted(routed, &counts, num_experts as f64 / (num_tokens as f64).powi(2))
}

fn load_balancing_top_k<R: Real>(routed: &Routed<'_, R>) -> R {
    load_balancing_transformers(routed) / routed.routing.width as f64
}

fn global_balancing<R: Real>(routed: &Routed<'_, R>) -> R {
    let Dims { num_tokens, num_experts, .. } = *routed.dims;
    weighted(routed, routed.global_share, num_experts as f64 / num_tokens as f64)
}

fn sequence<R: Real>(routed: &Routed<'_, R>) -> R {
    let Dims { num_tokens, num_experts, seq_len, .. } = *routed.dims;
    let chosen = routed.routing.width;
    let shares = shares(routed.routing, num_experts);
    let of_sequence = |first: usize| {
        let mut counts = vec![0.0; num_experts];
        for token in first..first + seq_len {
            let scores = row::values(&routed.routing.scores[token * num_experts..][..num_experts]);
            row::top(&scores, chosen).into_iter().for_each(|expert| counts[expert] += 1.0);
        }
        let shares = shares[first * num_experts..][..seq_len * num_experts].iter().enumerate();
        row::sum(shares.map(|(place, &share)| share * counts[place % num_experts]))
    };
    let factor = num_experts as f64 / (chosen as f64 * (seq_len as f64).powi(2)) / (num_tokens / seq_len) as f64;
    row::sum((0..num_tokens).step_by(seq_len).map(of_sequence)) * factor
}

pub(super) fn groups(values: &Values) -> usize {
    values.number("num_groups").map_or(1, |number| number as usize)
}

/// Tokens that use each group.
pub(super) fn group_tokens<R: Real>(routed: &Routed<'_, R>) -> Vec<f64> {
    let num_groups = groups(routed.values);
    let group_len = routed.dims.num_experts / num_groups;
    let mut tokens = vec![0.0; num_groups];
    for row in routed.routing.expert_ids.chunks_exact(routed.routing.width.max(1)) {
        for (group, tokens) in tokens.iter_mut().enumerate() {
            *tokens += f64::from(u8::from(row.iter().any(|&id| id != NONE && id as usize / group_len == group)));
        }
    }
    tokens
}

/// Per expert what its group has, for the two losses of groups.
fn of_groups<R: Real>(routed: &Routed<'_, R>, of_group: &[f64]) -> R {
    let Dims { num_tokens, num_experts, .. } = *routed.dims;
    let per_expert: Vec<f64> = (0..num_experts).map(|expert| of_group[expert * of_group.len() / num_experts]).collect();
    weighted(routed, &per_expert, (num_tokens as f64).recip())
}

/// The mean over a group of `E c / (k T)`.
pub(super) fn device_fractions(counts: &[f64], num_groups: usize, num_assignments: f64) -> Vec<f64> {
    let group_len = counts.len() / num_groups;
    let mean = |counts: &[f64]| counts.iter().sum::<f64>() / group_len as f64 * (group_len * num_groups) as f64 / num_assignments;
    counts.chunks_exact(group_len).map(mean).collect()
}

fn device<R: Real>(routed: &Routed<'_, R>) -> R {
    let num_assignments = (routed.dims.num_tokens * routed.routing.width) as f64;
    let counts = numbers(&routed.routing.counts(routed.dims.num_experts));
    of_groups(routed, &device_fractions(&counts, groups(routed.values), num_assignments))
}

fn communication<R: Real>(routed: &Routed<'_, R>) -> R {
    let kept = routed.values.number("num_kept_groups").unwrap_or(1.0);
    let factor = groups(routed.values) as f64 / (kept * routed.dims.num_tokens as f64);
    let fractions: Vec<f64> = group_tokens(routed).into_iter().map(|tokens| tokens * factor).collect();
    of_groups(routed, &fractions)
}

/// Squared coefficient of variation; `1e-10` keeps it finite where nothing is chosen.
pub(super) fn squared_variation<R: Real>(sums: &[R]) -> R {
    let mean = row::mean(sums);
    let variance = row::sum(sums.iter().map(|&sum| (sum - mean).square())) / sums.len() as f64;
    variance / (mean.square() + 1e-10)
}

/// The sums of columns of `[num_tokens, columns]`.
pub(super) fn column_sums<R: Real>(table: &[R], columns: usize) -> Vec<R> {
    (0..columns).map(|column| row::sum(table.iter().skip(column).step_by(columns).copied())).collect()
}

fn importance<R: Real>(routed: &Routed<'_, R>) -> R {
    let num_experts = routed.dims.num_experts;
    squared_variation(&column_sums(&routed.routing.dense(num_experts), num_experts))
}

fn importance_sample<R: Real>(routed: &Routed<'_, R>) -> R {
    let num_experts = routed.dims.num_experts as f64;
    importance(routed) * (num_experts / (num_experts - 1.0))
}

fn rows<'a, R>(table: &'a [R], dims: &Dims) -> std::slice::ChunksExact<'a, R> {
    table.chunks_exact(dims.num_experts)
}

fn z<R: Real>(routed: &Routed<'_, R>) -> R {
    row::sum(rows(&routed.routing.logits, routed.dims).map(|logits| row::log_sum_exp(logits).square()))
        / routed.dims.num_tokens as f64
}

fn entropy<R: Real>(routed: &Routed<'_, R>) -> R {
    let shares = shares(routed.routing, routed.dims.num_experts);
    row::sum(rows(&shares, routed.dims).map(row::entropy)) / routed.dims.num_tokens as f64
}

fn mutual_information<R: Real>(routed: &Routed<'_, R>) -> R {
    let shares = shares(routed.routing, routed.dims.num_experts);
    let mean: Vec<R> =
        column_sums(&shares, routed.dims.num_experts).into_iter().map(|sum| sum / routed.dims.num_tokens as f64).collect();
    entropy(routed) - row::entropy(&mean)
}

fn orthogonality<R: Real>(routed: &Routed<'_, R>) -> R {
    let rows: Vec<Vec<R>> = routed.router.chunks_exact(routed.dims.hidden_size).map(|row| row::normalized(row, 0.0)).collect();
    let others = |index: usize| (0..rows.len()).filter(move |&other| other != index);
    let squares = (0..rows.len()).flat_map(|index| others(index).map(move |other| (index, other)));
    let squares: Vec<R> = squares.map(|(a, b)| row::dot(&rows[a], &rows[b]).square()).collect();
    if squares.is_empty() { R::zero() } else { row::mean(&squares) }
}

fn tutel<R: Real>(routed: &Routed<'_, R>) -> R {
    let Dims { num_tokens, num_experts, .. } = *routed.dims;
    let noisy = routed.routing.named("noisy_logits").unwrap_or(&routed.routing.logits);
    let std = routed.routing.named("noise_std").map_or(1.0, |std| std[0].value());
    let last = routed.routing.width - 1;
    let mut passing = Vec::with_capacity(num_tokens * num_experts);
    for (scores, logits) in rows(&routed.routing.scores, routed.dims).zip(rows(noisy, routed.dims)) {
        let threshold = logits[row::best_first(&row::values(logits))[last]];
        passing.extend(scores.iter().map(|&score| ((score - threshold) / std).normal_cdf()));
    }
    let sample = num_experts as f64 / (num_experts as f64 - 1.0);
    let of = |table: &[R]| squared_variation(&column_sums(table, num_experts)) * sample;
    (of(&routed.routing.scores) + of(&passing)) * 0.5
}
