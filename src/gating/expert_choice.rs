//! Experts choose tokens: all are equally busy, and tokens get different numbers of experts.

use super::rule::twin;
use super::{Batch, Chooser, Gate, Real, Routing, Setting, Values, capacity, row};

pub static GATE: Gate = Gate {
    name: "expert_choice",
    summary: "every expert takes the same number of tokens, those with its highest scores; a token gets any number of experts",
    source: "Zhou et al. 2022, arXiv 2202.09368; mesh-tensorflow for the scores over tokens",
    chooses: Chooser::Expert,
    width: |dims, _| dims.num_experts,
    settings: &[TOKENS, OWN],
    causal: false,
    twin: twin!(route),
    ..Gate::BASE
};

/// How many tokens an expert takes.
pub(super) static TOKENS: &[Setting] = &[
    Setting::fixed(
        "capacity_factor",
        2.0,
        [0.0, 64.0],
        "an expert takes so many times the tokens that it would get if every token had one expert",
    ),
    Setting::word("capacity_rounding", &["ceil", "floor", "round"], "how the number of tokens becomes whole"),
    Setting::fixed("min_capacity", 0.0, [0.0, 65_536.0], "an expert takes at least so many"),
];

static OWN: &[Setting] = &[
    Setting::switch("over_tokens", false, "scores are a softmax over the tokens of the batch instead of over the experts"),
    Setting::switch("normalize_by_count", false, "the weights of a token are divided by the number of its experts"),
];

/// Tokens that each expert takes.
pub(super) fn tokens_of_expert<R: Real>(batch: &Batch<'_, R>, values: &Values) -> usize {
    let exact = values.get("capacity_factor") * batch.dims.num_tokens as f64 / batch.dims.num_experts as f64;
    let whole = capacity::rounded(exact, values.word("capacity_rounding")).max(values.get("min_capacity"));
    (whole as usize).min(batch.dims.num_tokens)
}

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let (num_tokens, num_experts) = (batch.dims.num_tokens, batch.dims.num_experts);
    let taken = tokens_of_expert(batch, values);
    let over_tokens = values.flag("over_tokens");
    let columns: Vec<Vec<R>> =
        (0..num_experts).map(|expert| batch.tokens().map(|token| batch.row(token)[expert]).collect()).collect();
    let mut routing = Routing::new(&batch.dims, num_experts);
    let by_column: Vec<Vec<R>> =
        if over_tokens { columns.iter().map(|column| row::softmax(column)).collect() } else { Vec::new() };
    for token in batch.tokens() {
        let logits = batch.row(token);
        let scores = if over_tokens { by_column.iter().map(|column| column[token]).collect() } else { row::softmax(logits) };
        routing.push_scores(logits, &scores);
    }
    // A score that is nearly 1 has lost what distinguishes it: the logit less the log of the sum has not.
    let log_sums: Vec<f64> = batch.tokens().map(|token| row::log_sum_exp(&row::values(batch.row(token)))).collect();
    let mut takers = vec![0usize; num_tokens];
    for (expert, column) in columns.iter().enumerate() {
        let key = |(token, logit): (usize, &R)| if over_tokens { logit.value() } else { logit.value() - log_sums[token] };
        for token in row::top(&column.iter().enumerate().map(key).collect::<Vec<_>>(), taken) {
            let score = routing.scores[token * num_experts + expert];
            routing.put(token, expert, expert, score);
            takers[token] += 1;
        }
    }
    if values.flag("normalize_by_count") {
        for (place, weight) in routing.weights.iter_mut().enumerate() {
            *weight = *weight / takers[place / num_experts].max(1) as f64;
        }
    }
    routing
}
