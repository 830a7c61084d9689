//! One expert drawn by the scores, with the gradient of a soft choice.

use super::rule::twin;
use super::{Batch, Distribution, Gate, Noise, Real, Routing, Setting, Values, row};

pub static GATE: Gate = Gate {
    name: "gumbel_straight_through",
    summary: "one expert, drawn by a softmax with a temperature; its weight is 1, but learns as if it were its score",
    source: "Jang et al. 2017, arXiv 1611.01144; as a baseline in Muqeeth et al. 2023, arXiv 2306.03745",
    width: |_, _| 1,
    settings: &[OWN],
    noise: &[Noise { name: "gumbel", distribution: Distribution::Gumbel, per_token: |dims, _| dims.num_experts }],
    twin: twin!(route),
    wgsl: Some(WGSL),
    ..Gate::BASE
};

static OWN: &[Setting] =
    &[Setting::live("temperature", 1.0, [0.01, 1000.0], "divides logits and noise: above 1 the soft choice is flatter")];

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let temperature = values.get("temperature");
    let mut routing = Routing::new(&batch.dims, 1);
    for token in batch.tokens() {
        let logits = batch.row(token);
        let noise = if batch.training { batch.noise("gumbel", token) } else { &[] };
        let noisy = |(expert, &logit): (usize, &R)| (logit + noise.get(expert).copied().unwrap_or(0.0)) / temperature;
        let scores = row::softmax(&logits.iter().enumerate().map(noisy).collect::<Vec<_>>());
        let best = row::best_first(&row::values(&scores))[0];
        let score = scores[best];
        routing.put(token, 0, best, score + (R::of(1.0) - score).stop());
        routing.push_scores(logits, &scores);
    }
    routing
}

const WGSL: &str = "
fn choose() {
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        key[i] = (l[i] + noise_at(NOISE_GUMBEL, i)) / setting(S_TEMPERATURE);
    }
    softmax_keys();
    put(0u, best_left(), 1.0);
}

// As if the weight were the score.
fn differentiate() {
    dp[chosen(0u)] += dw[0];
    var mean = 0.0;
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        mean += p[i] * dp[i];
    }
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        dl[i] += p[i] * (dp[i] - mean) / setting(S_TEMPERATURE);
    }
}
";
