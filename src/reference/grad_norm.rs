//! grad_norm: the gradient of the input of an RMSNorm: with g = weight dy and s = 1 / sqrt(mean(x^2) + eps), s g - x s^3 mean(g x).
//!
//! ```text
//! x       [num_tokens, cols] f32   in
//! weight  [cols] f32               in
//! dy      [num_tokens, cols] f32   in
//! dx      [num_tokens, cols] f32   out
//! scales  [num_tokens] f32         out   s
//! ```
//!
//! The shader may also add to what dx holds.

use super::dot;

/// Returns `dx` and `scales`.
pub fn grad_norm(eps: f32, x: &[f32], weight: &[f32], dy: &[f32]) -> [Vec<f32>; 2] {
    let cols = weight.len();
    let (mut dx, mut scales) = (Vec::with_capacity(x.len()), Vec::new());
    for (x, dy) in x.chunks_exact(cols).zip(dy.chunks_exact(cols)) {
        let scale = 1.0 / (dot(x, x) / cols as f64 + f64::from(eps)).sqrt();
        let gradient = |c: usize| f64::from(weight[c]) * f64::from(dy[c]);
        let along = (0..cols).map(|c| gradient(c) * f64::from(x[c])).sum::<f64>() / cols as f64;
        dx.extend((0..cols).map(|c| (scale * gradient(c) - f64::from(x[c]) * scale.powi(3) * along) as f32));
        scales.push(scale as f32);
    }
    [dx, scales]
}
