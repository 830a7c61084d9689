//! attention: softmax(scale * q . k) v over the visible keys of a token's own sequence.
//!
//! ```text
//! rows      [num_tokens] Row                                  in
//! q         [num_tokens, num_heads head_dim] f32              in
//! cache.k   [sequences, num_kv_heads, context, head_dim] f32  in
//! cache.v   [sequences, num_kv_heads, context, value_dim] f32 in   absent where Inputs::value_dim is given
//! sinks     [num_heads] f32                                   in   where the spec has them
//! bias      [num_heads, 2 max_distance + 1] f32               in   where the spec has one
//! y         [num_tokens, num_heads value_dim] f32             out
//! ```
//!
//! Key j is visible at position i iff j <= i, and i - window < j where there is a window, and both are in one chunk where there
//! are chunks; where the mask is all, keys 0 .. keys of the row are. Where value_dim is given, the first so many values of a key are its value: so it is in latent attention. Scores are capped where the spec says so; a sink is one more score, without a value.

use super::{KvCache, dot};
use crate::batch::Row;
use crate::platform::for_each_row;
use crate::spec::{AttentionSpec, Mask};

/// What goes in, in the shapes of the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub spec: &'a AttentionSpec,
    /// That of the cache.
    pub context: usize,
    pub rows: &'a [Row],
    pub q: &'a [f32],
    pub cache: &'a KvCache,
    pub sinks: Option<&'a [f32]>,
    pub bias: Option<&'a [f32]>,
    /// The values are the first so many dimensions of the keys; `None`: they stand in `cache.v`.
    pub value_dim: Option<usize>,
}

/// Returns `y`.
pub fn attention(inputs: &Inputs) -> Vec<f32> {
    let Inputs { spec, context, rows, q, cache, sinks, bias, value_dim } = *inputs;
    let AttentionSpec { num_heads, num_kv_heads, head_dim, .. } = *spec;
    let heads_per_kv_head = num_heads / num_kv_heads;
    let (values, stride, value_dim) =
        value_dim.map_or((&cache.v, spec.value_dim, spec.value_dim), |value_dim| (&cache.k, head_dim, value_dim));
    let mut y = vec![0.0; rows.len() * num_heads * value_dim];
    for_each_row(&mut y, value_dim, |index, y| {
        // y is y[t, h] here
        let (t, h) = (index / num_heads, index % num_heads);
        let q = &q[index * head_dim..][..head_dim]; // q[t, h]
        let position = rows[t].position as usize;
        let first_key = match spec.mask {
            Mask::Causal | Mask::All => 0,
            Mask::Window(window) => (position + 1).saturating_sub(window),
            Mask::Chunk(chunk) => position / chunk * chunk,
        };
        let end_key = if spec.mask == Mask::All { rows[t].keys as usize } else { position + 1 };
        // cache[sequence, kv_head, first_key .. end_key]
        let head = rows[t].sequence as usize * num_kv_heads + h / heads_per_kv_head;
        let (first, end) = (head * context + first_key, head * context + end_key);
        let k = cache.k[first * head_dim..end * head_dim].chunks_exact(head_dim);
        let v = values[first * stride..end * stride].chunks_exact(stride).map(|v| &v[..value_dim]);

        let capped = |score: f64| spec.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh());
        let bias_of = |key: usize| match (spec.relative_bias, bias) {
            (Some(relative), Some(table)) => f64::from(table[h * relative.width() + relative.entry(position, key)]),
            _ => 0.0,
        };
        let score = |(key, k)| capped(f64::from(spec.scale) * dot(q, k)) + bias_of(key);
        let scores: Vec<f64> = (first_key..).zip(k).map(score).collect();
        let sink = sinks.map_or(f64::NEG_INFINITY, |sinks| f64::from(sinks[h]));
        let max = scores.iter().copied().fold(sink, f64::max);
        let exponentials: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
        let total = exponentials.iter().sum::<f64>() + (sink - max).exp();

        let mut sums = vec![0.0; value_dim];
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
