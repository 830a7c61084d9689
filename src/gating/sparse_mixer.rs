//! One expert, or two, drawn by their scores, with a gradient that estimates that of the draw.

use super::rule::twin;
use super::{
    Batch, Distribution, EXPERTS_PER_TOKEN, Gate, Init, Leaf, Noise, Real, RouterMethod, RouterSpec, Routing, RunsAs, Setting,
    Values, row,
};

pub static GATE: Gate = Gate {
    name: "sparse_mixer",
    summary: "experts near the best one, drawn by a softmax over them; weights are changed so that the gradient estimates that of the draw",
    source: "Liu et al. 2023, arXiv 2310.00811 and arXiv 2409.12136; microsoft/SparseMixer, Phi-3.5-MoE",
    leaves: &[Leaf {
        name: "omega",
        shape: |dims, values| vec![if values.word("version") == "v1" { dims.hidden_size } else { 0 }],
        init: Init::Constant(1.0),
    }],
    settings: &[&[EXPERTS_PER_TOKEN], OWN],
    noise: &[
        Noise {
            name: "exponential",
            distribution: Distribution::Exponential,
            per_token: |dims, values| values.count("num_experts_per_tok") * dims.num_experts,
        },
        Noise {
            name: "uniform",
            distribution: Distribution::Uniform,
            per_token: |_, values| values.count("num_experts_per_tok"),
        },
    ],
    losses: &[("load_balancing_loss", 0.01)],
    runs_as: Some(RunsAs {
        architecture: "phimoe",
        spec: |dims, values| {
            let method = RouterMethod::SparseMixer { jitter: values.get("mask_jitter") as f32 };
            (values.count("num_experts_per_tok") == 2).then(|| RouterSpec { method, ..RouterSpec::new(dims.num_experts, 2) })
        },
    }),
    twin: twin!(route),
    wgsl: Some(WGSL),
    ..Gate::BASE
};

static OWN: &[Setting] = &[
    Setting::word("version", &["v2", "v1"], "`v1` doubles gradients, and its output is multiplied with a learned vector"),
    Setting::live(
        "mask_jitter",
        0.01,
        [0.0, 10.0],
        "experts whose logit is further below the best than twice this share are left out",
    ),
];

/// What the weight of an expert is in a round, and what its gradient is as if it were.
fn weight<R: Real>(score: R, is_best: bool, draw: Option<f64>, version: &str) -> R {
    let Some(draw) = draw else { return score };
    let (full, factor, gradient) = match version {
        "v1" => (is_best || draw > 0.5, 0.5, score * 2.0),
        _ => (is_best || draw > 0.75, 0.3333, score),
    };
    // 0.3333 and 0.6667, as the published code has them.
    let value = match version {
        "v1" => score.value() * if full { 1.0 } else { factor },
        _ => score.value() * (factor + 0.6667 * f64::from(u8::from(full))),
    };
    gradient + (value - gradient.value())
}

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let (chosen, num_experts) = (values.count("num_experts_per_tok"), batch.dims.num_experts);
    let (jitter, version) = (values.get("mask_jitter"), values.word("version"));
    let mut routing = Routing::new(&batch.dims, chosen);
    let mut near_scores = Vec::new();
    for token in batch.tokens() {
        let logits = batch.row(token);
        let mut left: Vec<bool> = vec![true; num_experts];
        for round in 0..chosen {
            let only_left = |key: &dyn Fn(usize) -> f64| -> Vec<f64> {
                (0..num_experts).map(|expert| if left[expert] { key(expert) } else { f64::NEG_INFINITY }).collect()
            };
            let best = row::best_first(&only_left(&|expert| logits[expert].value()))[0];
            let top = logits[best].value();
            let near = |expert: usize| {
                let logit = logits[expert].value();
                // Two zeros are near each other, though their distance divided by their size is no number.
                let far = (top - logit) / logit.abs().max(top) > 2.0 * jitter;
                left[expert] && !far
            };
            let scores = row::masked_softmax(logits, near);
            let (draws, uniform) = match batch.training {
                true => (&batch.noise("exponential", token)[round * num_experts..], Some(batch.noise("uniform", token)[round])),
                false => (&[][..], None),
            };
            let key = |expert: usize| if near(expert) { logits[expert].value() - draws[expert].ln() } else { f64::NEG_INFINITY };
            let expert = if draws.is_empty() { best } else { row::best_first(&only_left(&key))[0] };
            routing.put(token, round, expert, weight(scores[expert], expert == best, uniform, version));
            left[expert] = false;
            if round == 0 {
                routing.push_scores(logits, &row::softmax(logits));
                near_scores.extend(scores);
            }
        }
    }
    // Its balance loss is over the scores of near experts, and divides by slightly more than the number of tokens.
    let counts = routing.first_choices(num_experts);
    let products = near_scores.iter().enumerate().map(|(place, &score)| score * counts[place % num_experts] as f64);
    let num_tokens = batch.dims.num_tokens as f64;
    let loss = row::sum(products) * (num_experts as f64 / (num_tokens * (num_tokens + 1e-6)));
    routing.losses.push(("load_balancing_loss", loss));
    routing
}

const WGSL: &str = "
// Experts near the best of those that are left: their softmax becomes `s`, and their keys are drawn by it.
fn open_round(round: u32) -> u32 {
    copy_keys();
    let best = best_left();
    let top = l[best];
    var total = 0.0;
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        let is_far = (top - l[i]) > 2.0 * setting(S_MASK_JITTER) * max(abs(l[i]), top);
        s[i] = select(exp(l[i] - top), 0.0, is_taken[i] || is_far);
        total += s[i];
        key[i] = LOWEST;
        if s[i] > 0.0 {
            key[i] = l[i];
            if is_training() {
                key[i] -= log(noise_at(NOISE_EXPONENTIAL, round * NUM_EXPERTS + i));
            }
        }
    }
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        s[i] /= total;
    }
    return best;
}

fn choose() {
    softmax_all();
    let is_first_version = setting(S_VERSION) == VERSION_V1;
    for (var round = 0u; round < WIDTH; round++) {
        let best = open_round(round);
        let expert = best_left();
        var weight = s[expert];
        if is_training() {
            let limit = select(0.75, 0.5, is_first_version);
            if !(expert == best || noise_at(NOISE_UNIFORM, round) > limit) {
                weight *= select(0.3333, 0.5, is_first_version);
            }
        }
        put(round, expert, weight);
    }
}

fn differentiate() {
    softmax_back();
    let factor = select(1.0, 2.0, setting(S_VERSION) == VERSION_V1 && is_training());
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        is_taken[i] = false;
    }
    for (var round = 0u; round < WIDTH; round++) {
        _ = open_round(round);
        let expert = chosen(round);
        let slope = factor * dw[round] * s[expert];
        for (var i = 0u; i < NUM_EXPERTS; i++) {
            dl[i] -= slope * s[i];
        }
        dl[expert] += slope;
        is_taken[expert] = true;
    }
}
";
