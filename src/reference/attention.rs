//! attention: softmax(scale * q . k) v over the visible keys of a token's own sequence.
//!
//! ```text
//! rows      [num_tokens] Row                                  in
//! q         [num_tokens, num_heads head_dim] f32              in
//! cache.k   [sequences, num_kv_heads, context, head_dim] f32  in
//! cache.v   [sequences, num_kv_heads, context, head_dim] f32  in
//! y         [num_tokens, num_heads head_dim] f32              out
//! ```
//!
//! Key j is visible at position i iff j <= i, and i - window < j where there is a window.

use super::{KvCache, Row, dot};
use crate::platform::for_each_row;
use crate::spec::{AttentionSpec, Mask};

/// Returns `y`. `context` is that of the cache.
pub fn attention(spec: &AttentionSpec, context: usize, rows: &[Row], q: &[f32], cache: &KvCache) -> Vec<f32> {
    let AttentionSpec { num_heads, num_kv_heads, head_dim, .. } = *spec;
    let heads_per_kv_head = num_heads / num_kv_heads;
    let mut y = vec![0.0; q.len()];
    for_each_row(&mut y, head_dim, |index, y| {
        // y is y[t, h] here
        let (t, h) = (index / num_heads, index % num_heads);
        let q = &q[index * head_dim..][..head_dim]; // q[t, h]
        let position = rows[t].position as usize;
        let first_key = match spec.mask {
            Mask::Causal => 0,
            Mask::Window(window) => (position + 1).saturating_sub(window),
        };
        // cache[sequence, kv_head, first_key ..= position]
        let head = rows[t].sequence as usize * num_kv_heads + h / heads_per_kv_head;
        let visible = (head * context + first_key) * head_dim..(head * context + position + 1) * head_dim;
        let k = cache.k[visible.clone()].chunks_exact(head_dim);
        let v = cache.v[visible].chunks_exact(head_dim);

        let scores: Vec<f64> = k.map(|k| f64::from(spec.scale) * dot(q, k)).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exponentials: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
        let total: f64 = exponentials.iter().sum();

        let mut sums = vec![0.0; head_dim];
        for (v, exponential) in v.zip(&exponentials) {
            for (sum, v) in sums.iter_mut().zip(v) {
                *sum += exponential / total * f64::from(*v);
            }
        }
        for (y, sum) in y.iter_mut().zip(sums) {
            *y = sum as f32;
        }
    });
    y
}
