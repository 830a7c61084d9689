//! The angle between a token and an expert, in few dimensions.

use super::rule::twin;
use super::{Batch, EXPERTS_PER_TOKEN, Gate, Init, Leaf, Real, Routing, Setting, Values, row};

pub static GATE: Gate = Gate {
    name: "cosine_router",
    summary: "logits are cosines between a projection of the token and a vector of each expert, divided by a learned temperature",
    source: "Chi et al. 2022, X-MoE, arXiv 2204.09179; Tutel",
    router_rows: |_, values| values.count("router_dim"),
    leaves: &[
        Leaf { name: "projector_bias", shape: |_, values| vec![values.count("router_dim")], init: Init::Constant(0.0) },
        Leaf {
            name: "expert_vectors",
            shape: |dims, values| vec![dims.num_experts, values.count("router_dim")],
            init: Init::Normal { std: 0.01 },
        },
        Leaf { name: "log_scale", shape: |_, _| vec![1], init: Init::Constant(std::f64::consts::LN_2) },
    ],
    settings: &[&[EXPERTS_PER_TOKEN], OWN],
    losses: &[("load_balancing_loss_top_k", 0.01)],
    twin: twin!(route),
    ..Gate::BASE
};

static OWN: &[Setting] = &[Setting::count("router_dim", 16, 4096, "numbers that a token is projected to")];

/// The largest factor of a cosine.
const MAX_SCALE: f64 = 100.0;
/// Vectors shorter than this are divided by it.
const LEAST_LENGTH: f64 = 1e-12;

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let chosen = values.count("num_experts_per_tok");
    let log_scale = batch.leaf("log_scale")[0];
    let scale = if log_scale.value() > MAX_SCALE.ln() { R::of(MAX_SCALE) } else { log_scale.exp() };
    let bias = batch.leaf("projector_bias");
    let experts: Vec<Vec<R>> =
        batch.leaf("expert_vectors").chunks_exact(bias.len()).map(|row| row::normalized(row, LEAST_LENGTH)).collect();
    let mut routing = Routing::new(&batch.dims, chosen);
    for token in batch.tokens() {
        let projected: Vec<R> = batch.row(token).iter().zip(bias).map(|(&number, &bias)| number + bias).collect();
        let direction = row::normalized(&projected, LEAST_LENGTH);
        let logits: Vec<R> = experts.iter().map(|expert| row::dot(&direction, expert) * scale).collect();
        let scores = row::softmax(&logits);
        let best = row::top(&row::values(&logits), chosen);
        let total = row::sum(best.iter().map(|&expert| scores[expert]));
        let divisor = if chosen > 1 { total } else { R::of(1.0) };
        best.into_iter().enumerate().for_each(|(rank, expert)| routing.put(token, rank, expert, scores[expert] / divisor));
        routing.push_scores(&logits, &scores);
    }
    routing
}
