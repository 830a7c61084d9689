//! One expert corrects what a dense part computes for every token.

use super::rule::twin;
use super::{Batch, CAPACITY, DROP, Gate, Init, JITTER, Leaf, Real, Routing, Values, row};

pub static GATE: Gate = Gate {
    name: "residual_moe",
    summary: "every token has a dense part and its best expert, mixed by two learned shares: a dropped token still has the dense part",
    source: "Rajbhandari et al. 2022, DeepSpeed-MoE, arXiv 2201.05596",
    width: |_, _| 1,
    router_rows: |dims, _| dims.num_experts + 2,
    leaves: &[Leaf { name: "coefficient_bias", shape: |_, _| vec![2], init: Init::Constant(0.0) }],
    settings: &[CAPACITY, DROP, JITTER],
    losses: &[("load_balancing_loss", 0.01)],
    twin: twin!(route),
    ..Gate::BASE
};

fn route<R: Real>(batch: &Batch<'_, R>, _: &Values) -> Routing<R> {
    let bias = batch.leaf("coefficient_bias");
    let mut routing = Routing::new(&batch.dims, 1);
    let (mut routed, mut shared) = (Vec::new(), Vec::new());
    for token in batch.tokens() {
        let (logits, coefficients) = batch.row(token).split_at(batch.dims.num_experts);
        let scores = row::softmax(logits);
        let best = row::best_first(&row::values(logits))[0];
        routing.put(token, 0, best, scores[best]);
        routing.push_scores(logits, &scores);
        let shares = row::softmax(&[coefficients[0] + bias[0], coefficients[1] + bias[1]]);
        routed.push(shares[0]);
        shared.push(shares[1]);
    }
    routing.routed_scale = Some(routed);
    routing.shared_scale = Some(shared);
    routing
}
