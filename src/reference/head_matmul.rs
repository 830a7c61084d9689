//! head_matmul: y = W x for each head by itself, with a matrix of its own; what follows the columns in x stands behind the rows in y.
//!
//! ```text
//! x         [num_tokens, num_heads, cols + rest] f32  in
//! weight    [num_heads, rows, cols] f32               in
//! y         [num_tokens, num_heads, rows + rest] f32  out
//! ```

use super::dot;
use crate::platform::for_each_row;

/// What goes in, in the shapes of the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub num_heads: usize,
    pub cols: usize,
    /// Values of a head in `x`, at least `cols`.
    pub x_stride: usize,
    pub x: &'a [f32],
    pub weight: &'a [f32],
}

/// Returns `y`.
pub fn head_matmul(inputs: &Inputs) -> Vec<f32> {
    let Inputs { num_heads, cols, x_stride, x, weight } = *inputs;
    let rows = weight.len() / (num_heads * cols);
    let y_stride = rows + x_stride - cols;
    let mut y = vec![0.0; x.len() / x_stride * y_stride];
    for_each_row(&mut y, y_stride, |index, y| {
        // y is y[t, h] here
        let h = index % num_heads;
        let (x, rest) = x[index * x_stride..][..x_stride].split_at(cols); // x[t, h]
        let weight = &weight[h * rows * cols..][..rows * cols]; // weight[h]
        for (y, weight) in y.iter_mut().zip(weight.chunks_exact(cols)) {
            *y = dot(weight, x) as f32;
        }
        y[rows..].copy_from_slice(rest);
    });
    y
}
