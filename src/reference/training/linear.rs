//! The three forms of matrix product: of an output, of the gradient of its input, of the gradient of its weight.

use crate::platform::for_each_row;

/// Rows of one task: enough to be worth a thread's while.
const ROWS_PER_TASK: usize = 8;

/// `y = x W^T`: `x [n, cols]`, `weight [rows, cols]`, `y [n, rows]`.
pub fn product(x: &[f64], weight: &[f64], cols: usize) -> Vec<f64> {
    let rows = weight.len() / cols;
    let mut y = vec![0.0; x.len() / cols * rows];
    for_each_row(&mut y, ROWS_PER_TASK * rows, |task, y| {
        let first = task * ROWS_PER_TASK;
        for r in 0..rows {
            let weight = &weight[r * cols..][..cols]; // weight[r]
            for (i, y) in y.chunks_exact_mut(rows).enumerate() {
                y[r] = dot(&x[(first + i) * cols..][..cols], weight); // y[t, r]
            }
        }
    });
    y
}

/// `dx = dy W`: `dy [n, rows]`, `weight [rows, cols]`, `dx [n, cols]`.
pub fn grad_input(dy: &[f64], weight: &[f64], cols: usize) -> Vec<f64> {
    let rows = weight.len() / cols;
    let mut dx = vec![0.0; dy.len() / rows * cols];
    for_each_row(&mut dx, ROWS_PER_TASK * cols, |task, dx| {
        let first = task * ROWS_PER_TASK;
        for r in 0..rows {
            let weight = &weight[r * cols..][..cols]; // weight[r]
            for (i, dx) in dx.chunks_exact_mut(cols).enumerate() {
                add_scaled(dy[(first + i) * rows + r], weight, dx); // dx[t] += dy[t, r] weight[r]
            }
        }
    });
    dx
}

/// `dW = dy^T x`: `dy [n, rows]`, `x [n, cols]`, `dW [rows, cols]`.
pub fn grad_weight(dy: &[f64], x: &[f64], cols: usize) -> Vec<f64> {
    let n = x.len() / cols;
    let rows = dy.len().checked_div(n).unwrap_or_default();
    let mut dweight = vec![0.0; rows * cols];
    for_each_row(&mut dweight, ROWS_PER_TASK * cols, |task, dweight| {
        let first = task * ROWS_PER_TASK;
        for t in 0..n {
            let x = &x[t * cols..][..cols]; // x[t]
            for (i, dweight) in dweight.chunks_exact_mut(cols).enumerate() {
                add_scaled(dy[t * rows + first + i], x, dweight); // dW[r] += dy[t, r] x[t]
            }
        }
    });
    dweight
}

/// `sum_i a[i] b[i]`, in four partial sums.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a_quads, a_rest) = a.as_chunks::<4>();
    let (b_quads, b_rest) = b.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for (a, b) in a_quads.iter().zip(b_quads) {
        for i in 0..4 {
            sums[i] += a[i] * b[i];
        }
    }
    a_rest.iter().zip(b_rest).for_each(|(a, b)| sums[0] += a * b);
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

/// `sums += factor * values`
pub(super) fn add_scaled(factor: f64, values: &[f64], sums: &mut [f64]) {
    let (quads, rest) = values.as_chunks::<4>();
    let (sum_quads, sum_rest) = sums.as_chunks_mut::<4>();
    for (sums, values) in sum_quads.iter_mut().zip(quads) {
        for i in 0..4 {
            sums[i] += factor * values[i];
        }
    }
    sum_rest.iter_mut().zip(rest).for_each(|(sum, value)| *sum += factor * value);
}
