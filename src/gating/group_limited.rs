//! The best experts of the best groups of experts.

use super::rule::twin;
use super::{Batch, EXPERTS_PER_TOKEN, ExpertGroups, Gate, GroupScore, Real, RouterSpec, Routing, RunsAs, Setting, Values, row};

pub static GATE: Gate = Gate {
    name: "group_limited",
    summary: "the best k experts of the best groups, where a group is worth its best expert: few devices per token",
    source: "DeepSeek-V2, arXiv 2405.04434",
    settings: &[&[EXPERTS_PER_TOKEN], GROUPS, OWN],
    losses: &[("load_balancing_loss_top_k", 0.003), ("device_loss", 0.05), ("communication_loss", 0.02)],
    runs_as: Some(RunsAs {
        architecture: "deepseek_v2",
        spec: |dims, values| {
            let base = RouterSpec::new(dims.num_experts, values.count("num_experts_per_tok"));
            let (num_groups, num_kept) = (values.count("num_groups"), values.count("num_kept_groups"));
            let groups = Some(ExpertGroups { num_groups, num_kept, score: GroupScore::Max });
            Some(RouterSpec { groups, scale: values.get("scale") as f32, ..base })
        },
    }),
    twin: twin!(route),
    wgsl: Some(WGSL),
    ..Gate::BASE
};

/// Groups of experts that follow each other.
pub(super) static GROUPS: &[Setting] = &[
    Setting::count("num_groups", 2, super::MAX_EXPERTS, "groups that the experts are divided into"),
    Setting::count("num_kept_groups", 1, super::MAX_EXPERTS, "groups that a token may choose from"),
];

static OWN: &[Setting] = &[Setting::fixed("scale", 1.0, [0.0, 1000.0], "multiplies the weights")];

/// The best groups, where a group is worth the sum of its best `counted` keys.
pub(super) fn best_groups(keys: &[f64], values: &Values, counted: usize) -> Vec<usize> {
    let worth = |group: &[f64]| {
        let best = row::top(group, counted);
        best.into_iter().map(|expert| group[expert]).sum()
    };
    let worths: Vec<f64> = keys.chunks_exact(keys.len() / values.count("num_groups")).map(worth).collect();
    row::top(&worths, values.count("num_kept_groups"))
}

/// The best `chosen` experts of some groups.
pub(super) fn best_within(keys: &[f64], groups: &[usize], values: &Values, chosen: usize) -> Vec<usize> {
    let group_len = keys.len() / values.count("num_groups");
    let mut best = row::best_first(keys);
    best.retain(|expert| groups.contains(&(expert / group_len)));
    best.truncate(chosen);
    best
}

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let (chosen, scale) = (values.count("num_experts_per_tok"), values.get("scale"));
    let mut routing = Routing::new(&batch.dims, chosen);
    for token in batch.tokens() {
        let logits = batch.row(token);
        let scores = row::softmax(logits);
        let keys = row::values(logits);
        let groups = best_groups(&keys, values, 1);
        let best = best_within(&keys, &groups, values, chosen);
        best.into_iter().enumerate().for_each(|(rank, expert)| routing.put(token, rank, expert, scores[expert] * scale));
        routing.push_scores(logits, &scores);
    }
    routing
}

const WGSL: &str = "
fn choose() {
    softmax_all();
    copy_keys();
    keep_groups(u32(setting(S_NUM_GROUPS)), u32(setting(S_NUM_KEPT_GROUPS)), 1u);
    for (var rank = 0u; rank < WIDTH; rank++) {
        let expert = best_left();
        put(rank, expert, p[expert] * setting(S_SCALE));
    }
}

fn differentiate() {
    for (var rank = 0u; rank < WIDTH; rank++) {
        dp[chosen(rank)] += dw[rank] * setting(S_SCALE);
    }
    softmax_back();
}
";
