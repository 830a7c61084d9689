//! The rotary table that `qkv` reads, on every device: [context, head_dim / 2] of (cosine, sine).

use crate::spec::RopeSpec;

/// Pair `i` of a head turns by `position * theta^(-2 i / head_dim)`.
///
/// Source: Su et al. 2021, arXiv 2104.09864.
pub fn rope_table(spec: &RopeSpec, head_dim: usize, context: usize) -> Vec<[f32; 2]> {
    let frequency = |i: usize| spec.theta.powf(-2.0 * i as f64 / head_dim as f64);
    let frequencies: Vec<f64> = (0..head_dim / 2).map(frequency).collect();
    let angles = (0..context).flat_map(|position| frequencies.iter().map(move |frequency| position as f64 * frequency));
    angles.map(|angle| [angle.cos() as f32, angle.sin() as f32]).collect()
}
