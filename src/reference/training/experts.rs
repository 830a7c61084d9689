//! SwiGLU experts, each over the tokens that were sent to it, there and back.

use super::Weights;
use super::gate::{NONE, Routing};
use super::linear::{add_scaled, dot, grad_input, grad_weight, product};
use crate::spec::WeightKey;

/// The experts of a layer.
pub(super) struct Experts<'a> {
    pub weights: &'a Weights,
    /// Of gate and up, then of down: `[2 inner, hidden]`, gate and up by turns, and `[hidden, inner]`.
    pub keys: [Vec<WeightKey>; 2],
    pub hidden_size: usize,
    pub inner: usize,
}

/// What the way back needs.
pub struct Kept {
    pub routing: Routing,
    /// One per expert.
    experts: Vec<KeptExpert>,
}

/// What one expert did with its assignments.
struct KeptExpert {
    /// `token * width + rank`, ascending.
    assignments: Vec<usize>,
    /// `[n, 2 inner]` before the activation, gate and up by turns, and `[n, inner]` after it.
    gate_up: Vec<f64>,
    h: Vec<f64>,
}

/// `y[t] = sum over the experts of t of weight * down(silu(gate x) * up x)`
pub(super) fn forward(experts: &Experts, x: &[f64], routing: Routing) -> (Vec<f64>, Kept) {
    let hidden_size = experts.hidden_size;
    let (mut y, mut kept) = (vec![0.0; x.len()], Vec::new());
    for expert in 0..experts.keys[0].len() {
        let assignments = assignments_of(expert, &routing);
        let tokens: Vec<usize> = assignments.iter().map(|assignment| assignment / routing.width).collect();
        let gate_up = product(&gathered(x, &tokens, hidden_size), experts.weight(0, expert), hidden_size);
        let h: Vec<f64> = gate_up.as_chunks::<2>().0.iter().map(|[gate, up]| gate * sigmoid(*gate) * up).collect();
        let out = product(&h, experts.weight(1, expert), experts.inner);
        for ((out, &token), &assignment) in out.chunks_exact(hidden_size).zip(&tokens).zip(&assignments) {
            add_scaled(routing.weights[assignment], out, &mut y[token * hidden_size..][..hidden_size]);
        }
        kept.push(KeptExpert { assignments, gate_up, h });
    }
    (y, Kept { routing, experts: kept })
}

/// The gradients of the input `[n, hidden]` and of the routing weights `[n, width]`, from `dy [n, hidden]`; those of the experts are added.
pub(super) fn backward(experts: &Experts, x: &[f64], kept: &Kept, dy: &[f64], gradients: &mut Weights) -> (Vec<f64>, Vec<f64>) {
    let (hidden_size, inner, width) = (experts.hidden_size, experts.inner, kept.routing.width);
    let (mut dx, mut dweights) = (vec![0.0; x.len()], vec![0.0; kept.routing.weights.len()]);
    for (expert, KeptExpert { assignments, gate_up, h }) in kept.experts.iter().enumerate() {
        if assignments.is_empty() {
            continue;
        }
        let tokens: Vec<usize> = assignments.iter().map(|assignment| assignment / width).collect();
        let mut dy = gathered(dy, &tokens, hidden_size);
        // r = down^T dy: the weight's gradient is <h, r>, that of h is weight * r.
        let r = grad_input(&dy, experts.weight(1, expert), inner);
        let mut dgate_up = Vec::with_capacity(gate_up.len());
        for (i, &assignment) in assignments.iter().enumerate() {
            let (r, h, weight) = (&r[i * inner..][..inner], &h[i * inner..][..inner], kept.routing.weights[assignment]);
            dweights[assignment] = dot(h, r);
            let pairs = gate_up[i * 2 * inner..][..2 * inner].as_chunks::<2>().0;
            for ([gate, up], r) in pairs.iter().zip(r) {
                let (s, dh) = (sigmoid(*gate), weight * r);
                dgate_up.extend([dh * up * s * (1.0 + gate * (1.0 - s)), dh * gate * s]);
            }
            dy[i * hidden_size..][..hidden_size].iter_mut().for_each(|dy| *dy *= weight);
        }
        super::add_to(gradients, experts.keys[1][expert], &grad_weight(&dy, h, inner));
        let of_gate_up = grad_weight(&dgate_up, &gathered(x, &tokens, hidden_size), hidden_size);
        super::add_to(gradients, experts.keys[0][expert], &of_gate_up);
        let through = grad_input(&dgate_up, experts.weight(0, expert), hidden_size);
        for (through, &token) in through.chunks_exact(hidden_size).zip(&tokens) {
            add_scaled(1.0, through, &mut dx[token * hidden_size..][..hidden_size]);
        }
    }
    (dx, dweights)
}

impl Experts<'_> {
    fn weight(&self, matrix: usize, expert: usize) -> &[f64] {
        &self.weights[&self.keys[matrix][expert]]
    }
}

/// Assignments of one expert, in ascending order.
fn assignments_of(expert: usize, routing: &Routing) -> Vec<usize> {
    let ids = routing.expert_ids.iter().enumerate();
    ids.filter(|(_, id)| **id != NONE && **id as usize == expert).map(|(assignment, _)| assignment).collect()
}

fn gathered(x: &[f64], tokens: &[usize], cols: usize) -> Vec<f64> {
    tokens.iter().flat_map(|token| &x[token * cols..][..cols]).copied().collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
