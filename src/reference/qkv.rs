//! qkv: query, key and value projection with bias, then what `qk_rope` does.
//!
//! ```text
//! rows        [num_tokens] Row                                      in
//! x           [num_tokens, hidden] f32                              in   normed
//! weight      [(num_heads + 2 num_kv_heads) head_dim, hidden] f32   in   heads in the order queries, keys, values
//! bias        [(num_heads + 2 num_kv_heads) head_dim] f32           in   where the spec has one
//! query_norm  as in qk_rope, with key_norm and rope                 in
//! q           [num_tokens, num_heads head_dim] f32                  out
//! cache       as in qk_rope                                         out
//! ```
//!
//! The shader does it without norms and temperature, for a rotary embedding of whole heads in the Llama ordering.

use super::KvCache;
use super::matmul::{add_bias, matmul};
use super::qk_rope::{self, qk_rope};
use crate::batch::Row;
use crate::spec::AttentionSpec;

/// What goes in, in the shapes of the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub spec: &'a AttentionSpec,
    pub context: usize,
    pub rows: &'a [Row],
    pub x: &'a [f32],
    pub weight: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub query_norm: Option<&'a [f32]>,
    pub key_norm: Option<&'a [f32]>,
    pub rope: &'a [[f32; 2]],
}

/// Returns `q`.
///
/// # Panics
/// If a position or a sequence is beyond the cache.
pub fn qkv(inputs: &Inputs, cache: &mut KvCache) -> Vec<f32> {
    let Inputs { spec, context, rows, x, weight, bias, query_norm, key_norm, rope } = *inputs;
    if rows.is_empty() {
        return Vec::new();
    }
    let mut projected = matmul(x, weight, x.len() / rows.len()); // [num_tokens, (num_heads + 2 num_kv_heads) head_dim]
    if let Some(bias) = bias {
        add_bias(&mut projected, bias);
    }
    qk_rope(&qk_rope::Inputs { spec, context, rows, qkv: &projected, query_norm, key_norm, rope }, cache)
}
