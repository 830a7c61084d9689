//! qkv: query, key and value projection, rotary embedding of query and key, append to the KV cache.
//!
//! ```text
//! rows      [num_tokens] Row                                           in
//! x         [num_tokens, hidden] f32                                   in   normed
//! weight    [(num_heads + 2 num_kv_heads) head_dim, hidden] f32        in   heads in the order queries, keys, values
//! rope      [context, head_dim / 2] (cosine, sine)                     in
//! q         [num_tokens, num_heads head_dim] f32                       out
//! cache.k   [sequences, num_kv_heads, context, head_dim] f32           out  at the row's position
//! cache.v   [sequences, num_kv_heads, context, head_dim] f32           out
//! ```
//!
//! Source: Su et al. 2021, arXiv 2104.09864, pairs `(i, i + head_dim / 2)` as in Llama.

use super::matmul::matmul;
use super::{KvCache, Row};
use crate::spec::AttentionSpec;

/// What goes in, in the shapes of the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub spec: &'a AttentionSpec,
    pub context: usize,
    pub rows: &'a [Row],
    pub x: &'a [f32],
    pub weight: &'a [f32],
    pub rope: &'a [[f32; 2]],
}

/// Returns `q`.
///
/// # Panics
/// If a position or a sequence is beyond the cache.
pub fn qkv(inputs: &Inputs, cache: &mut KvCache) -> Vec<f32> {
    let Inputs { spec, context, rows, x, weight, rope } = *inputs;
    let AttentionSpec { num_heads, num_kv_heads, head_dim, .. } = *spec;
    if rows.is_empty() {
        return Vec::new();
    }
    let hidden_size = x.len() / rows.len();
    let projected = matmul(x, weight, hidden_size); // [num_tokens, (num_heads + 2 num_kv_heads) head_dim]

    let mut q = Vec::with_capacity(rows.len() * spec.output_width());
    for (row, heads) in rows.iter().zip(projected.chunks_exact(spec.qkv_rows())) {
        let position = row.position as usize;
        assert!(position < context, "position {position} in a context of {context}");
        let turns = &rope[position * head_dim / 2..][..head_dim / 2]; // rope[position]
        for (h, head) in heads.chunks_exact(head_dim).enumerate() {
            if h < num_heads {
                q.extend(turned(head, turns)); // q[t, h]
                continue;
            }
            let kv_head = (h - num_heads) % num_kv_heads;
            // cache[sequence, kv_head, position]
            let place = ((row.sequence as usize * num_kv_heads + kv_head) * context + position) * head_dim;
            if h < num_heads + num_kv_heads {
                cache.k[place..][..head_dim].copy_from_slice(&turned(head, turns));
            } else {
                cache.v[place..][..head_dim].copy_from_slice(head);
            }
        }
    }
    q
}

/// Rotates the pairs `(head[i], head[i + half])`.
fn turned(head: &[f32], turns: &[[f32; 2]]) -> Vec<f32> {
    let half = turns.len();
    let mut turned = vec![0.0; 2 * half];
    for (i, turn) in turns.iter().enumerate() {
        let [cosine, sine] = turn.map(f64::from);
        let (a, b) = (f64::from(head[i]), f64::from(head[i + half]));
        turned[i] = (a * cosine - b * sine) as f32;
        turned[i + half] = (b * cosine + a * sine) as f32;
    }
    turned
}
