//! grad_input: dx = dy W for rows of tokens, the gradient of the input of y = x W^T.
//!
//! ```text
//! dy      [num_tokens, num_rows] f32   in
//! weight  [num_rows, cols] f32         in   or one such matrix per expert
//! dx      [num_tokens, cols] f32       out
//! ```
//!
//! The shader may also add to what dx holds.

use crate::platform::for_each_row;

/// Returns `dx`. `matrix(t)` is the weight that row `t` went through.
pub fn grad_input<'w>(dy: &[f32], num_rows: usize, cols: usize, matrix: impl Fn(usize) -> &'w [f32] + Sync + Send) -> Vec<f32> {
    let mut dx = vec![0.0; dy.len() / num_rows * cols];
    for_each_row(&mut dx, cols, |t, dx| {
        let mut sums = vec![0.0; cols];
        for (dy, weight) in dy[t * num_rows..][..num_rows].iter().zip(matrix(t).chunks_exact(cols)) {
            // dx[t] += dy[t, r] weight[r]
            sums.iter_mut().zip(weight).for_each(|(sum, weight)| *sum += f64::from(*dy) * f64::from(*weight));
        }
        dx.iter_mut().zip(sums).for_each(|(dx, sum)| *dx = sum as f32);
    });
    dx
}
