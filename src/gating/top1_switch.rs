//! One expert per token, as in the Switch Transformer.

use super::rule::twin;
use super::{
    Batch, CAPACITY, DROP_OR_NEXT, Distribution, Gate, JITTER, Noise, Real, RouterSpec, Routing, RunsAs, Setting, Values, row,
};

pub static GATE: Gate = Gate {
    name: "top1_switch",
    summary: "every token takes the expert with the highest score, and the score is its weight",
    source: "Fedus et al. 2021, Switch Transformer, arXiv 2101.03961; mesh-tensorflow, flaxformer, DeepSpeed",
    width: |_, _| 1,
    settings: &[OWN, CAPACITY, DROP_OR_NEXT, JITTER],
    noise: &[Noise {
        name: "gumbel",
        distribution: Distribution::Gumbel,
        per_token: |dims, values| if values.word("select") == "sample" { dims.num_experts } else { 0 },
    }],
    losses: &[("load_balancing_loss", 0.01)],
    runs_as: Some(RunsAs { architecture: "olmoe", spec: |dims, _| Some(RouterSpec::new(dims.num_experts, 1)) }),
    twin: twin!(route),
    wgsl: Some(WGSL),
    ..Gate::BASE
};

static OWN: &[Setting] =
    &[Setting::word("select", &["argmax", "sample"], "while training, the best expert, or one drawn by the scores")];

fn route<R: Real>(batch: &Batch<'_, R>, _: &Values) -> Routing<R> {
    let mut routing = Routing::new(&batch.dims, 1);
    for token in batch.tokens() {
        let logits = batch.row(token);
        let scores = row::softmax(logits);
        let noise = if batch.training { batch.noise("gumbel", token) } else { &[] };
        let key = |(expert, logit): (usize, &R)| logit.value() + noise.get(expert).copied().unwrap_or(0.0);
        let best = row::best_first(&logits.iter().enumerate().map(key).collect::<Vec<_>>())[0];
        routing.push_scores(logits, &scores);
        routing.put(token, 0, best, scores[best]);
    }
    routing
}

const WGSL: &str = "
fn choose() {
    softmax_all();
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        key[i] = l[i] + noise_at(NOISE_GUMBEL, i);
    }
    let expert = best_left();
    put(0u, expert, p[expert]);
}

fn differentiate() {
    dp[chosen(0u)] += dw[0];
    softmax_back();
}
";
