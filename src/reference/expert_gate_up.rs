//! expert_gate_up: h = silu(gate(x)) * up(x), for the expert of each assignment.
//!
//! ```text
//! x         [num_tokens, hidden] f32             in   normed
//! slots     [num_tokens, top_k] u32              in   cache slot of each assignment
//! h         [num_assignments, intermediate] f32  out
//! slabs     [slot][2 intermediate, hidden] f32   in   row 2i gate, row 2i + 1 up
//! ```

use super::matmul::matmul;

pub fn expert_gate_up(x: &[f32], slots: &[u32], top_k: usize, slabs: &[Vec<f32>], hidden_size: usize) -> Vec<f32> {
    let intermediate_size = slabs[0].len() / hidden_size / 2;
    let mut h = vec![0.0; slots.len() * intermediate_size];
    for (slot, slab) in slabs.iter().enumerate() {
        let assignments = assignments_of(slot, slots);
        // gathered[i] = x[assignments[i] / top_k]
        let tokens = assignments.iter().map(|assignment| assignment / top_k);
        let gathered: Vec<f32> = tokens.flat_map(|t| &x[t * hidden_size..][..hidden_size]).copied().collect();
        let projected = matmul(&gathered, slab, hidden_size); // [assignments, 2 intermediate]
        for (assignment, projected) in assignments.iter().zip(projected.chunks_exact(2 * intermediate_size)) {
            let h = &mut h[assignment * intermediate_size..][..intermediate_size]; // h[assignment]
            for (h, [gate, up]) in h.iter_mut().zip(projected.as_chunks().0) {
                let gate = f64::from(*gate);
                *h = (gate / (1.0 + (-gate).exp()) * f64::from(*up)) as f32;
            }
        }
    }
    h
}

/// The assignments that go to `slot`, ascending.
pub(super) fn assignments_of(slot: usize, slots: &[u32]) -> Vec<usize> {
    slots.iter().enumerate().filter(|(_, other)| **other as usize == slot).map(|(assignment, _)| assignment).collect()
}
