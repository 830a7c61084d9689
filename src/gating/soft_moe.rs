//! Experts compute mixtures of tokens, and tokens mix what they compute. Nothing is chosen, and nothing dropped.

use super::rule::twin;
use super::{Batch, Chooser, Distribution, Gate, Init, Leaf, Mixing, Noise, Real, Routing, Setting, Values, row};

pub static GATE: Gate = Gate {
    name: "soft_moe",
    summary: "every expert computes a few mixtures of all tokens of a sequence, and every token a mixture of their outputs",
    source: "Puigcerver et al. 2024, arXiv 2308.00951; google-research/vmoe",
    chooses: Chooser::Everybody,
    width: |_, _| 0,
    router_rows: |_, _| 0,
    leaves: &[
        Leaf {
            name: "phi",
            shape: |dims, values| vec![dims.num_experts, values.count("slots_per_expert"), dims.hidden_size],
            init: Init::Normal { std: 0.02 },
        },
        Leaf { name: "scale", shape: |_, _| vec![1], init: Init::Constant(1.0) },
    ],
    settings: &[OWN],
    noise: &[Noise {
        name: "normal",
        distribution: Distribution::Normal,
        per_token: |dims, values| {
            if values.get("noise_std") > 0.0 { dims.num_experts * values.count("slots_per_expert") } else { 0 }
        },
    }],
    causal: false,
    twin: twin!(route),
    ..Gate::BASE
};

static OWN: &[Setting] = &[
    Setting::count("slots_per_expert", 1, 1 << 16, "mixtures that each expert computes of a sequence"),
    Setting::switch(
        "normalize",
        true,
        "tokens and slots are made one long, so that logits are cosines times a learned scale: without this, wide models choose nearly one token per mixture",
    ),
    Setting::fixed("noise_std", 0.0, [0.0, 100.0], "standard deviation of noise on the logits while training"),
];

/// Inside the root of a length, as in the published code.
const EPS: f64 = 1e-6;

fn unit<R: Real>(row: &[R]) -> Vec<R> {
    let length = (row::dot(row, row) + EPS).sqrt();
    row.iter().map(|&number| number / length).collect()
}

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let (hidden_size, seq_len) = (batch.dims.hidden_size, batch.dims.seq_len);
    let (normalize, std, scale) = (values.flag("normalize"), values.get("noise_std"), batch.leaf("scale")[0]);
    let phi: Vec<Vec<R>> = batch
        .leaf("phi")
        .chunks_exact(hidden_size)
        .map(|slot| if normalize { unit(slot) } else { slot.to_vec() })
        .map(|slot| slot.into_iter().map(|number| number * scale).collect())
        .collect();
    let mut routing = Routing::new(&batch.dims, 0);
    let mut combine = Vec::new();
    for token in batch.tokens() {
        let input = if normalize { unit(batch.input(token)) } else { batch.input(token).to_vec() };
        let draws = if batch.training { batch.noise("normal", token) } else { &[] };
        let logit = |(slot, phi): (usize, &Vec<R>)| row::dot(&input, phi) + draws.get(slot).copied().unwrap_or(0.0) * std;
        let logits: Vec<R> = phi.iter().enumerate().map(logit).collect();
        combine.extend(row::softmax(&logits));
        routing.logits.extend(logits);
    }
    let num_slots = phi.len();
    let mut dispatch = vec![R::zero(); combine.len()];
    for first in (0..batch.dims.num_tokens).step_by(seq_len) {
        for slot in 0..num_slots {
            let place = |token: usize| token * num_slots + slot;
            let column: Vec<R> = (first..first + seq_len).map(|token| routing.logits[place(token)]).collect();
            let shares = row::softmax(&column);
            shares.into_iter().enumerate().for_each(|(token, share)| dispatch[place(first + token)] = share);
        }
    }
    routing.mixing = Mixing::Slots { dispatch, combine };
    routing
}
