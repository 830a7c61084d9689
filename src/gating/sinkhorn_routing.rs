//! The best experts of a plan that gives every expert the same mass.

use super::rule::twin;
use super::{Batch, EXPERTS_PER_TOKEN, Gate, Real, RouterSpec, Routing, RunsAs, Setting, Values, row};

pub static GATE: Gate = Gate {
    name: "sinkhorn_routing",
    summary: "while training, the best k of a transport plan that gives all experts the same mass; the weights come from the logits",
    source: "Clark et al. 2022, S-BASE, arXiv 2202.01169; Megatron-LM",
    settings: &[&[EXPERTS_PER_TOKEN], OWN],
    causal: false,
    runs_as: Some(RunsAs {
        architecture: "olmoe",
        spec: |dims, values| {
            let chosen = values.count("num_experts_per_tok");
            (chosen > 1).then(|| RouterSpec::new(dims.num_experts, chosen))
        },
    }),
    twin: twin!(route),
    ..Gate::BASE
};

static OWN: &[Setting] = &[Setting::fixed(
    "sinkhorn_iterations",
    8.0,
    [0.0, 100_000.0],
    "how often rows and columns are scaled; 0 goes on until nothing changes, which skewed logits make very long",
)];

/// Where `sinkhorn_iterations` is 0, it ends when the scales of experts change by no more than this, or after so many.
const TOLERANCE: f64 = 1e-4;
const MOST_ITERATIONS: usize = 100_000;
/// Keeps divisors from zero.
const EPS: f64 = 1e-8;

/// The transport plan for `logits [num_tokens, num_experts]`, and how many iterations it took. 0 goes on until it changes no more.
pub(super) fn plan(logits: &[f64], num_experts: usize, iterations: usize) -> (Vec<f64>, usize) {
    let num_tokens = logits.len() / num_experts;
    let kernel: Vec<f64> = logits.iter().map(|logit| logit.exp()).collect();
    let (mut of_tokens, mut of_experts) = (vec![1.0; num_tokens], vec![1.0; num_experts]);
    let mut done = 0;
    loop {
        for (scale, row) in of_tokens.iter_mut().zip(kernel.chunks_exact(num_experts)) {
            let mass: f64 = row.iter().zip(&of_experts).map(|(kernel, scale)| kernel * scale).sum();
            *scale = 1.0 / (num_tokens as f64 * (mass + EPS));
        }
        let mut mass = vec![0.0; num_experts];
        for (scale, row) in of_tokens.iter().zip(kernel.chunks_exact(num_experts)) {
            mass.iter_mut().zip(row).for_each(|(mass, kernel)| *mass += kernel * scale);
        }
        let next: Vec<f64> = mass.iter().map(|mass| 1.0 / (num_experts as f64 * (mass + EPS))).collect();
        let change: f64 = next.iter().zip(&of_experts).map(|(a, b)| (a - b).abs()).sum::<f64>() / num_experts as f64;
        of_experts = next;
        done += 1;
        if done == iterations || iterations == 0 && (change <= TOLERANCE || done == MOST_ITERATIONS) {
            break;
        }
    }
    let scaled = |(place, kernel): (usize, &f64)| of_experts[place % num_experts] * kernel * of_tokens[place / num_experts];
    (kernel.iter().enumerate().map(scaled).collect(), done)
}

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let (num_experts, chosen) = (batch.dims.num_experts, values.count("num_experts_per_tok"));
    let mut routing = Routing::new(&batch.dims, chosen);
    let keys = match batch.training {
        true => plan(&row::values(batch.router), num_experts, values.count("sinkhorn_iterations")).0,
        false => row::values(batch.router),
    };
    for token in batch.tokens() {
        let logits = batch.row(token);
        let scores: Vec<R> = match chosen {
            1 => logits.iter().map(|logit| logit.sigmoid()).collect(),
            _ => row::softmax(logits),
        };
        for (rank, expert) in row::top(&keys[token * num_experts..][..num_experts], chosen).into_iter().enumerate() {
            routing.put(token, rank, expert, scores[expert]);
        }
        routing.push_scores(logits, &scores);
    }
    if batch.training {
        routing.named = vec![("transport", keys.into_iter().map(R::of).collect())];
    }
    routing
}
