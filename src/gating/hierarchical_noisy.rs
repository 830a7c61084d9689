//! Noisy top-k twice: over groups of experts, then over the experts of each chosen group.

use super::losses::{column_sums, squared_variation};
use super::noisy_top_k::{Noisy, OWN};
use super::rule::twin;
use super::{Batch, Distribution, Gate, Noise, Real, Routing, Setting, Values, row};

pub static GATE: Gate = Gate {
    name: "hierarchical_noisy",
    summary: "noisy top-k over groups of experts, then over the experts of each chosen group; a weight is the product of both",
    source: "Shazeer et al. 2017, arXiv 1701.06538, appendix B",
    width: |_, values| values.count("num_kept_groups") * values.count("experts_per_group"),
    router_rows: |dims, values| 2 * (values.count("num_groups") + dims.num_experts),
    settings: &[TWO_LEVELS, OWN],
    noise: &[
        Noise { name: "normal", distribution: Distribution::Normal, per_token: |_, values| values.count("num_groups") },
        Noise { name: "nested", distribution: Distribution::Normal, per_token: |dims, _| dims.num_experts },
    ],
    losses: &[("importance_loss", 0.1), ("load_loss", 0.1)],
    twin: twin!(route),
    ..Gate::BASE
};

static TWO_LEVELS: &[Setting] = &[
    Setting::count("num_groups", 4, super::MAX_EXPERTS, "groups that the experts are divided into"),
    Setting::count("num_kept_groups", 2, super::MAX_EXPERTS, "groups of a token"),
    Setting::count("experts_per_group", 1, super::MAX_EXPERTS, "experts that a token takes of each of its groups"),
];

/// The rows of the router are those of the groups, of their noise, of the experts, and of theirs.
fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let num_experts = batch.dims.num_experts;
    let (num_groups, kept, of_group) =
        (values.count("num_groups"), values.count("num_kept_groups"), values.count("experts_per_group"));
    let (group_len, epsilon) = (num_experts / num_groups, values.get("noise_epsilon"));
    let mut routing = Routing::new(&batch.dims, kept * of_group);
    let (mut group_load, mut nested_load) = (Vec::new(), vec![R::zero(); num_experts]);
    let (mut visitors, mut gates) = (vec![0.0; num_groups], Vec::new());
    for token in batch.tokens() {
        let (groups, experts) = batch.row(token).split_at(2 * num_groups);
        let draws = |name: &str| if batch.training { batch.noise(name, token) } else { &[] };
        let outer = Noisy::new(&groups[..num_groups], &groups[num_groups..], draws("normal"), epsilon);
        let (best, weights) = outer.choose(kept);
        group_load.extend(outer.load(kept));
        let mut of_groups = vec![R::zero(); num_groups];
        let mut chosen: Vec<(usize, R)> = Vec::with_capacity(routing.width);
        for (group, weight) in best.into_iter().zip(weights) {
            let range = group * group_len..(group + 1) * group_len;
            let inner_draws = draws("nested").get(range.clone()).unwrap_or(&[]);
            let inner = Noisy::new(&experts[range.clone()], &experts[num_experts..][range], inner_draws, epsilon);
            let (inner_best, shares) = inner.choose(of_group);
            chosen.extend(inner_best.into_iter().zip(shares).map(|(expert, share)| (group * group_len + expert, weight * share)));
            for (expert, load) in inner.load(of_group).into_iter().enumerate() {
                let total = &mut nested_load[group * group_len + expert];
                *total = *total + load;
            }
            of_groups[group] = weight;
            visitors[group] += 1.0;
        }
        for (rank, best) in
            row::best_first(&chosen.iter().map(|(_, weight)| weight.value()).collect::<Vec<_>>()).into_iter().enumerate()
        {
            let (expert, weight) = chosen[best];
            routing.put(token, rank, expert, weight);
        }
        gates.extend(of_groups);
        routing.logits.extend_from_slice(&groups[..num_groups]);
    }
    let of_groups = column_sums(&group_load, num_groups);
    let load = |expert: usize| of_groups[expert / group_len] * nested_load[expert] / visitors[expert / group_len].max(1.0);
    let load: Vec<R> = (0..num_experts).map(load).collect();
    let importance = column_sums(&routing.dense(num_experts), num_experts);
    routing.losses = vec![("load_loss", squared_variation(&load)), ("importance_loss", squared_variation(&importance))];
    routing.named = vec![("load", load), ("importance", importance), ("group_gates", gates)];
    routing
}
