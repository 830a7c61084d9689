//! embed: the embedding row of each token, times what the spec says.
//!
//! ```text
//! rows      [num_tokens] Row          in
//! table     [vocab_size, hidden] f32  in
//! x         [num_tokens, hidden] f32  out
//! ```

use crate::batch::Row;

/// # Panics
/// If a token is beyond the table.
pub fn embed(rows: &[Row], table: &[f32], hidden_size: usize, scale: f32) -> Vec<f32> {
    // x[t] = scale table[rows[t].token]
    let of_row = |row: &Row| &table[row.token as usize * hidden_size..][..hidden_size];
    rows.iter().flat_map(of_row).map(|value| scale * value).collect()
}
