//! gated_norm: an RMSNorm of each group of columns, with a gate before or after it.
//!
//! ```text
//! x         [num_tokens, cols] f32  in
//! gate      [num_tokens, cols] f32  in
//! weight    [cols] f32              in   [cols / groups], the same for all groups, where it is shared
//! y         [num_tokens, cols] f32  out
//! ```
//!
//! Sources: Zhang and Sennrich 2019, arXiv 1910.07467; Dao and Gu 2024, arXiv 2405.21060.

use crate::spec::{GateActivation, GatedNormSpec};

pub fn gated_norm(spec: &GatedNormSpec, x: &[f32], gate: &[f32], weight: &[f32]) -> Vec<f32> {
    let group_len = if spec.shared_weight { weight.len() } else { weight.len() / spec.groups };
    let mut y = Vec::with_capacity(x.len());
    for (index, (x, gate)) in x.chunks_exact(group_len).zip(gate.chunks_exact(group_len)).enumerate() {
        let weight = if spec.shared_weight { weight } else { &weight[index % spec.groups * group_len..][..group_len] };
        let gates: Vec<f64> = gate.iter().map(|gate| activated(spec.activation, *gate)).collect();
        let before = |c: usize| f64::from(x[c]) * if spec.gate_first { gates[c] } else { 1.0 };
        let squares: f64 = (0..group_len).map(|c| before(c).powi(2)).sum();
        let scale = 1.0 / (squares / group_len as f64 + f64::from(spec.eps)).sqrt();
        y.extend((0..group_len).map(|c| (f64::from(x[c]) * gates[c] * scale * f64::from(weight[c])) as f32));
    }
    y
}

fn activated(activation: GateActivation, value: f32) -> f64 {
    let value = f64::from(value);
    let sigmoid = 1.0 / (1.0 + (-value).exp());
    match activation {
        GateActivation::Silu => value * sigmoid,
        GateActivation::Sigmoid => sigmoid,
    }
}
