//! grad_query: the gradient of the queries of causal attention, before their rotary embedding; and of every row and head what grad_key_value needs.
//!
//! ```text
//! rows     [num_tokens] Row                                    in   those of a sequence follow each other, from position 0 on
//! q        [num_tokens, num_heads head_dim] f32                in   with rotary embedding
//! cache.k  [sequences, num_kv_heads, context, head_dim] f32    in
//! cache.v  the same                                            in
//! dy       [num_tokens, num_heads head_dim] f32                in   of what the heads give
//! rope     [context, pairs] (cosine, sine)                     in
//! dq       [num_tokens, num_heads head_dim] f32                out
//! stats    [num_tokens, num_heads] [f32; 2]                    out  log-sum-exp of the scores, <dy, y>
//! ```

use super::{KvCache, dot};
use crate::batch::Row;
use crate::spec::AttentionSpec;

/// What goes in, in the shapes of the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub spec: &'a AttentionSpec,
    pub context: usize,
    pub rows: &'a [Row],
    pub q: &'a [f32],
    pub cache: &'a KvCache,
    pub dy: &'a [f32],
    pub rope: &'a [[f32; 2]],
}

/// Returns `dq` and `stats`.
pub fn grad_query(inputs: &Inputs) -> (Vec<f32>, Vec<[f32; 2]>) {
    let Inputs { spec, rows, q, cache, dy, .. } = *inputs;
    let (head_dim, scale) = (spec.head_dim, f64::from(spec.scale));
    let (mut dq, mut stats) = (Vec::with_capacity(q.len()), Vec::new());
    for (index, (q, dy)) in q.chunks_exact(head_dim).zip(dy.chunks_exact(head_dim)).enumerate() {
        // q[t, h]
        let (t, h) = (index / spec.num_heads, index % spec.num_heads);
        let position = rows[t].position as usize;
        let first = inputs.key_place(t, h * spec.num_kv_heads / spec.num_heads, 0);
        let keys = |values: &'_ [f32]| -> Vec<Vec<f32>> {
            values[first * head_dim..][..(position + 1) * head_dim].chunks_exact(head_dim).map(<[f32]>::to_vec).collect()
        };
        let (k, v) = (keys(&cache.k), keys(&cache.v));
        let scores: Vec<f64> = k.iter().map(|k| scale * dot(q, k)).collect();
        let lse = super::training::gate::log_sum_exp(&scores);
        let probabilities: Vec<f64> = scores.iter().map(|score| (score - lse).exp()).collect();
        let along: f64 = probabilities.iter().zip(&v).map(|(p, v)| p * dot(dy, v)).sum();
        let mut sums = vec![0.0; head_dim];
        for ((k, v), p) in k.iter().zip(&v).zip(&probabilities) {
            let dscore = p * (dot(dy, v) - along) * scale;
            sums.iter_mut().zip(k).for_each(|(sum, k)| *sum += dscore * f64::from(*k));
        }
        dq.extend(inputs.turned_back(t, sums));
        stats.push([lse as f32, along as f32]);
    }
    (dq, stats)
}

impl Inputs<'_> {
    /// Index of the key of a head at some position of the sequence of row `t`.
    pub(super) fn key_place(&self, t: usize, kv_head: usize, position: usize) -> usize {
        (self.rows[t].sequence as usize * self.spec.num_kv_heads + kv_head) * self.context + position
    }

    /// A gradient of row `t` after the rotary embedding, as it is before that.
    pub(super) fn turned_back(&self, t: usize, mut head: Vec<f64>) -> Vec<f32> {
        if let Some(rope) = &self.spec.rope {
            let pairs = rope.dims / 2;
            let turns = &self.rope[self.rows[t].position as usize * pairs..][..pairs];
            for (i, turn) in turns.iter().enumerate() {
                let [cosine, sine] = turn.map(f64::from);
                let (a, b) = (head[i], head[i + pairs]);
                head[i] = a * cosine + b * sine;
                head[i + pairs] = b * cosine - a * sine;
            }
        }
        head.into_iter().map(|value| value as f32).collect()
    }
}
