//! The kernels in plain Rust, one file per kernel.
//!
//! This is what every kernel is judged by, and what runs where there is no GPU. It is written to be read: dense row-major slices without
//! padding, no cleverness but threads. Values pass from kernel to kernel in f32, as they do on a device; every sum is taken in f64,
//! so that a kernel's own rounding is all that a comparison sees.

pub mod adamw;
pub mod attention;
pub mod attention_merge;
pub mod causal_pair;
pub mod clip;
pub mod cross_entropy;
pub mod embed;
pub mod expert_capacity;
pub mod expert_combine;
pub mod expert_down;
pub mod expert_gate_up;
pub mod expert_identity;
pub mod expert_sort;
pub mod gate;
pub mod gate_rule;
pub mod gate_stats;
pub mod gated_norm;
pub mod grad_embed;
pub mod grad_gate;
pub mod grad_gate_rule;
pub mod grad_hidden;
pub mod grad_input;
pub mod grad_key_value;
pub mod grad_norm;
pub mod grad_norm_weight;
pub mod grad_query;
pub mod grad_weight;
pub mod head_matmul;
pub mod latent;
pub mod matmul;
pub mod norm;
pub mod qk_rope;
pub mod qkv;
pub mod regroup;
pub mod router;
pub mod router_attention;
pub mod router_topk;
pub mod sample;
pub mod scan;
pub mod short_conv;
pub mod squares;
pub mod training;

use crate::quant::CacheFormat;

/// Keys `[sequences, num_kv_heads, context, head_dim]` and values `[.., value_dim]` of one layer. Of latent attention `k` alone, whose rows
/// are both. In f32 here, whatever the format: what it has no place for is rounded away when a token is appended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KvCache {
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub format: CacheFormat,
}

impl KvCache {
    /// Writes the key and the value of one head, or the one row of a latent, as rows number `place`.
    fn append(&mut self, place: usize, k: &[f32], v: &[f32]) {
        for (kept, new) in [(&mut self.k, k), (&mut self.v, v)] {
            kept[place * new.len()..][..new.len()].iter_mut().zip(new).for_each(|(kept, new)| *kept = self.format.keep(*new));
        }
    }
}

/// `sum_i a[i] * b[i]`. Four partial sums, so that one addition need not wait for the one before.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let (a_quads, a_rest) = a.as_chunks::<4>();
    let (b_quads, b_rest) = b.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for (a, b) in a_quads.iter().zip(b_quads) {
        for i in 0..4 {
            sums[i] += f64::from(a[i]) * f64::from(b[i]);
        }
    }
    for (a, b) in a_rest.iter().zip(b_rest) {
        sums[0] += f64::from(*a) * f64::from(*b);
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}
