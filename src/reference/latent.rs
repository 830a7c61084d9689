//! latent: from the raw projections of latent attention to rotated queries and the cache of latents.
//!
//! ```text
//! rows      [num_tokens] Row                                        in
//! kv        [num_tokens, latent_dim + rope_dim] f32                 in      the latent, then the shared key with a position
//! norm      [latent_dim] f32                                        in
//! rope      [context, rope_dim / 2] (cosine, sine)                  in      unless nothing turns
//! q         [num_tokens, num_heads, nope_dim + rope_dim] f32        in out  the last rope_dim of each head turn
//! cache.k   [sequences, context, latent_dim + rope_dim] f32         out     at the row's position: normed and scaled latent, turned key
//! ```
//!
//! Source: DeepSeek-AI 2024, arXiv 2405.04434, in the form where the projections from the latent are part of query and output.

use super::KvCache;
use super::norm::rms_norm_row;
use super::qk_rope::turn;
use crate::batch::Row;
use crate::spec::LatentSpec;

/// What goes in, in the shapes of the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub spec: &'a LatentSpec,
    pub context: usize,
    pub rows: &'a [Row],
    pub kv: &'a [f32],
    pub norm: &'a [f32],
    pub rope: &'a [[f32; 2]],
}

/// # Panics
/// If a position or a sequence is beyond the cache.
pub fn latent(inputs: &Inputs, q: &mut [f32], cache: &mut KvCache) {
    let Inputs { spec, context, rows, kv, norm, rope } = *inputs;
    let cache_dim = spec.cache_dim();
    for (t, (row, q)) in rows.iter().zip(q.chunks_exact_mut(spec.query_width())).enumerate() {
        let position = row.position as usize;
        assert!(position < context, "position {position} in a context of {context}");
        let turned = |values: &mut [f32]| {
            if let Some(spec_of_rope) = &spec.rope {
                let turns = &rope[position * spec.rope_dim / 2..][..spec.rope_dim / 2]; // rope[position]
                turn(values, turns, spec_of_rope.pairing);
            }
        };
        q.chunks_exact_mut(spec.key_dim()).for_each(|head| turned(&mut head[spec.nope_dim..]));
        // cache[sequence, position]
        let place = row.sequence as usize * context + position;
        let mut new = kv[t * cache_dim..][..cache_dim].to_vec(); // kv[t]
        let (c, k_rope) = new.split_at_mut(spec.latent_dim);
        rms_norm_row(c, Some(norm), spec.norm_eps);
        c.iter_mut().for_each(|c| *c *= spec.latent_scale);
        turned(k_rope);
        cache.append(place, &new, &[]);
    }
}
