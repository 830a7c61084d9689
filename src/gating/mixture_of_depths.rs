//! A layer takes the tokens that need it most; the others pass by.

use super::expert_choice::{TOKENS, tokens_of_expert};
use super::rule::twin;
use super::{Batch, Chooser, Gate, Init, Leaf, Real, Routing, Values, row};

pub static GATE: Gate = Gate {
    name: "mixture_of_depths",
    summary: "every expert takes the tokens with its highest logits, which are the weights; a predictor learns who they are without looking ahead",
    source: "Raposo et al. 2024, arXiv 2404.02258",
    chooses: Chooser::Expert,
    width: |dims, _| dims.num_experts,
    leaves: &[Leaf {
        name: "predictor",
        shape: |dims, _| vec![dims.num_experts, dims.hidden_size],
        init: Init::Normal { std: 0.02 },
    }],
    settings: &[TOKENS],
    losses: &[("router_bce", 0.01), ("predictor_bce", 1.0)],
    causal: false,
    twin: twin!(route),
    ..Gate::BASE
};

/// Cross-entropy of a logit against what is so, in nats.
fn cross_entropy<R: Real>(logit: R, is: bool) -> R {
    logit.softplus() - logit * f64::from(u8::from(is))
}

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let num_experts = batch.dims.num_experts;
    let taken = tokens_of_expert(batch, values);
    let mut routing = Routing::new(&batch.dims, num_experts);
    for expert in 0..num_experts {
        let keys: Vec<f64> = batch.tokens().map(|token| batch.row(token)[expert].value()).collect();
        for token in row::top(&keys, taken) {
            routing.put(token, expert, expert, batch.row(token)[expert]);
        }
    }
    let mut predictions = Vec::with_capacity(batch.router.len());
    let (mut of_router, mut of_predictor) = (R::zero(), R::zero());
    for token in batch.tokens() {
        let logits = batch.row(token);
        // The predictor looks at the token, and does not move it.
        let input: Vec<R> = batch.input(token).iter().map(|number| number.stop()).collect();
        for (expert, weights) in batch.leaf("predictor").chunks_exact(input.len()).enumerate() {
            let is_taken = routing.kept[token * num_experts + expert];
            let prediction = row::dot(&input, weights);
            of_router = of_router + cross_entropy(logits[expert], is_taken);
            of_predictor = of_predictor + cross_entropy(prediction, is_taken);
            predictions.push(prediction);
        }
        routing.push_scores(logits, logits);
    }
    let len = predictions.len() as f64;
    routing.losses = vec![("router_bce", of_router / len), ("predictor_bce", of_predictor / len)];
    routing.named = vec![("predictor_logits", predictions)];
    routing
}
