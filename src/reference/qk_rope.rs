//! qk_rope: from a raw query, key and value projection to rotated queries and the KV cache.
//!
//! ```text
//! rows        [num_tokens] Row                                   in
//! qkv         [num_tokens, qkv_rows] f32                         in   bias included; heads in the order queries, keys, values
//! query_norm  [head_dim] or [num_heads head_dim] f32             in   where the spec has one
//! key_norm    [head_dim] or [num_kv_heads head_dim] f32          in   where the spec has one
//! rope        [context, dims / 2] (cosine, sine)                 in   where the spec has one
//! q           [num_tokens, num_heads head_dim] f32               out
//! cache.k     [sequences, num_kv_heads, context, head_dim] f32   out  at the row's position, as far as cache.format keeps it
//! cache.v     [sequences, num_kv_heads, context, value_dim] f32  out
//! ```
//!
//! In this order: clip, the value's norm and scale, then q/k norm and rotary embedding as the spec orders them, then the query's temperature.
//!
//! Source: Su et al. 2021, arXiv 2104.09864.

use super::KvCache;
use super::norm::rms_norm_row;
use crate::batch::Row;
use crate::spec::{AttentionSpec, QkNorm, QkNormOver, RopePairing};

/// What goes in, in the shapes of the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub spec: &'a AttentionSpec,
    pub context: usize,
    pub rows: &'a [Row],
    pub qkv: &'a [f32],
    pub query_norm: Option<&'a [f32]>,
    pub key_norm: Option<&'a [f32]>,
    pub rope: &'a [[f32; 2]],
}

/// Returns `q`.
///
/// # Panics
/// If a position or a sequence is beyond the cache.
pub fn qk_rope(inputs: &Inputs, cache: &mut KvCache) -> Vec<f32> {
    let Inputs { spec, context, rows, qkv, .. } = *inputs;
    let AttentionSpec { num_kv_heads, head_dim, value_dim, .. } = *spec;
    let mut all_q = Vec::with_capacity(rows.len() * spec.query_width());
    for (row, heads) in rows.iter().zip(qkv.chunks_exact(spec.qkv_rows())) {
        let position = row.position as usize;
        assert!(position < context, "position {position} in a context of {context}");
        let clip = spec.clip.filter(|_| !spec.clip_after_norm);
        let mut heads: Vec<f32> = heads.iter().map(|value| clip.map_or(*value, |to| value.clamp(-to, to))).collect();
        let (q, kv) = heads.split_at_mut(spec.query_width());
        let (k, v) = kv.split_at_mut(num_kv_heads * head_dim);
        let mut v = if spec.values_are_keys { k.to_vec() } else { v.to_vec() };
        prepare_values(spec, &mut v);
        norm_and_turn(inputs, q, inputs.query_norm, position);
        norm_and_turn(inputs, k, inputs.key_norm, position);
        let temperature = spec.temperature.map_or(1.0, |tuning| {
            1.0 + f64::from(tuning.scale) * ((position as f64 + 1.0) / f64::from(tuning.floor)).floor().ln_1p()
        });
        all_q.extend(q.iter().map(|q| (f64::from(*q) * temperature) as f32)); // q[t]
        for (kv_head, (k, v)) in k.chunks_exact(head_dim).zip(v.chunks_exact(value_dim)).enumerate() {
            // cache[sequence, kv_head, position]
            let place = (row.sequence as usize * num_kv_heads + kv_head) * context + position;
            cache.append(place, k, v);
        }
    }
    all_q
}

/// Clip after the norms of query and key, norm and scale of all value heads of one token.
fn prepare_values(spec: &AttentionSpec, v: &mut [f32]) {
    if let Some(to) = spec.clip.filter(|_| spec.clip_after_norm) {
        v.iter_mut().for_each(|v| *v = v.clamp(-to, to));
    }
    if let Some(eps) = spec.value_norm {
        v.chunks_exact_mut(spec.value_dim).for_each(|head| rms_norm_row(head, None, eps));
    }
    v.iter_mut().for_each(|v| *v *= spec.value_scale);
}

/// Norm and rotary embedding of all query heads or all key heads of one token.
fn norm_and_turn(inputs: &Inputs, heads: &mut [f32], weight: Option<&[f32]>, position: usize) {
    let AttentionSpec { head_dim, qk_norm, ref rope, .. } = *inputs.spec;
    let norm = |heads: &mut [f32], after_rope: bool| {
        let Some(QkNorm { eps, over, .. }) = qk_norm.filter(|norm| norm.after_rope == after_rope) else { return };
        let len = if over == QkNormOver::Head { head_dim } else { heads.len() };
        heads.chunks_exact_mut(len).for_each(|x| rms_norm_row(x, weight, eps));
    };
    norm(heads, false);
    if let Some(to) = inputs.spec.clip.filter(|_| inputs.spec.clip_after_norm) {
        heads.iter_mut().for_each(|x| *x = x.clamp(-to, to));
    }
    if let Some(rope) = rope {
        let turns = &inputs.rope[position * rope.dims / 2..][..rope.dims / 2]; // rope[position]
        heads.chunks_exact_mut(head_dim).for_each(|head| turn(head, turns, rope.pairing));
    }
    norm(heads, true);
}

/// Rotates the pairs of one head.
pub(super) fn turn(head: &mut [f32], turns: &[[f32; 2]], pairing: RopePairing) {
    for (i, turn) in turns.iter().enumerate() {
        let (first, second) = match pairing {
            RopePairing::Half => (i, i + turns.len()),
            RopePairing::Interleaved => (2 * i, 2 * i + 1),
        };
        let [cosine, sine] = turn.map(f64::from);
        let (a, b) = (f64::from(head[first]), f64::from(head[second]));
        head[first] = (a * cosine - b * sine) as f32;
        head[second] = (b * cosine + a * sine) as f32;
    }
}
