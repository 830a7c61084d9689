//! clip: the norm of all gradients, and what they are multiplied by so that it is no larger than clip_norm.
//!
//! ```text
//! parts    [num_parts] f32   in   sums of squares
//! control  [4] f32           out  norm, factor, whether it is a number (1 or 0), 0
//! ```

pub fn clip(parts: &[f32], clip_norm: f32) -> [f32; 4] {
    let norm = parts.iter().copied().map(f64::from).sum::<f64>().sqrt();
    let factor = (f64::from(clip_norm) / (norm + 1e-6)).min(1.0);
    [norm as f32, factor as f32, f32::from(u8::from(norm.is_finite())), 0.0]
}
