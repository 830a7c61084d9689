//! Every expert computes every token; the router's softmax weighs them.

use super::rule::twin;
use super::{Batch, Chooser, Gate, Real, RouterSpec, Routing, RunsAs, Values, row};

pub static GATE: Gate = Gate {
    name: "dense_softmax",
    summary: "every expert computes every token, weighted by a softmax: as good as routing can be, at the price of all experts",
    source: "Jacobs et al. 1991, as a layer",
    chooses: Chooser::Everybody,
    width: |dims, _| dims.num_experts,
    runs_as: Some(RunsAs { architecture: "olmoe", spec: |dims, _| Some(RouterSpec::new(dims.num_experts, dims.num_experts)) }),
    twin: twin!(route),
    wgsl: Some(WGSL),
    ..Gate::BASE
};

pub(super) fn route<R: Real>(batch: &Batch<'_, R>, _: &Values) -> Routing<R> {
    let mut routing = Routing::new(&batch.dims, batch.dims.num_experts);
    for token in batch.tokens() {
        let logits = batch.row(token);
        let scores = row::softmax(logits);
        routing.push_scores(logits, &scores);
        scores.into_iter().enumerate().for_each(|(expert, score)| routing.put(token, expert, expert, score));
    }
    routing
}

pub(super) const WGSL: &str = "
fn choose() {
    softmax_all();
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        put(i, i, p[i]);
    }
}

fn differentiate() {
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        dp[i] += dw[i];
    }
    softmax_back();
}
";
