//! matmul: y = x W^T for rows of tokens; serves every projection that is not an expert's.
//!
//! ```text
//! x         [num_tokens, cols] f32      in
//! weight    [num_rows, cols] f32        in
//! y         [num_tokens, num_rows] f32  out
//! ```
//!
//! The shader also does what may follow: [`add_bias`], a factor, [`sigmoid`], [`cap`], [`decays`] or the sum with what y holds.

use super::dot;
use super::scan::softplus;
use crate::platform::for_each_row;

/// Weight rows of one task: enough to be worth a thread's while.
const ROWS_PER_TASK: usize = 16;

pub fn matmul(x: &[f32], weight: &[f32], cols: usize) -> Vec<f32> {
    let (num_tokens, num_rows) = (x.len() / cols, weight.len() / cols);
    if num_tokens == 0 {
        return Vec::new();
    }
    // columns [num_rows, num_tokens]: a task owns whole weight rows and reads each of them once, for all tokens.
    let mut columns = vec![0.0; num_rows * num_tokens];
    for_each_row(&mut columns, ROWS_PER_TASK * num_tokens, |task, columns| {
        for (i, column) in columns.chunks_exact_mut(num_tokens).enumerate() {
            let r = task * ROWS_PER_TASK + i;
            let weight = &weight[r * cols..][..cols]; // weight[r]
            for (t, sum) in column.iter_mut().enumerate() {
                *sum = dot(weight, &x[t * cols..][..cols]) as f32; // columns[r, t] = weight[r] . x[t]
            }
        }
    });
    // y[t, r] = columns[r, t]
    (0..num_tokens).flat_map(|t| columns[t..].iter().step_by(num_tokens)).copied().collect()
}

/// Adds `bias [num_rows]` to every row of `y [num_tokens, num_rows]`.
pub fn add_bias(y: &mut [f32], bias: &[f32]) {
    y.chunks_exact_mut(bias.len()).for_each(|y| y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias));
}

/// `limit * tanh(value / limit)` of every value.
pub fn cap(values: &mut [f32], limit: f32) {
    let limit = f64::from(limit);
    values.iter_mut().for_each(|value| *value = (limit * (f64::from(*value) / limit).tanh()) as f32);
}

/// `exp(decay * softplus(value))` of every row `[num_rows]` of values; so many rows in a row have one decay.
pub fn decays(values: &mut [f32], num_rows: usize, decay: &[f32]) {
    let rows = num_rows.div_ceil(decay.len());
    for (index, value) in values.iter_mut().enumerate() {
        let decay = f64::from(decay[index % num_rows / rows]);
        *value = (decay * softplus(f64::from(*value))).exp() as f32;
    }
}

pub fn sigmoid(logit: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32
}
