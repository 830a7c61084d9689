//! embed: the embedding row of each token.
//!
//! ```text
//! rows      [num_tokens] Row          in
//! table     [vocab_size, hidden] f32  in
//! x         [num_tokens, hidden] f32  out
//! ```

use super::Row;

/// # Panics
/// If a token is beyond the table.
pub fn embed(rows: &[Row], table: &[f32], hidden_size: usize) -> Vec<f32> {
    // x[t] = table[rows[t].token]
    rows.iter().flat_map(|row| &table[row.token as usize * hidden_size..][..hidden_size]).copied().collect()
}
