//! expert_gate_up: h = activation(gate(x), up(x)), for the expert of each assignment.
//!
//! ```text
//! x              [num_tokens, hidden] f32             in   normed
//! slots          [num_tokens, top_k] u32              in   cache slot of each assignment
//! slabs          [slot][2 intermediate, hidden] f32   in   row 2i gate, row 2i + 1 up
//! biases         [slot][2 intermediate] f32           in   in the order of the rows; none where the spec has none
//! input_weights  [num_tokens, top_k] f32              in   multiply x, where the spec says so
//! h              [num_assignments, intermediate] f32  out
//! ```
//!
//! Without a gate, `h = activation(up(x))`, a slab has the rows of up alone.
//!
//! A dense MLP or a shared expert is the same with one slot and a top_k of one.

use super::matmul::matmul;
use crate::spec::Activation;
use std::f64::consts::FRAC_2_PI;

/// What goes in, in the shapes of the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub x: &'a [f32],
    pub slots: &'a [u32],
    pub top_k: usize,
    pub slabs: &'a [&'a [f32]],
    /// Empty: no biases.
    pub biases: &'a [&'a [f32]],
    pub input_weights: Option<&'a [f32]>,
    pub hidden_size: usize,
    pub activation: Activation,
}

pub fn expert_gate_up(inputs: &Inputs) -> Vec<f32> {
    let Inputs { x, slots, top_k, slabs, hidden_size, activation, .. } = *inputs;
    let (num_rows, per_value) = (slabs[0].len() / hidden_size, if activation.is_gated() { 2 } else { 1 });
    let intermediate_size = num_rows / per_value;
    let mut h = vec![0.0; slots.len() * intermediate_size];
    for (slot, slab) in slabs.iter().enumerate() {
        let assignments = assignments_of(slot, slots);
        // gathered[i] = x[assignments[i] / top_k], weighted
        let mut gathered = Vec::with_capacity(assignments.len() * hidden_size);
        for &assignment in &assignments {
            let weight = inputs.input_weights.map_or(1.0, |weights| weights[assignment]);
            gathered.extend(x[assignment / top_k * hidden_size..][..hidden_size].iter().map(|x| x * weight));
        }
        let projected = matmul(&gathered, slab, hidden_size); // [assignments, 2 intermediate]
        for (assignment, projected) in assignments.iter().zip(projected.chunks_exact(num_rows)) {
            let h = &mut h[assignment * intermediate_size..][..intermediate_size]; // h[assignment]
            for (i, (h, own)) in h.iter_mut().zip(projected.chunks_exact(per_value)).enumerate() {
                let biased = |part: usize| {
                    let bias = inputs.biases.get(slot).map_or(0.0, |bias| bias[per_value * i + part]);
                    f64::from(own[part] + bias)
                };
                *h = activate(activation, biased(0), biased(per_value - 1)) as f32;
            }
        }
    }
    h
}

/// Without a gate both are the same.
fn activate(activation: Activation, gate: f64, up: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Silu => gate * sigmoid(gate) * up,
        Activation::SquaredRelu => up.max(0.0).powi(2),
        Activation::GeluTanh => {
            // sqrt(2 / pi) (x + 0.044715 x^3)
            let inner = FRAC_2_PI.sqrt() * (gate + 0.044715 * gate.powi(3));
            0.5 * gate * (1.0 + inner.tanh()) * up
        }
        Activation::ClampedSwiglu { alpha, limit } => {
            let limit = f64::from(limit);
            let (gate, up) = (gate.min(limit), up.clamp(-limit, limit));
            (up + 1.0) * gate * sigmoid(f64::from(alpha) * gate)
        }
    }
}

/// The assignments that go to `slot`, ascending.
pub(super) fn assignments_of(slot: usize, slots: &[u32]) -> Vec<usize> {
    slots.iter().enumerate().filter(|(_, other)| **other as usize == slot).map(|(assignment, _)| assignment).collect()
}
