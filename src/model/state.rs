//! Device memory that a decoder writes: activations, KV cache, sampler.

use super::chunk::ChunkShape;
use crate::error::Result;
use crate::gpu::{Buffer, Device};
use crate::kernels::expert_sort;
use crate::quant::padded;
use crate::reference::rope::rope_table;
use crate::reference::sample::seen_words;
use crate::reference::{Row, Sampling};
use crate::spec::ModelSpec;

/// Sampled tokens that the device keeps for the host to fetch.
pub(super) const RING: usize = 64;

/// One buffer per activation: kernels that touch different buffers need no barrier between them.
#[derive(Debug)]
pub(super) struct State {
    pub rows: Buffer,
    /// The residual stream.
    pub x: Buffer,
    pub normed: Buffer,
    pub q: Buffer,
    pub attended: Buffer,
    pub router_logits: Buffer,
    pub expert_ids: Buffer,
    pub slots: Buffer,
    pub routing_weights: Buffer,
    pub tiles: Buffer,
    pub order: Buffer,
    pub h: Buffer,
    pub expert_output: Buffer,
    pub loads: Buffer,
    pub logits: Buffer,
    pub sampling: Buffer,
    pub seen: Buffer,
    pub sampled: Buffer,
    /// One per layer, filled only where routing is asked for.
    pub taps: Vec<LayerTaps>,
    pub layers: Vec<LayerState>,
}

#[derive(Debug)]
pub(super) struct LayerState {
    pub rope: Buffer,
    pub k_cache: Buffer,
    pub v_cache: Buffer,
}

/// Copies of what a layer's router did, by row of the chunk.
#[derive(Debug)]
pub(super) struct LayerTaps {
    pub router_logits: Buffer,
    pub expert_ids: Buffer,
    pub routing_weights: Buffer,
}

/// Bytes that [`State::new`] allocates in the KV cache.
pub(super) fn kv_bytes(spec: &ModelSpec, context: usize) -> u64 {
    spec.kv_bytes_per_token() * context as u64
}

impl State {
    /// Zeroed memory for chunks of `shape`. Call inside [`Device::catch`].
    pub fn new(device: &Device, spec: &ModelSpec, shape: &ChunkShape) -> Result<Self> {
        let f32s = |label: &str, len: usize| device.storage(label, (len * 4) as u64);
        let tokens = shape.max_tokens;
        let assignments = tokens * shape.max_top_k;
        let tile_len = expert_sort::tile_len(device.caps());
        let max_tiles = expert_sort::num_tiles(tile_len, assignments, shape.max_experts);
        let mut layers = Vec::with_capacity(spec.layers.len());
        let mut taps = Vec::with_capacity(spec.layers.len());
        for layer in &spec.layers {
            let attention = layer.mixer.attention();
            let cache_len = attention.num_kv_heads * shape.context * attention.head_dim;
            let table = rope_table(&attention.rope, attention.head_dim, shape.context);
            let rope = f32s("rope", table.len() * 2);
            device.write(&rope, 0, bytemuck::cast_slice(&table));
            layers.push(LayerState { rope, k_cache: f32s("k_cache", cache_len), v_cache: f32s("v_cache", cache_len) });
            let router = &layer.ffn.moe().router;
            taps.push(LayerTaps {
                router_logits: f32s("tap.router_logits", tokens * router.num_experts),
                expert_ids: f32s("tap.expert_ids", tokens * router.num_experts_per_tok),
                routing_weights: f32s("tap.routing_weights", tokens * router.num_experts_per_tok),
            });
        }
        Ok(State {
            rows: device.storage("rows", (tokens * size_of::<Row>()) as u64),
            x: f32s("x", tokens * padded(spec.hidden_size)),
            normed: f32s("normed", tokens * padded(spec.hidden_size)),
            q: f32s("q", tokens * padded(shape.max_attention_width)),
            attended: f32s("attended", tokens * padded(shape.max_attention_width)),
            router_logits: f32s("router_logits", tokens * shape.max_experts),
            expert_ids: f32s("expert_ids", assignments),
            slots: f32s("slots", assignments),
            routing_weights: f32s("routing_weights", assignments),
            tiles: f32s("tiles", max_tiles * 4),
            order: f32s("order", assignments),
            h: f32s("h", assignments * padded(shape.max_intermediate)),
            expert_output: f32s("expert_output", assignments * padded(spec.hidden_size)),
            loads: f32s("loads", spec.layers.len() * shape.max_experts),
            logits: f32s("logits", shape.max_logit_rows * spec.vocab_size),
            sampling: device.uniform("sampling", bytemuck::bytes_of(&Sampling::GREEDY)),
            seen: f32s("seen", seen_words(spec.vocab_size)),
            sampled: f32s("sampled", RING),
            taps,
            layers,
        })
    }
}
