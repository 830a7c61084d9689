//! rms_norm: y = weight * x / sqrt(mean(x^2) + eps), row by row.
//!
//! ```text
//! x         [num_tokens, cols] f32  in
//! weight    [cols] f32              in
//! y         [num_tokens, cols] f32  out
//! ```
//!
//! Source: Zhang and Sennrich 2019, arXiv 1910.07467.

use super::dot;

pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let cols = weight.len();
    let mut y = Vec::with_capacity(x.len());
    for x in x.chunks_exact(cols) {
        // x is row t here
        let scale = 1.0 / (dot(x, x) / cols as f64 + f64::from(eps)).sqrt();
        y.extend(x.iter().zip(weight).map(|(x, weight)| (f64::from(*x) * scale * f64::from(*weight)) as f32));
    }
    y
}
