//! A million experts of one neuron each, found by the sum of two short lists.

use super::rule::twin;
use super::{Batch, Gate, Init, Leaf, Mixing, Real, Routing, Setting, Values, row};

pub static GATE: Gate = Gate {
    name: "peer",
    summary: "experts of one neuron each, as many as a square; the best are found among the sums of two short lists of keys",
    source: "He 2024, PEER, arXiv 2407.04153",
    width: |_, values| values.count("num_heads") * values.count("num_experts_per_tok"),
    router_rows: |_, values| 2 * values.count("num_heads") * values.count("key_dim"),
    leaves: &[
        Leaf { name: "key_a", shape: keys, init: Init::Normal { std: 0.02 } },
        Leaf { name: "key_b", shape: keys, init: Init::Normal { std: 0.02 } },
    ],
    settings: &[OWN],
    twin: twin!(route),
    ..Gate::BASE
};

static OWN: &[Setting] = &[
    Setting::count("num_experts_per_tok", 4, 4096, "neurons of each head"),
    Setting::count("num_heads", 2, 1024, "queries of a token"),
    Setting::count("num_keys", 8, 4096, "keys of each of the two lists; there are as many neurons as their square"),
    Setting::count("key_dim", 4, 4096, "width of a key"),
    Setting::switch("sigmoid", false, "weights are sigmoids instead of a softmax over the chosen neurons"),
];

fn keys(_: &super::Dims, values: &Values) -> Vec<usize> {
    vec![values.count("num_heads"), values.count("num_keys"), values.count("key_dim")]
}

/// The query of a head is two vectors, one for each list.
fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let (chosen, num_heads) = (values.count("num_experts_per_tok"), values.count("num_heads"));
    let (num_keys, len) = (values.count("num_keys"), values.count("key_dim"));
    let mut routing = Routing::new(&batch.dims, num_heads * chosen);
    let mut all_scores = Vec::new();
    for token in batch.tokens() {
        for head in 0..num_heads {
            let (a, b) = batch.row(token)[head * 2 * len..][..2 * len].split_at(len);
            let list = |name: &str, query: &[R]| -> Vec<R> {
                let keys = &batch.leaf(name)[head * num_keys * len..][..num_keys * len];
                keys.chunks_exact(len).map(|key| row::dot(query, key)).collect()
            };
            let (a, b) = (list("key_a", a), list("key_b", b));
            let (best_a, best_b) = (row::top(&row::values(&a), chosen), row::top(&row::values(&b), chosen));
            let pairs: Vec<[usize; 2]> = best_a.iter().flat_map(|&i| best_b.iter().map(move |&j| [i, j])).collect();
            let sums: Vec<R> = pairs.iter().map(|&[i, j]| a[i] + b[j]).collect();
            let best = row::top(&row::values(&sums), chosen);
            let scores: Vec<R> = best.iter().map(|&pair| sums[pair]).collect();
            let weights =
                if values.flag("sigmoid") { scores.iter().map(|score| score.sigmoid()).collect() } else { row::softmax(&scores) };
            for (place, (pair, weight)) in best.into_iter().zip(weights).enumerate() {
                let [i, j] = pairs[pair];
                routing.put(token, head * chosen + place, i * num_keys + j, weight);
            }
            all_scores.extend(scores);
        }
    }
    routing.mixing = Mixing::Neurons;
    routing.named = vec![("scores", all_scores)];
    routing
}
