//! Two experts per token, as in GShard, GLaM, mesh-tensorflow and DeepSpeed.

use super::rule::twin;
use super::{Batch, CAPACITY, DROP, Distribution, Gate, JITTER, Noise, Real, Routing, RunsAs, Setting, Values, row};

pub static GATE: Gate = Gate {
    name: "top2_gshard",
    summary: "two experts per token, of which the second may be left out where it hardly counts",
    source: "Lepikhin et al. 2020, GShard, arXiv 2006.16668; mesh-tensorflow, DeepSpeed, fairseq",
    width: |_, _| 2,
    settings: &[OWN, CAPACITY, DROP, JITTER],
    noise: &[
        Noise {
            name: "uniform",
            distribution: Distribution::Uniform,
            per_token: |_, values| usize::from(values.word("second") == "random"),
        },
        Noise {
            name: "gumbel",
            distribution: Distribution::Gumbel,
            per_token: |dims, values| if values.word("second") == "gumbel" { dims.num_experts } else { 0 },
        },
    ],
    losses: &[("load_balancing_loss", 0.01)],
    runs_as: Some(RunsAs {
        architecture: "mixtral",
        spec: |dims, _| Some(super::top_k_softmax::renormalized(dims.num_experts, 2)),
    }),
    twin: twin!(route),
    wgsl: Some(WGSL),
    ..Gate::BASE
};

static OWN: &[Setting] = &[
    Setting::word(
        "second",
        &["all", "random", "threshold", "gumbel"],
        "who gets a second expert: every token, by chance where its weight is below `threshold`, only tokens where it is above, or every token \
         with the second one drawn by the scores",
    ),
    Setting::live("threshold", 0.5, [0.0, 1.0], "the weight from which the second expert is always used"),
    Setting::fixed("eps", 1e-9, [0.0, 1.0], "added to the sum that weights are divided by"),
];

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let num_experts = batch.dims.num_experts;
    let (second, threshold, eps) = (values.word("second"), values.get("threshold"), values.get("eps"));
    let after_drop = values.flag("renormalize_after_drop");
    let mut routing = Routing::new(&batch.dims, 2);
    let mut second_choices = vec![0.0; num_experts];
    let mut others = Vec::with_capacity(batch.dims.num_tokens);
    for token in batch.tokens() {
        let logits = batch.row(token);
        let scores = row::softmax(logits);
        let first = row::best_first(&row::values(logits))[0];
        let noise = if batch.training { batch.noise("gumbel", token) } else { &[] };
        let key = |(expert, logit): (usize, &R)| match expert == first {
            true => f64::NEG_INFINITY,
            false => logit.value() + noise.get(expert).copied().unwrap_or(0.0),
        };
        let keys: Vec<f64> = logits.iter().enumerate().map(key).collect();
        let next = row::best_first(&keys)[0];
        let divisor = if after_drop { R::of(1.0) } else { scores[first] + scores[next] + eps };
        let weight = scores[next] / divisor;
        let used = match second {
            "random" if batch.training => weight.value() > batch.noise("uniform", token)[0] * threshold,
            "threshold" => weight.value() > threshold,
            _ => true,
        };
        routing.put(token, 0, first, scores[first] / divisor);
        if used && num_experts > 1 {
            routing.put(token, 1, next, weight);
        }
        second_choices[next] += 1.0;
        others.push(row::masked_softmax(logits, |expert| expert != first));
        routing.push_scores(logits, &scores);
    }
    let share = |other: &Vec<R>| row::sum(other.iter().zip(&second_choices).map(|(&score, &count)| score * count));
    let factor = 0.5 * num_experts as f64 / (batch.dims.num_tokens as f64).powi(2);
    routing.losses.push(("second_place_loss", row::sum(others.iter().map(share)) * factor));
    routing
}

const WGSL: &str = "
fn divisor() -> f32 {
    return select(p[chosen(0u)] + p[second] + setting(S_EPS), 1.0, setting(S_RENORMALIZE_AFTER_DROP) == 1.0);
}

// The second expert, whether or not it is used.
var<private> second: u32;

fn choose() {
    softmax_all();
    copy_keys();
    let first = best_left();
    put(0u, first, 0.0);
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        key[i] += noise_at(NOISE_GUMBEL, i);
    }
    second = best_left();
    let by = divisor();
    let weight = p[second] / by;
    let how = setting(S_SECOND);
    var is_used = true;
    if how == SECOND_RANDOM && is_training() {
        is_used = weight > noise_at(NOISE_UNIFORM, 0u) * setting(S_THRESHOLD);
    } else if how == SECOND_THRESHOLD {
        is_used = weight > setting(S_THRESHOLD);
    }
    put(0u, first, p[first] / by);
    if is_used {
        put(1u, second, weight);
    }
}

fn differentiate() {
    let first = chosen(0u);
    let by = divisor();
    let grad_second = select(dw[1], 0.0, chosen(1u) == NONE);
    // Both weights have the same divisor, which is no constant unless weights are divided after dropping.
    let mean = select((p[first] * dw[0] + p[second] * grad_second) / (by * by), 0.0, setting(S_RENORMALIZE_AFTER_DROP) == 1.0);
    dp[first] += dw[0] / by - mean;
    dp[second] += grad_second / by - mean;
    softmax_back();
}
";
