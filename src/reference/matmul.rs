//! matmul: y = x W^T for rows of tokens; serves the attention output, the router and the head.
//!
//! ```text
//! x         [num_tokens, cols] f32      in
//! weight    [num_rows, cols] f32        in
//! y         [num_tokens, num_rows] f32  out  matmul_add: added to what y holds
//! ```

use super::dot;
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

pub fn matmul_add(x: &[f32], weight: &[f32], cols: usize, y: &mut [f32]) {
    for (y, sum) in y.iter_mut().zip(matmul(x, weight, cols)) {
        *y += sum;
    }
}
