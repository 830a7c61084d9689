//! A bias that would have balanced the last batch exactly.

use super::rule::twin;
use super::sigmoid_bias;
use super::{Batch, EXPERTS_PER_TOKEN, Gate, Real, Routing, Setting, State, StateInit, Update, Values, balance, row};

pub static GATE: Gate = Gate {
    name: "quantile_balancing",
    summary: "scores, chosen by how far they exceed a threshold of each expert, which is the one that would have balanced the last batch",
    source: "Megatron-LM 2026",
    settings: &[&[EXPERTS_PER_TOKEN], OWN],
    tokens_multiple_of: |dims, values| {
        dims.num_experts / greatest_common_divisor(dims.num_experts, values.count("num_experts_per_tok"))
    },
    state: &[State { name: "threshold", shape: |dims, _| vec![dims.num_experts], init: StateInit::Constant(0.0) }],
    update: Some(Update { state: "threshold", twin: balance::quantile }),
    twin: twin!(route),
    wgsl: Some(WGSL),
    ..Gate::BASE
};

static OWN: &[Setting] = &[
    Setting::word("score", &["softmax", "sigmoid", "sqrt_softplus"], "what logits become"),
    Setting::switch("renormalize", true, "the weights of a token are divided by their sum"),
    Setting::fixed("scale", 1.0, [0.0, 1000.0], "multiplies the weights"),
    Setting::live("ema", 0.0, [0.0, 0.9999], "share of the old thresholds that stays"),
];

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let chosen = values.count("num_experts_per_tok");
    let thresholds = batch.state("threshold");
    let mut routing = Routing::new(&batch.dims, chosen);
    for token in batch.tokens() {
        let logits = batch.row(token);
        let scores: Vec<R> = match values.word("score") {
            "softmax" => row::softmax(logits),
            _ => logits.iter().map(|&logit| sigmoid_bias::score(logit, values)).collect(),
        };
        let keys: Vec<f64> = scores.iter().zip(thresholds).map(|(score, threshold)| score.value() - threshold).collect();
        let best = row::top(&keys, chosen);
        let weights = sigmoid_bias::weights(&scores, &best, values);
        best.into_iter().zip(weights).enumerate().for_each(|(rank, (expert, weight))| routing.put(token, rank, expert, weight));
        routing.push_scores(logits, &scores);
    }
    routing
}

/// A softmax goes through its shares.
const WGSL: &str = concat!(
    sigmoid_bias::scores_wgsl!(),
    "
fn choose() {
    softmax_all();
    var total = 0.0;
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        s[i] = select(score(l[i]).x, p[i], setting(S_SCORE) == SCORE_SOFTMAX);
        key[i] = s[i] - state_at(i);
        total += s[i];
    }
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        p[i] = s[i] / total;
    }
    total = 0.0;
    for (var rank = 0u; rank < WIDTH; rank++) {
        let expert = best_left();
        put(rank, expert, s[expert]);
        total += s[expert];
    }
    weigh(total);
}

fn differentiate() {
    weigh_back();
    if setting(S_SCORE) == SCORE_SOFTMAX {
        dp = ds;
        softmax_back();
    } else {
        for (var i = 0u; i < NUM_EXPERTS; i++) {
            dl[i] += ds[i] * score(l[i]).y;
        }
    }
}
"
);
