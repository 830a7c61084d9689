//! grad_weight: dW = dy^T x, the gradient of the weight of y = x W^T.
//!
//! ```text
//! dy       [num_tokens, num_rows] f32   in
//! x        [num_tokens, cols] f32       in
//! dweight  [num_rows, cols] f32         out
//! ```
//!
//! Of experts there is one such matrix for each, over the assignments that are its own, times their routing weights where these count. The shader may
//! also add to what dweight holds.

use crate::platform::for_each_row;

/// What meets in a sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Row of `dy`.
    pub dy: usize,
    /// Row of `x`.
    pub x: usize,
    /// Multiplies the product.
    pub weight: f32,
}

/// Returns the `dweight` of `pairs`, of rows of `num_rows` and `cols` values.
pub fn grad_weight([dy, x]: [&[f32]; 2], pairs: &[Pair], num_rows: usize, cols: usize) -> Vec<f32> {
    let mut dweight = vec![0.0; num_rows * cols];
    for_each_row(&mut dweight, cols, |r, dweight| {
        let mut sums = vec![0.0; cols];
        for pair in pairs {
            let factor = f64::from(pair.weight) * f64::from(dy[pair.dy * num_rows + r]);
            let x = &x[pair.x * cols..][..cols];
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += factor * f64::from(*x)); // dW[r] += dy[t, r] x[t]
        }
        dweight.iter_mut().zip(sums).for_each(|(dweight, sum)| *dweight = sum as f32);
    });
    dweight
}

/// Every token by itself, as where there are no experts.
pub fn all_tokens(num_tokens: usize) -> Vec<Pair> {
    (0..num_tokens).map(|t| Pair { dy: t, x: t, weight: 1.0 }).collect()
}
