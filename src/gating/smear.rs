//! One expert whose weights are an average of all.

use super::rule::twin;
use super::{Batch, Chooser, Gate, Init, Leaf, Mixing, Real, Routing, Setting, Values, row};

pub static GATE: Gate = Gate {
    name: "smear",
    summary: "the weights of all experts are averaged, by shares that a router gives to a whole sequence or to each of its segments",
    source: "Muqeeth et al. 2023, SMEAR, arXiv 2306.03745; segments: Zhong et al. 2024, Lory, arXiv 2405.03133",
    chooses: Chooser::Everybody,
    width: |_, _| 0,
    router_rows: |_, _| 0,
    leaves: &[
        Leaf {
            name: "merge_router",
            shape: |dims, _| vec![dims.num_experts, dims.hidden_size],
            init: Init::Normal { std: 0.02 },
        },
        Leaf { name: "ln_weight", shape: norm, init: Init::Constant(1.0) },
        Leaf { name: "ln_bias", shape: norm, init: Init::Constant(0.0) },
        Leaf { name: "ln_router_weight", shape: norm, init: Init::Constant(0.01) },
        Leaf { name: "ln_router_bias", shape: norm, init: Init::Constant(0.0) },
    ],
    settings: &[OWN],
    causal: false,
    twin: twin!(route),
    ..Gate::BASE
};

static OWN: &[Setting] = &[
    Setting::fixed(
        "segment",
        0.0,
        [0.0, 65_536.0],
        "tokens of a segment, which the one before it routes; 0 averages once for each sequence, over all of it",
    ),
    Setting::switch("layer_norm", false, "a layer norm over the mean of the tokens, and over the rows of the router"),
];

fn norm(dims: &super::Dims, values: &Values) -> Vec<usize> {
    vec![if values.flag("layer_norm") { dims.hidden_size } else { 0 }]
}

/// Of the layer norms.
const EPS: f64 = 1e-5;

fn layer_norm<R: Real>(numbers: &[R], weight: &[R], bias: &[R]) -> Vec<R> {
    let mean = row::mean(numbers);
    let centred: Vec<R> = numbers.iter().map(|&number| number - mean).collect();
    let deviation = (row::dot(&centred, &centred) / numbers.len() as f64 + EPS).sqrt();
    centred.into_iter().zip(weight).zip(bias).map(|((number, &weight), &bias)| number / deviation * weight + bias).collect()
}

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let (hidden_size, seq_len) = (batch.dims.hidden_size, batch.dims.seq_len);
    let by_segment = values.get("segment") > 0.0;
    let group_len = if by_segment { values.get("segment") as usize } else { seq_len };
    let normed = values.flag("layer_norm");
    let router: Vec<Vec<R>> =
        batch
            .leaf("merge_router")
            .chunks_exact(hidden_size)
            .map(|row| {
                if normed { layer_norm(row, batch.leaf("ln_router_weight"), batch.leaf("ln_router_bias")) } else { row.to_vec() }
            })
            .collect();
    let mean_of = |group: usize| -> Vec<R> {
        let tokens = group * group_len..(group + 1) * group_len;
        (0..hidden_size)
            .map(|index| row::mean(&tokens.clone().map(|token| batch.input(token)[index]).collect::<Vec<_>>()))
            .collect()
    };
    let per_sequence = seq_len / group_len;
    let mut routing = Routing::new(&batch.dims, 0);
    for group in 0..batch.dims.num_tokens / group_len {
        // A segment does not look at itself; only the first one of a sequence has to, and learns nothing from that.
        let mean: Vec<R> = match (by_segment, group % per_sequence) {
            (false, _) => mean_of(group),
            (true, 0) => mean_of(group).into_iter().map(Real::stop).collect(),
            (true, _) => mean_of(group - 1),
        };
        let mean = if normed { layer_norm(&mean, batch.leaf("ln_weight"), batch.leaf("ln_bias")) } else { mean };
        let logits: Vec<R> = router.iter().map(|row| row::dot(&mean, row)).collect();
        routing.push_scores(&logits, &row::softmax(&logits));
    }
    routing.mixing = Mixing::Merged { shares: routing.scores.clone(), group_len };
    routing
}
