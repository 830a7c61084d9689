//! The token's id decides who computes, a router how much it counts.

use super::rule::twin;
use super::{Batch, Chooser, EXPERTS_PER_TOKEN, Gate, Real, Routing, Setting, State, StateInit, Values, row};

pub static GATE: Gate = Gate {
    name: "hash_gated",
    summary: "a table gives every token id its experts, and a trained router their weights",
    source: "DeepSeek-V4, whose first layers do so",
    chooses: Chooser::Nobody,
    settings: &[&[EXPERTS_PER_TOKEN], OWN],
    state: &[State {
        name: "table",
        shape: |dims, values| vec![dims.vocab_size, values.count("num_experts_per_tok")],
        init: StateInit::RandomExperts,
    }],
    twin: twin!(route),
    wgsl: Some(WGSL),
    ..Gate::BASE
};

static OWN: &[Setting] = &[Setting::fixed("scale", 1.0, [0.0, 1000.0], "multiplies the weights")];

/// Added to the sum that weights are divided by.
const EPS: f64 = 1e-20;

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let (chosen, scale) = (values.count("num_experts_per_tok"), values.get("scale"));
    let mut routing = Routing::new(&batch.dims, chosen);
    for token in batch.tokens() {
        let logits = batch.row(token);
        let scores: Vec<R> = logits.iter().map(|logit| logit.softplus().sqrt()).collect();
        let experts = &batch.state("table")[batch.token_ids[token] as usize * chosen..][..chosen];
        let total = row::sum(experts.iter().map(|&expert| scores[expert as usize])) + EPS;
        for (rank, &expert) in experts.iter().enumerate() {
            routing.put(token, rank, expert as usize, scores[expert as usize] / total * scale);
        }
        routing.push_scores(logits, &scores);
    }
    routing
}

const WGSL: &str = "
fn choose() {
    var sum = 0.0;
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        s[i] = sqrt(softplus(l[i]));
        sum += s[i];
    }
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        p[i] = s[i] / sum;
    }
    total = 0.0;
    for (var rank = 0u; rank < WIDTH; rank++) {
        let expert = u32(state_at(token_id() * WIDTH + rank));
        put(rank, expert, s[expert]);
        total += s[expert];
    }
    scale_weights(setting(S_SCALE) / total);
}

// Of the scores of the chosen experts.
var<private> total: f32;

fn differentiate() {
    var mean = 0.0;
    for (var rank = 0u; rank < WIDTH; rank++) {
        mean += weight_of(rank) * dw[rank];
    }
    shares_back();
    for (var rank = 0u; rank < WIDTH; rank++) {
        ds[chosen(rank)] += (dw[rank] * setting(S_SCALE) - mean) / total;
    }
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        dl[i] += ds[i] * sigmoid(l[i]) / (2.0 * s[i]);
    }
}
";
