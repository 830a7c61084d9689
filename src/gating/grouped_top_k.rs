//! The same number of experts from every group.

use super::rule::twin;
use super::{Batch, CAPACITY, DROP, Gate, Real, Routing, Setting, Values, row};

pub static GATE: Gate = Gate {
    name: "grouped_top_k",
    summary: "the best k experts of every group: groups are balanced by construction",
    source: "Yang et al. 2021, M6-T, arXiv 2105.15082; Tang et al. 2025, Pangu Pro MoE, arXiv 2505.21411",
    width: |_, values| values.count("num_groups") * values.count("experts_per_group"),
    settings: &[OWN, CAPACITY, DROP],
    losses: &[("load_balancing_loss_top_k", 0.01)],
    twin: twin!(route),
    wgsl: Some(WGSL),
    ..Gate::BASE
};

static OWN: &[Setting] = &[
    Setting::count("num_groups", 2, super::MAX_EXPERTS, "groups that the experts are divided into"),
    Setting::count("experts_per_group", 1, super::MAX_EXPERTS, "experts that a token takes of every group"),
    Setting::switch(
        "softmax_per_group",
        false,
        "scores are a softmax within each group, as with a router of its own, instead of over all experts",
    ),
];

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let (num_groups, of_group) = (values.count("num_groups"), values.count("experts_per_group"));
    let group_len = batch.dims.num_experts / num_groups;
    let per_group = values.flag("softmax_per_group");
    let mut routing = Routing::new(&batch.dims, num_groups * of_group);
    for token in batch.tokens() {
        let logits = batch.row(token);
        let scores: Vec<R> =
            if per_group { logits.chunks_exact(group_len).flat_map(row::softmax).collect() } else { row::softmax(logits) };
        for (group, keys) in row::values(logits).chunks_exact(group_len).enumerate() {
            for (place, expert) in row::top(keys, of_group).into_iter().enumerate() {
                let expert = group * group_len + expert;
                routing.put(token, group * of_group + place, expert, scores[expert]);
            }
        }
        routing.push_scores(logits, &scores);
    }
    if per_group {
        // Every group has its own loss, and they are added up.
        routing.shares.clone_from(&routing.scores);
    }
    routing
}

const WGSL: &str = "
fn choose() {
    let num_groups = u32(setting(S_NUM_GROUPS));
    let of_group = WIDTH / num_groups;
    let group_len = NUM_EXPERTS / num_groups;
    if setting(S_SOFTMAX_PER_GROUP) == 1.0 {
        for (var group = 0u; group < num_groups; group++) {
            softmax_range(group * group_len, group_len);
        }
    } else {
        softmax_all();
    }
    copy_keys();
    for (var group = 0u; group < num_groups; group++) {
        for (var place = 0u; place < of_group; place++) {
            let expert = best_left_of(group * group_len, group_len);
            put(group * of_group + place, expert, p[expert]);
        }
    }
}

fn differentiate() {
    for (var rank = 0u; rank < WIDTH; rank++) {
        dp[chosen(rank)] += dw[rank];
    }
    let num_groups = u32(setting(S_NUM_GROUPS));
    let group_len = NUM_EXPERTS / num_groups;
    if setting(S_SOFTMAX_PER_GROUP) == 1.0 {
        for (var group = 0u; group < num_groups; group++) {
            softmax_back_range(group * group_len, group_len);
        }
    } else {
        softmax_back();
    }
}
";
