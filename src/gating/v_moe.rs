//! Fixed noise on the logits, and places by priority: the routers of vision models.

use super::losses::{column_sums, squared_variation};
use super::rule::twin;
use super::{
    Batch, CAPACITY, DROP, Distribution, EXPERTS_PER_TOKEN, Gate, Noise, Real, RouterSpec, Routing, RunsAs, Setting, Values, row,
};

pub static GATE: Gate = Gate {
    name: "v_moe",
    summary: "the best k of logits with noise of a fixed size; with `drop` = `bpr` important tokens get their places first",
    source: "Riquelme et al. 2021, V-MoE, arXiv 2106.05974; google-research/vmoe",
    settings: &[&[EXPERTS_PER_TOKEN], OWN, CAPACITY, DROP],
    noise: &[Noise { name: "normal", distribution: Distribution::Normal, per_token: |dims, _| dims.num_experts }],
    losses: &[("importance_loss", 0.005), ("load_loss", 0.005)],
    runs_as: Some(RunsAs {
        architecture: "olmoe",
        spec: |dims, values| Some(RouterSpec::new(dims.num_experts, values.count("num_experts_per_tok"))),
    }),
    twin: twin!(route),
    wgsl: Some(WGSL),
    ..Gate::BASE
};

static OWN: &[Setting] = &[Setting::live(
    "noise_std",
    1.0,
    [0.0, 100.0],
    "standard deviation of the noise while training, divided by the number of experts",
)];

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let (num_experts, chosen) = (batch.dims.num_experts, values.count("num_experts_per_tok"));
    let std = values.get("noise_std") / num_experts as f64;
    let mut routing = Routing::new(&batch.dims, chosen);
    let (mut load, mut noisy, mut clean_scores) = (Vec::new(), Vec::new(), Vec::new());
    for token in batch.tokens() {
        let clean = batch.row(token);
        let draws = if batch.training { batch.noise("normal", token) } else { &[] };
        let logits: Vec<R> = match draws {
            [] => clean.to_vec(),
            draws => clean.iter().zip(draws).map(|(&logit, &draw)| logit + draw * std).collect(),
        };
        let scores = row::softmax(&logits);
        let best = row::top(&row::values(&logits), chosen);
        let threshold = logits[best[chosen - 1]];
        best.into_iter().enumerate().for_each(|(rank, expert)| routing.put(token, rank, expert, scores[expert]));
        if !draws.is_empty() && std > 0.0 {
            load.extend(clean.iter().map(|&logit| ((logit - threshold) / std).normal_cdf() / batch.dims.num_tokens as f64));
        }
        clean_scores.extend(row::softmax(clean));
        routing.push_scores(clean, &scores);
        noisy.extend(logits);
    }
    let load = if load.is_empty() { R::zero() } else { squared_variation(&column_sums(&load, num_experts)) };
    routing.losses.push(("load_loss", load));
    // The importance is that of the scores without noise.
    routing.losses.push(("importance_loss", squared_variation(&column_sums(&clean_scores, num_experts))));
    routing.named = vec![("noisy_logits", noisy)];
    routing
}

const WGSL: &str = "
fn choose() {
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        key[i] = l[i] + noise_at(NOISE_NORMAL, i) * setting(S_NOISE_STD) / f32(NUM_EXPERTS);
    }
    softmax_keys();
    for (var rank = 0u; rank < WIDTH; rank++) {
        let expert = best_left();
        put(rank, expert, p[expert]);
    }
}

fn differentiate() {
    for (var rank = 0u; rank < WIDTH; rank++) {
        dp[chosen(rank)] += dw[rank];
    }
    softmax_back();
}
";
