//! Every expert with a positive logit: no choice has to be made, and the routing is continuous.

use super::rule::twin;
use super::{Batch, Gate, Real, Routing, Setting, State, StateInit, Update, Values, balance, row};

pub static GATE: Gate = Gate {
    name: "relu_routing",
    summary: "every expert whose logit is positive, with the logit as weight; a penalty that is steered keeps them as few as wanted",
    source: "Wang et al. 2024, ReMoE, arXiv 2412.14711",
    width: |dims, _| dims.num_experts,
    settings: &[OWN],
    state: &[State { name: "l1_coefficient", shape: |_, _| vec![1], init: StateInit::Constant(1e-8) }],
    losses: &[("l1_loss", 1.0)],
    update: Some(Update { state: "l1_coefficient", twin: balance::penalty }),
    twin: twin!(route),
    wgsl: Some(WGSL),
    ..Gate::BASE
};

static OWN: &[Setting] = &[
    Setting::fixed("num_experts_per_tok", 2.0, [1.0, 65_536.0], "experts that a token is to have on average"),
    Setting::live("l1_step", 1.2, [1.0, 10.0], "factor of the penalty's coefficient from step to step"),
];

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let (num_tokens, num_experts) = (batch.dims.num_tokens, batch.dims.num_experts);
    let mut routing = Routing::new(&batch.dims, num_experts);
    for token in batch.tokens() {
        let logits = batch.row(token);
        let weights: Vec<R> = logits.iter().map(|logit| logit.relu()).collect();
        for (expert, &weight) in weights.iter().enumerate().filter(|(_, weight)| weight.value() > 0.0) {
            routing.put(token, expert, expert, weight);
        }
        routing.push_scores(logits, &weights);
    }
    // Losses see the weights as they are.
    routing.shares.clone_from(&routing.scores);
    let counts = routing.counts(num_experts);
    let products = routing.scores.iter().enumerate().map(|(place, &weight)| weight * counts[place % num_experts] as f64);
    let factor = num_experts as f64 / (values.get("num_experts_per_tok") * (num_tokens as f64).powi(2));
    routing.losses.push(("l1_loss", row::sum(products) * factor));
    routing
}

const WGSL: &str = "
fn choose() {
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        p[i] = max(l[i], 0.0);
        if l[i] > 0.0 {
            put(i, i, l[i]);
        }
    }
}

fn differentiate() {
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        if l[i] > 0.0 {
            dl[i] += dw[i] + dp[i];
        }
    }
}
";
