//! The best experts of every token, as decoders of language models take them.

use super::rule::twin;
use super::{
    Batch, CAPACITY, DROP, EXPERTS_PER_TOKEN, Gate, JITTER, Normalize, Real, RouterMethod, RouterSpec, Routing, RunsAs, Setting,
    Values, WeightOn, row,
};

pub static GATE: Gate = Gate {
    name: "top_k_softmax",
    summary: "the best k experts of every token, weighted by a softmax over all or over the chosen, or by sigmoids",
    source: "Mixtral, OLMoE, Qwen, DeepSeekMoE, Llama 4; MegaBlocks, Megatron-LM",
    settings: &[&[EXPERTS_PER_TOKEN], OWN, CAPACITY, DROP, JITTER],
    losses: &[("load_balancing_loss_top_k", 0.01), ("z_loss", 0.001)],
    runs_as: Some(RunsAs { architecture: "mixtral", spec: |dims, values| spec(dims.num_experts, values) }),
    twin: twin!(route),
    wgsl: Some(WGSL),
    ..Gate::BASE
};

static OWN: &[Setting] = &[
    Setting::word(
        "score",
        &["softmax_after", "softmax_before", "sigmoid"],
        "what a weight is made from: a softmax over the chosen experts, a softmax over all, or a sigmoid of each",
    ),
    Setting::switch("renormalize", false, "the weights of a token are divided by their sum"),
    Setting::fixed("eps", 0.0, [0.0, 1.0], "added to the sum that weights are divided by"),
    Setting::fixed("scale", 1.0, [0.0, 1000.0], "multiplies the weights"),
    Setting::word("weight_on", &["output", "input"], "what the weight multiplies: the expert's output, or its input"),
];

/// A softmax over all experts, whose best weights are divided by their sum.
pub(super) fn renormalized(num_experts: usize, num_experts_per_tok: usize) -> RouterSpec {
    RouterSpec { normalize: Normalize::Sum { floor: 0.0 }, ..RouterSpec::new(num_experts, num_experts_per_tok) }
}

fn spec(num_experts: usize, values: &Values) -> Option<RouterSpec> {
    let method = match values.word("score") {
        "softmax_after" => RouterMethod::SoftmaxOfTopK,
        "sigmoid" => RouterMethod::Sigmoid,
        _ => RouterMethod::Softmax,
    };
    let weight_on = if values.word("weight_on") == "input" { WeightOn::Input } else { WeightOn::Output };
    let normalize = if values.flag("renormalize") { Normalize::Sum { floor: 0.0 } } else { Normalize::No };
    let base = RouterSpec::new(num_experts, values.count("num_experts_per_tok"));
    let spec = RouterSpec { method, weight_on, normalize, scale: values.get("scale") as f32, ..base };
    // No model adds something to the sum that could be seen.
    (values.get("eps") < 1e-12 || !values.flag("renormalize")).then_some(spec)
}

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let chosen = values.count("num_experts_per_tok");
    let (score, renormalize, scale) = (values.word("score"), values.flag("renormalize"), values.get("scale"));
    let mut routing = Routing::new(&batch.dims, chosen);
    if values.word("weight_on") == "input" {
        routing.weight_on = WeightOn::Input;
    }
    for token in batch.tokens() {
        let logits = batch.row(token);
        let best = row::top(&row::values(logits), chosen);
        let scores: Vec<R> = match score {
            "sigmoid" => logits.iter().map(|logit| logit.sigmoid()).collect(),
            _ => row::softmax(logits),
        };
        let weights: Vec<R> = match score {
            "softmax_after" => row::softmax(&best.iter().map(|&expert| logits[expert]).collect::<Vec<_>>()),
            _ => best.iter().map(|&expert| scores[expert]).collect(),
        };
        let divisor = if renormalize { row::sum(weights.iter().copied()) + values.get("eps") } else { R::of(1.0) };
        for (rank, (&expert, weight)) in best.iter().zip(weights).enumerate() {
            routing.put(token, rank, expert, weight / divisor * scale);
        }
        routing.push_scores(logits, &scores);
        if score == "sigmoid" {
            routing.shares.extend(row::softmax(logits));
        }
    }
    routing
}

const WGSL: &str = "
fn choose() {
    softmax_all();
    copy_keys();
    let how = setting(S_SCORE);
    if how == SCORE_SIGMOID {
        for (var i = 0u; i < NUM_EXPERTS; i++) {
            s[i] = sigmoid(l[i]);
        }
    } else if how == SCORE_SOFTMAX_BEFORE {
        s = p;
    }
    var total = 0.0;
    for (var rank = 0u; rank < WIDTH; rank++) {
        let expert = best_left();
        if how == SCORE_SOFTMAX_AFTER {
            s[expert] = exp(l[expert] - l[select(chosen(0u), expert, rank == 0u)]);
        }
        put(rank, expert, s[expert]);
        total += s[expert];
    }
    divide_by = select(1.0, total, how == SCORE_SOFTMAX_AFTER);
    if setting(S_RENORMALIZE) == 1.0 {
        divide_by = select(total + setting(S_EPS), total * (1.0 + setting(S_EPS)), how == SCORE_SOFTMAX_AFTER);
    }
    scale_weights(setting(S_SCALE) / divide_by);
}

// What the weights were divided by.
var<private> divide_by: f32;

fn differentiate() {
    let how = setting(S_SCORE);
    let scale = setting(S_SCALE);
    let is_divided = how == SCORE_SOFTMAX_AFTER || setting(S_RENORMALIZE) == 1.0;
    var mean = 0.0;
    for (var rank = 0u; rank < WIDTH; rank++) {
        mean += weight_of(rank) * dw[rank];
    }
    for (var rank = 0u; rank < WIDTH; rank++) {
        let expert = chosen(rank);
        // The gradient of the score.
        let of_score = (dw[rank] * scale - select(0.0, mean, is_divided)) / divide_by;
        if how == SCORE_SIGMOID {
            dl[expert] += of_score * s[expert] * (1.0 - s[expert]);
        } else if how == SCORE_SOFTMAX_BEFORE {
            dp[expert] += of_score;
        } else {
            dl[expert] += of_score * s[expert];
        }
    }
    softmax_back();
}
";
