//! expert_down: the experts' way back to the residual stream: `y[assignment] = down(h[assignment])`.
//!
//! ```text
//! h         [num_assignments, intermediate] f32  in
//! slots     [num_tokens, top_k] u32              in   cache slot of each assignment
//! y         [num_assignments, hidden] f32        out
//! slabs     [slot][hidden, intermediate] f32     in
//! biases    [slot][hidden] f32                   in   none where the spec has none
//! ```
//!
//! The shader without SORTED also does what `expert_combine` does.

use super::expert_gate_up::assignments_of;
use super::matmul::matmul;

pub fn expert_down(h: &[f32], slots: &[u32], slabs: &[&[f32]], biases: &[&[f32]], intermediate_size: usize) -> Vec<f32> {
    let hidden_size = slabs[0].len() / intermediate_size;
    let mut y = vec![0.0; slots.len() * hidden_size];
    for (slot, slab) in slabs.iter().enumerate() {
        let assignments = assignments_of(slot, slots);
        // gathered[i] = h[assignments[i]]
        let rows = assignments.iter().flat_map(|assignment| &h[assignment * intermediate_size..][..intermediate_size]);
        let gathered: Vec<f32> = rows.copied().collect();
        let projected = matmul(&gathered, slab, intermediate_size); // [assignments, hidden]
        for (assignment, projected) in assignments.iter().zip(projected.chunks_exact(hidden_size)) {
            let y = &mut y[assignment * hidden_size..][..hidden_size];
            y.copy_from_slice(projected);
            y.iter_mut().zip(biases.get(slot).copied().unwrap_or_default()).for_each(|(y, bias)| *y += bias);
        }
    }
    y
}
