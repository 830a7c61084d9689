//! The kernels in plain Rust, one file per kernel, and the whole forward pass made of them.
//!
//! This is what every kernel is judged by, and what runs where there is no GPU. It is written to be read: dense row-major slices without
//! padding, no cleverness but threads. Values pass from kernel to kernel in f32, as they do on a device; every sum is taken in f64,
//! so that a kernel's own rounding is all that a comparison sees.

pub mod attention;
pub mod attention_merge;
pub mod causal_pair;
pub(crate) mod chosen;
mod decoder;
pub mod embed;
pub mod expert_combine;
pub mod expert_down;
pub mod expert_gate_up;
pub mod expert_identity;
pub mod expert_sort;
pub mod fault;
pub mod head_matmul;
pub mod latent;
mod layer;
pub mod matmul;
pub mod norm;
pub mod qk_rope;
pub mod qkv;
pub mod regroup;
pub mod rng;
pub mod rope;
pub mod router;
pub mod router_attention;
pub mod router_topk;
pub mod sample;

pub use decoder::{Decoder, Forward};
pub use fault::{LayerPart, Place};
pub use sample::Sampling;

use crate::quant::CacheFormat;

/// One row of a batch, as in `shaders/lib/rows.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Row {
    /// Id in the vocabulary.
    pub token: u32,
    /// Index in its sequence.
    pub position: u32,
    /// Which KV cache it belongs to.
    pub sequence: u32,
    pub unused: u32,
}

impl Row {
    pub fn new(token: u32, position: u32, sequence: u32) -> Self {
        Row { token, position, sequence, unused: 0 }
    }
}

/// How one layer routed a batch of `n` tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerRouting {
    /// Index of the layer in the model.
    pub layer: usize,
    /// `[n, num_experts]`
    pub router_logits: Vec<f32>,
    /// `[n, num_experts_per_tok]`, best first.
    pub expert_ids: Vec<u32>,
    /// `[n, num_experts_per_tok]`, what multiplies the output of each expert, or its input.
    pub routing_weights: Vec<f32>,
}

impl LayerRouting {
    /// No tokens yet.
    pub fn empty(layer: usize) -> Self {
        LayerRouting { layer, router_logits: Vec::new(), expert_ids: Vec::new(), routing_weights: Vec::new() }
    }

    /// Forgets the first `dropped` of `num_tokens` tokens.
    pub fn drop_first(&mut self, dropped: usize, num_tokens: usize) {
        self.router_logits.drain(..self.router_logits.len() / num_tokens * dropped);
        let chosen = self.expert_ids.len() / num_tokens * dropped;
        self.expert_ids.drain(..chosen);
        self.routing_weights.drain(..chosen);
    }

    /// Whether a router did what no router does: logits or weights that are not finite, or an expert twice for one token. `top_k` is the number of experts
    /// of a token.
    pub fn is_nonsense(&self, top_k: usize) -> bool {
        let twice = |ids: &[u32]| ids.iter().enumerate().any(|(rank, id)| ids[..rank].contains(id));
        !fault::all_finite(&self.router_logits)
            || !fault::all_finite(&self.routing_weights)
            || self.expert_ids.chunks(top_k.max(1)).any(twice)
    }

    /// Puts the tokens of a later batch behind these.
    pub fn append(&mut self, later: &LayerRouting) {
        self.router_logits.extend_from_slice(&later.router_logits);
        self.expert_ids.extend_from_slice(&later.expert_ids);
        self.routing_weights.extend_from_slice(&later.routing_weights);
    }
}

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
