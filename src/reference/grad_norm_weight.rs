//! grad_norm_weight: the gradient of the weight of an RMSNorm: the sum of dy x scale over the tokens, column by column.
//!
//! ```text
//! x        [num_tokens, cols] f32   in
//! dy       [num_tokens, cols] f32   in
//! scales   [num_tokens] f32         in
//! dweight  [cols] f32               out
//! ```
//!
//! The shader may also add to what dweight holds.

pub fn grad_norm_weight(x: &[f32], dy: &[f32], scales: &[f32]) -> Vec<f32> {
    let cols = x.len() / scales.len();
    let mut sums = vec![0.0; cols];
    for ((x, dy), scale) in x.chunks_exact(cols).zip(dy.chunks_exact(cols)).zip(scales) {
        for (sum, (x, dy)) in sums.iter_mut().zip(x.iter().zip(dy)) {
            *sum += f64::from(*dy) * f64::from(*x) * f64::from(*scale);
        }
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}
