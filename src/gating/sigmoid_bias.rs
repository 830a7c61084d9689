//! A bias that is moved by the load decides who is chosen; the weights do not know it.

use super::group_limited::{best_groups, best_within};
use super::rule::twin;
use super::{
    Batch, EXPERTS_PER_TOKEN, ExpertGroups, Gate, GroupScore, Normalize, Real, RouterMethod, RouterSpec, Routing, RunsAs,
    Setting, State, StateInit, Update, Values, balance, row,
};

pub static GATE: Gate = Gate {
    name: "sigmoid_bias",
    summary: "sigmoids, chosen by their sum with a bias that rises while an expert gets too little: balance without a loss",
    source: "Wang et al. 2024, arXiv 2408.15664; DeepSeek-V3, arXiv 2412.19437",
    settings: &[&[EXPERTS_PER_TOKEN], OWN],
    state: &[State { name: "selection_bias", shape: |dims, _| vec![dims.num_experts], init: StateInit::Constant(0.0) }],
    losses: &[("sequence_loss", 0.0001)],
    update: Some(Update { state: "selection_bias", twin: balance::bias }),
    runs_as: Some(RunsAs { architecture: "deepseek_v3", spec: |dims, values| spec(dims.num_experts, values) }),
    twin: twin!(route),
    wgsl: Some(WGSL),
    ..Gate::BASE
};

static OWN: &[Setting] = &[
    Setting::word("score", &["sigmoid", "sqrt_softplus"], "what logits become: `sqrt_softplus` is that of DeepSeek-V4"),
    Setting::switch("renormalize", true, "the weights of a token are divided by their sum"),
    Setting::fixed("scale", 1.0, [0.0, 1000.0], "multiplies the weights"),
    Setting::live("bias_rate", 0.001, [0.0, 1.0], "how far the bias moves in a step"),
    Setting::switch("bias_proportional", false, "the bias moves in proportion to how much is missing, instead of by its sign"),
    Setting::count("num_groups", 1, super::MAX_EXPERTS, "groups that the experts are divided into"),
    Setting::count(
        "num_kept_groups",
        1,
        super::MAX_EXPERTS,
        "groups that a token may choose from, by the sum of their two best experts",
    ),
];

/// Added to the sum that weights are divided by.
const EPS: f64 = 1e-20;

fn spec(num_experts: usize, values: &Values) -> Option<RouterSpec> {
    if values.word("score") != "sigmoid" {
        return None;
    }
    let (num_groups, num_kept) = (values.count("num_groups"), values.count("num_kept_groups"));
    let groups = (num_groups > 1).then_some(ExpertGroups { num_groups, num_kept, score: GroupScore::SumOfTopTwo });
    let normalize = if values.flag("renormalize") { Normalize::Sum { floor: 0.0 } } else { Normalize::No };
    let base = RouterSpec::new(num_experts, values.count("num_experts_per_tok"));
    let scale = values.get("scale") as f32;
    Some(RouterSpec { method: RouterMethod::Sigmoid, selection_bias: true, groups, normalize, scale, ..base })
}

/// The score of a logit.
pub(super) fn score<R: Real>(logit: R, values: &Values) -> R {
    if values.word("score") == "sqrt_softplus" { logit.softplus().sqrt() } else { logit.sigmoid() }
}

/// Weights of the chosen experts, from the scores of all.
pub(super) fn weights<R: Real>(scores: &[R], best: &[usize], values: &Values) -> Vec<R> {
    let total = row::sum(best.iter().map(|&expert| scores[expert])) + EPS;
    let divisor = if values.flag("renormalize") { total } else { R::of(1.0) };
    best.iter().map(|&expert| scores[expert] / divisor * values.get("scale")).collect()
}

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let chosen = values.count("num_experts_per_tok");
    let bias = batch.state("selection_bias");
    let mut routing = Routing::new(&batch.dims, chosen);
    for token in batch.tokens() {
        let logits = batch.row(token);
        let scores: Vec<R> = logits.iter().map(|&logit| score(logit, values)).collect();
        let keys: Vec<f64> = scores.iter().zip(bias).map(|(score, bias)| score.value() + bias).collect();
        let groups = best_groups(&keys, values, 2);
        let best = best_within(&keys, &groups, values, chosen);
        let weights = weights(&scores, &best, values);
        best.into_iter().zip(weights).enumerate().for_each(|(rank, (expert, weight))| routing.put(token, rank, expert, weight));
        routing.push_scores(logits, &scores);
    }
    routing
}

/// Scores of logits, and the weights that are made of them, with the ways back.
macro_rules! scores_wgsl {
    () => {
        "
// The score of a logit, and its slope.
fn score(logit: f32) -> vec2<f32> {
    if setting(S_SCORE) == SCORE_SQRT_SOFTPLUS {
        let root = sqrt(softplus(logit));
        return vec2<f32>(root, sigmoid(logit) / (2.0 * root));
    }
    let value = sigmoid(logit);
    return vec2<f32>(value, value * (1.0 - value));
}

fn weigh(total: f32) {
    divide_by = select(1.0, total + 1e-20, setting(S_RENORMALIZE) == 1.0);
    scale_weights(setting(S_SCALE) / divide_by);
}

// What the weights were divided by.
var<private> divide_by: f32;

// The gradient of scores, from that of weights and of shares.
fn weigh_back() {
    var mean = 0.0;
    for (var rank = 0u; rank < WIDTH; rank++) {
        mean += weight_of(rank) * dw[rank];
    }
    mean = select(0.0, mean, setting(S_RENORMALIZE) == 1.0);
    shares_back();
    for (var rank = 0u; rank < WIDTH; rank++) {
        ds[chosen(rank)] += (dw[rank] * setting(S_SCALE) - mean) / divide_by;
    }
}

"
    };
}
pub(super) use scores_wgsl;

const WGSL: &str = concat!(
    scores_wgsl!(),
    "
fn choose() {
    var total = 0.0;
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        s[i] = score(l[i]).x;
        key[i] = s[i] + state_at(i);
        total += s[i];
    }
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        p[i] = s[i] / total;
    }
    keep_groups(u32(setting(S_NUM_GROUPS)), u32(setting(S_NUM_KEPT_GROUPS)), 2u);
    total = 0.0;
    for (var rank = 0u; rank < WIDTH; rank++) {
        let expert = best_left();
        put(rank, expert, s[expert]);
        total += s[expert];
    }
    weigh(total);
}

fn differentiate() {
    weigh_back();
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        dl[i] += ds[i] * score(l[i]).y;
    }
}
"
);
