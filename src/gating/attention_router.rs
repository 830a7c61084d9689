//! Experts attend to each other before one is chosen.

use super::rule::twin;
use super::{Batch, EXPERTS_PER_TOKEN, Gate, Real, RouterMethod, RouterSpec, Routing, RunsAs, Values, row};

pub static GATE: Gate = Gate {
    name: "attention_router",
    summary: "logits come from an attention of the experts to each other, with query, key and value of each from the token",
    source: "Wu et al. 2024, Yuan 2.0-M32, arXiv 2405.17976",
    router_rows: |dims, _| 3 * dims.num_experts,
    settings: &[&[EXPERTS_PER_TOKEN]],
    losses: &[("load_balancing_loss_top_k", 0.01)],
    runs_as: Some(RunsAs {
        architecture: "yuan",
        spec: |dims, values| {
            let base = RouterSpec::new(dims.num_experts, values.count("num_experts_per_tok"));
            Some(RouterSpec { method: RouterMethod::SoftmaxOfTopK, attention: true, ..base })
        },
    }),
    twin: twin!(route),
    ..Gate::BASE
};

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let (num_experts, chosen) = (batch.dims.num_experts, values.count("num_experts_per_tok"));
    let mut routing = Routing::new(&batch.dims, chosen);
    for token in batch.tokens() {
        let (queries, rest) = batch.row(token).split_at(num_experts);
        let (keys, experts) = rest.split_at(num_experts);
        let logit = |&query: &R| row::dot(&row::softmax(&keys.iter().map(|&key| query * key).collect::<Vec<_>>()), experts);
        let logits: Vec<R> = queries.iter().map(logit).collect();
        let best = row::top(&row::values(&logits), chosen);
        let weights = row::softmax(&best.iter().map(|&expert| logits[expert]).collect::<Vec<_>>());
        best.into_iter().zip(weights).enumerate().for_each(|(rank, (expert, weight))| routing.put(token, rank, expert, weight));
        routing.push_scores(&logits, &row::softmax(&logits));
    }
    routing
}
