//! embed: the embedding row of each token, times what the spec says, and that of its position where there is one.
//!
//! ```text
//! rows      [num_tokens] Row          in
//! table     [vocab_size, hidden] f32  in
//! positions [context, hidden] f32     in   where positions have rows: added
//! x         [num_tokens, hidden] f32  out
//! ```

use crate::batch::Row;

/// # Panics
/// If a token or a position is beyond its table.
pub fn embed(rows: &[Row], table: &[f32], hidden_size: usize, scale: f32, positions: Option<&[f32]>) -> Vec<f32> {
    // x[t] = scale table[rows[t].token] + positions[rows[t].position]
    let of_row = |row: &Row| &table[row.token as usize * hidden_size..][..hidden_size];
    let mut x: Vec<f32> = rows.iter().flat_map(of_row).map(|value| scale * value).collect();
    if let Some(positions) = positions {
        for (x, row) in x.chunks_exact_mut(hidden_size).zip(rows) {
            let added = &positions[row.position as usize * hidden_size..][..hidden_size];
            x.iter_mut().zip(added).for_each(|(x, added)| *x += added);
        }
    }
    x
}
