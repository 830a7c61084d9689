//! As many experts as it takes to be sure.

use super::rule::twin;
use super::{Batch, Gate, Real, Routing, Setting, Values, row};

pub static GATE: Gate = Gate {
    name: "top_p",
    summary: "experts by falling score until their sum exceeds a threshold: tokens that are hard to place get more",
    source: "Huang et al. 2024, arXiv 2403.07652",
    width: |dims, _| dims.num_experts,
    settings: &[OWN],
    losses: &[("load_balancing_loss_transformers", 0.01), ("entropy_loss", 0.0001)],
    twin: twin!(route),
    wgsl: Some(WGSL),
    ..Gate::BASE
};

static OWN: &[Setting] = &[Setting::live(
    "threshold",
    0.4,
    [0.0, 2.0],
    "experts are added until the sum of their scores exceeds this; the one that does so counts in",
)];

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let threshold = values.get("threshold");
    let mut routing = Routing::new(&batch.dims, batch.dims.num_experts);
    for token in batch.tokens() {
        let logits = batch.row(token);
        let scores = row::softmax(logits);
        let mut total = 0.0;
        for (rank, expert) in row::best_first(&row::values(logits)).into_iter().enumerate() {
            routing.put(token, rank, expert, scores[expert]);
            total += scores[expert].value();
            if total > threshold {
                break;
            }
        }
        routing.push_scores(logits, &scores);
    }
    routing
}

const WGSL: &str = "
fn choose() {
    softmax_all();
    copy_keys();
    var total = 0.0;
    for (var rank = 0u; rank < WIDTH; rank++) {
        let expert = best_left();
        put(rank, expert, p[expert]);
        total += p[expert];
        if total > setting(S_THRESHOLD) {
            break;
        }
    }
}

fn differentiate() {
    for (var rank = 0u; rank < WIDTH; rank++) {
        if chosen(rank) != NONE {
            dp[chosen(rank)] += dw[rank];
        }
    }
    softmax_back();
}
";
