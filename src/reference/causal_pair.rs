//! causal_pair: every value beside the one at the position before, of the same sequence.
//!
//! ```text
//! rows   [num_tokens] Row                      in
//! x      [num_tokens, width] f32               in
//! cache  [sequences, context, width] f32       in out  x at the row's position
//! y      [num_tokens, width, 2] f32            out     (the value before, the value); zero before the first position
//! ```
//!
//! A causal convolution over two positions is a matrix times such a row.

use crate::batch::Row;

/// Returns `y`.
///
/// # Panics
/// If a position or a sequence is beyond the cache.
pub fn causal_pair(rows: &[Row], context: usize, width: usize, x: &[f32], cache: &mut [f32]) -> Vec<f32> {
    let place = |row: &Row, position: usize| (row.sequence as usize * context + position) * width;
    for (row, x) in rows.iter().zip(x.chunks_exact(width)) {
        cache[place(row, row.position as usize)..][..width].copy_from_slice(x);
    }
    let mut y = Vec::with_capacity(2 * x.len());
    for (row, x) in rows.iter().zip(x.chunks_exact(width)) {
        let before = (row.position as usize).checked_sub(1).map(|position| &cache[place(row, position)..][..width]);
        y.extend(x.iter().enumerate().flat_map(|(c, x)| [before.map_or(0.0, |before| before[c]), *x]));
    }
    y
}
