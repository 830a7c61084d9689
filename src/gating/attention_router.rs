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
    wgsl: Some(WGSL),
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

const WGSL: &str = "
// Whether the logits are computed from the router's product, and are not its first columns.
const OWN_LOGITS: bool = true;

// The share of expert j in what expert i attends to, where `most` is the largest product and `total` the sum of exponentials.
fn attention(i: u32) -> vec2<f32> {
    var most = LOWEST;
    for (var j = 0u; j < NUM_EXPERTS; j++) {
        most = max(most, z[i] * z[NUM_EXPERTS + j]);
    }
    var total = 0.0;
    for (var j = 0u; j < NUM_EXPERTS; j++) {
        total += exp(z[i] * z[NUM_EXPERTS + j] - most);
    }
    return vec2<f32>(most, total);
}

fn choose() {
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        let row = attention(i);
        l[i] = 0.0;
        for (var j = 0u; j < NUM_EXPERTS; j++) {
            l[i] += exp(z[i] * z[NUM_EXPERTS + j] - row.x) / row.y * z[2u * NUM_EXPERTS + j];
        }
    }
    softmax_all();
    copy_keys();
    var total = 0.0;
    for (var rank = 0u; rank < WIDTH; rank++) {
        let expert = best_left();
        put(rank, expert, p[expert]);
        total += p[expert];
    }
    scale_weights(1.0 / total);
}

fn differentiate() {
    var mean = 0.0;
    for (var rank = 0u; rank < WIDTH; rank++) {
        mean += weight_of(rank) * dw[rank];
    }
    for (var rank = 0u; rank < WIDTH; rank++) {
        dl[chosen(rank)] += weight_of(rank) * (dw[rank] - mean);
    }
    softmax_back();
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        let row = attention(i);
        for (var j = 0u; j < NUM_EXPERTS; j++) {
            let share = exp(z[i] * z[NUM_EXPERTS + j] - row.x) / row.y;
            let value = z[2u * NUM_EXPERTS + j];
            dz[2u * NUM_EXPERTS + j] += share * dl[i];
            // The softmax of a row: its mean value is the logit.
            let of_product = share * dl[i] * (value - l[i]);
            dz[i] += of_product * z[NUM_EXPERTS + j];
            dz[NUM_EXPERTS + j] += of_product * z[i];
        }
    }
}
";
