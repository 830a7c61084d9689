//! Device memory that a decoder writes: activations, KV cache, sampler.

use super::ahead::NUM_SLOTS;
use super::chunk::ChunkShape;
use crate::error::Result;
use crate::gpu::{Buffer, Device, Pace, Recording};
use crate::kernels::expert_sort;
use crate::quant::{CacheFormat, ROW_ALIGN, padded};
use crate::reference::rope::rope_table;
use crate::reference::sample::seen_words;
use crate::reference::{LayerRouting, Row, Sampling};
use crate::spec::{Ffn, Mixer, ModelSpec, ParallelSpec, RopeSpec};
use std::ops::Range;

/// Sampled tokens that the device keeps for the host to fetch.
pub(super) const RING: usize = 64;

/// One buffer per activation: kernels that touch different buffers need no barrier between them.
#[derive(Debug)]
pub(super) struct State {
    /// Rows of every activation.
    max_tokens: usize,
    pub rows: Buffer,
    /// The residual stream.
    pub x: Buffer,
    pub normed: Buffer,
    /// What a part of a layer gives, where a norm stands between it and the residual stream.
    pub part: Buffer,
    /// The raw projection, where `qk_rope` follows.
    pub qkv: Buffer,
    pub q: Buffer,
    /// Of latent attention: the query between its two projections, raw and normed, the raw latent, and what all heads read from the cache.
    pub latent_query: Buffer,
    pub latent_query_normed: Buffer,
    pub latent: Buffer,
    pub latent_values: Buffer,
    pub attended: Buffer,
    /// What several workgroups make of one token's attention.
    pub partials: Buffer,
    /// Between the layers of a router that has two.
    pub router_hidden: Buffer,
    /// The residual stream before the mixer, or before the feed-forward part, where experts beside a dense MLP read it.
    pub layer_input: Buffer,
    /// What one of the two gives, where a norm of its own follows, and what experts give that waits for the next layer.
    pub branch: Buffer,
    pub deferred: Buffer,
    pub filter: FilterState,
    /// The input of a router that has a norm of its own.
    pub router_input: Buffer,
    pub routed: RouterOutput,
    pub slots: Buffer,
    pub tiles: Buffer,
    pub order: Buffer,
    pub h: Buffer,
    pub expert_output: Buffer,
    /// For every layer how often its router was not finite, then the assignments of every expert, then counters that a choice of projections needs and
    /// nobody reads.
    pub loads: Buffer,
    /// Place of those in `loads`.
    pub choice_loads: usize,
    /// Of an MLP that every token uses: slot 0, weight 1, or what the gate of a shared expert says.
    pub zeros: Buffer,
    pub ones: Buffer,
    pub shared_weights: Buffer,
    pub logits: Buffer,
    pub sampling: Buffer,
    pub seen: Buffer,
    /// The chosen tokens, then a copy of the faults in `loads`.
    pub sampled: Buffer,
    /// One per layer with a router.
    pub taps: Vec<LayerTaps>,
    /// What every router did, at its [`LayerTaps::places`]; filled only where routing is asked for. One buffer for all layers takes one
    /// readback.
    pub tap_values: Buffer,
    /// Copies of `loads` after steps that ran ahead, a slot for each.
    pub load_steps: Buffer,
    /// A copy of `sampled`, then of `tap_values` after every step of a batch; filled only where routing is asked for.
    pub tap_steps: Buffer,
    pub layers: Vec<LayerState>,
}

/// What filters before query and key need, of the widest.
#[derive(Debug, Clone)]
pub(super) struct FilterState {
    pub pair: Buffer,
    pub middle: Buffer,
    pub sum: Buffer,
    pub normed: Buffer,
}

impl FilterState {
    fn new(device: &Device, spec: &ModelSpec, shape: &ChunkShape) -> Self {
        let filters = spec.layers.iter().filter_map(|layer| layer.mixer.attention()?.filter);
        let middle = filters.map(|filter| filter.middle).max();
        let widest = |width: &dyn Fn(usize) -> usize| middle.map_or(ROW_ALIGN, |middle| shape.max_tokens * padded(width(middle)));
        let buffer = |label: &str, width: &dyn Fn(usize) -> usize| device.storage(label, (widest(width) * 4) as u64);
        FilterState {
            pair: buffer("filter_pair", &|middle| 2 * spec.hidden_size.max(middle)),
            middle: buffer("filter_middle", &|middle| middle),
            sum: buffer("filter_sum", &|_| spec.hidden_size),
            normed: buffer("filter_normed", &|_| spec.hidden_size),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct LayerState {
    pub rope: Option<Buffer>,
    pub k_cache: Buffer,
    /// Of latent attention the same as the keys.
    pub v_cache: Buffer,
    /// Inputs and middles of a filter.
    pub filter: Option<[Buffer; 2]>,
}

/// Where copies of what a layer's router did lie, and where its experts are counted.
#[derive(Debug)]
pub(super) struct LayerTaps {
    /// Index of the layer in the model.
    pub layer: usize,
    pub num_experts: usize,
    pub num_experts_per_tok: usize,
    /// Place of its first expert in [`State::loads`].
    pub load_offset: usize,
    /// Place of its first value in [`State::tap_values`], in values of one token.
    offset: usize,
    /// What the router did with a single token, where it is kept: nobody overwrites it before the end of the pass.
    single: RouterOutput,
}

/// What a router writes.
#[derive(Debug, Clone)]
pub(super) struct RouterOutput {
    pub logits: Buffer,
    pub ids: Buffer,
    pub weights: Buffer,
}

/// Places in [`State::tap_values`], by row of the chunk, in values of 32 bits.
pub(super) struct TapPlaces {
    pub router_logits: Range<usize>,
    pub expert_ids: Range<usize>,
    pub routing_weights: Range<usize>,
}

impl RouterOutput {
    fn new(device: &Device, num_logits: usize, num_assignments: usize) -> Self {
        let buffer = |label: &str, len: usize| device.storage(label, (len * 4) as u64);
        RouterOutput {
            logits: buffer("router_logits", num_logits),
            ids: buffer("expert_ids", num_assignments),
            weights: buffer("routing_weights", num_assignments),
        }
    }
}

impl LayerTaps {
    /// Where the router of this layer writes in a pass of `num_tokens` whose routing is kept or not.
    pub fn output<'a>(&'a self, state: &'a State, num_tokens: usize, kept: bool) -> &'a RouterOutput {
        if kept && num_tokens == 1 { &self.single } else { &state.routed }
    }

    /// Copies what the router wrote to its place.
    pub fn keep(&self, state: &State, num_tokens: usize, recording: &mut Recording) {
        let RouterOutput { logits, ids, weights } = self.output(state, num_tokens, true);
        let TapPlaces { router_logits, expert_ids, routing_weights } = self.places(num_tokens);
        for (from, place) in [(logits, router_logits), (ids, expert_ids), (weights, routing_weights)] {
            recording.copy(from, &state.tap_values, (place.start * 4) as u64, (place.len() * 4) as u64);
        }
    }

    /// For a chunk of `num_tokens`.
    pub fn places(&self, num_tokens: usize) -> TapPlaces {
        let router_logits = self.offset * num_tokens..(self.offset + self.num_experts) * num_tokens;
        let expert_ids = router_logits.end..router_logits.end + self.num_experts_per_tok * num_tokens;
        let routing_weights = expert_ids.end..expert_ids.end + self.num_experts_per_tok * num_tokens;
        TapPlaces { router_logits, expert_ids, routing_weights }
    }

    /// Values of all layers for a chunk of `num_tokens`.
    pub fn len(taps: &[Self], num_tokens: usize) -> usize {
        taps.last().map_or(0, |last| last.places(num_tokens).routing_weights.end)
    }
}

/// Bytes that [`State::new`] allocates in the KV cache.
pub(super) fn kv_bytes(spec: &ModelSpec, context: usize, cache: CacheFormat) -> u64 {
    spec.kv_bytes_per_token(cache) * context as u64
}

impl State {
    /// Zeroed memory for chunks of `shape`, with the KV caches of another state of the same model where there are some. Call inside
    /// [`Device::catch`].
    pub fn new(device: &Device, spec: &ModelSpec, shape: &ChunkShape, layers: Option<Vec<LayerState>>) -> Result<Self> {
        let f32s = |label: &str, len: usize| device.storage(label, (len * 4) as u64);
        let tokens = shape.max_tokens;
        let assignments = tokens * shape.max_top_k;
        let max_tiles = expert_sort::Problem { num_assignments: assignments, num_experts: shape.max_experts }.max_tiles();
        let taps = taps(device, spec);
        let num_layers = spec.layers.len();
        let choice_loads = taps.last().map_or(num_layers, |tap| tap.load_offset + tap.num_experts);
        let choices = spec.layers.iter().filter_map(|layer| layer.mixer.attention()?.choice.as_ref());
        // Buffers are whole words of 16 bytes, and copies of this one lie one behind the other.
        let num_loads = (choice_loads + choices.map(|router| router.num_experts).max().unwrap_or(0)).next_multiple_of(4);
        // A stream that no layer needs gets a buffer of one row's padding.
        let stream_if = |wanted: bool| if wanted { tokens * padded(spec.hidden_size) } else { ROW_ALIGN };
        let any_parallel = |wanted: &dyn Fn(&ParallelSpec) -> bool| {
            spec.layers.iter().any(|layer| matches!(&layer.ffn, Ffn::Parallel(parallel) if wanted(parallel)))
        };
        let ones = f32s("ones", tokens);
        device.write(&ones, 0, bytemuck::cast_slice(&vec![1.0f32; tokens]));
        Ok(State {
            max_tokens: tokens,
            rows: device.storage("rows", (tokens * size_of::<Row>()) as u64),
            x: f32s("x", tokens * padded(spec.hidden_size)),
            normed: f32s("normed", tokens * padded(spec.hidden_size)),
            part: f32s("part", tokens * padded(spec.hidden_size)),
            qkv: f32s("qkv", tokens * shape.max_qkv + ROW_ALIGN),
            latent_query: f32s("latent_query", tokens * shape.max_latent_query),
            latent_query_normed: f32s("latent_query_normed", tokens * shape.max_latent_query),
            latent: f32s("latent", tokens * shape.max_latent_cache),
            latent_values: f32s("latent_values", tokens * shape.max_latent_values + ROW_ALIGN),
            q: f32s("q", tokens * shape.max_attention),
            attended: f32s("attended", tokens * shape.max_attention),
            partials: f32s("partials", shape.max_partials),
            router_hidden: f32s("router_hidden", tokens * shape.max_router_hidden),
            layer_input: f32s("layer_input", tokens * padded(spec.hidden_size)),
            filter: FilterState::new(device, spec, shape),
            branch: f32s("branch", stream_if(any_parallel(&|parallel| parallel.post_norms))),
            deferred: f32s("deferred", stream_if(any_parallel(&|parallel| parallel.deferred))),
            router_input: f32s("router_input", stream_if(spec.moe_layers().any(|(_, moe)| moe.router.input_norm.is_some()))),
            routed: RouterOutput::new(device, tokens * shape.max_experts, assignments),
            slots: f32s("slots", assignments),
            tiles: f32s("tiles", max_tiles * 4),
            order: f32s("order", assignments),
            h: f32s("h", tokens * shape.max_inner),
            expert_output: f32s("expert_output", assignments * padded(spec.hidden_size)),
            loads: f32s("loads", num_loads),
            choice_loads,
            zeros: f32s("zeros", tokens),
            ones,
            shared_weights: f32s("shared_weights", tokens),
            logits: f32s("logits", shape.max_logit_rows * spec.vocab_size),
            sampling: device.uniform("sampling", bytemuck::bytes_of(&Sampling::GREEDY)),
            seen: f32s("seen", seen_words(spec.vocab_size)),
            sampled: f32s("sampled", RING + num_layers),
            tap_values: f32s("tap_values", LayerTaps::len(&taps, tokens)),
            load_steps: f32s("load_steps", NUM_SLOTS * num_loads),
            tap_steps: f32s("tap_steps", RING + num_layers + Pace::MOST_STEPS * LayerTaps::len(&taps, 1)),
            taps,
            layers: layers.unwrap_or_else(|| caches(device, spec, shape)),
        })
    }
}

impl State {
    /// Bytes of so many rows of the residual stream.
    pub fn row_bytes(&self, num_tokens: usize) -> u64 {
        self.x.size_bytes() / self.max_tokens as u64 * num_tokens as u64
    }

    /// Bytes of [`sampled`](Self::sampled): the ring, and a word for every layer.
    pub fn sampled_bytes(&self) -> u64 {
        ((RING + self.layers.len()) * 4) as u64
    }

    /// Puts what routers counted as not finite behind the ring of tokens, to be read with them.
    pub fn copy_faults(&self, recording: &mut Recording) {
        recording.copy(&self.loads, &self.sampled, (RING * 4) as u64, (self.layers.len() * 4) as u64);
    }

    /// Appends what the routers did with the `num_tokens` rows of a pass, from a copy of `tap_values`.
    pub fn append_routing(&self, values: &[u32], num_tokens: usize, layers: &mut [LayerRouting]) {
        let floats = |place: Range<usize>| values[place].iter().map(|&bits| f32::from_bits(bits));
        for (routing, taps) in layers.iter_mut().zip(&self.taps) {
            let TapPlaces { router_logits, expert_ids, routing_weights } = taps.places(num_tokens);
            routing.router_logits.extend(floats(router_logits));
            routing.expert_ids.extend_from_slice(&values[expert_ids]);
            routing.routing_weights.extend(floats(routing_weights));
        }
    }

    /// Rotary tables for a text of `total_len` tokens.
    pub fn write_ropes(&self, device: &Device, spec: &ModelSpec, context: usize, total_len: usize) {
        for (state, layer) in self.layers.iter().zip(&spec.layers) {
            if let (Some(buffer), Some(rope)) = (&state.rope, layer.mixer.rope()) {
                device.write(buffer, 0, bytemuck::cast_slice(&rope_table(rope, context, total_len)));
            }
        }
    }
}

fn taps(device: &Device, spec: &ModelSpec) -> Vec<LayerTaps> {
    let (mut load_offset, mut offset) = (spec.layers.len(), 0);
    let mut taps = Vec::new();
    for (layer, moe) in spec.moe_layers() {
        let (num_experts, num_experts_per_tok) = (moe.router.num_experts, moe.router.num_experts_per_tok);
        let single = RouterOutput::new(device, num_experts, num_experts_per_tok);
        taps.push(LayerTaps { layer, num_experts, num_experts_per_tok, load_offset, offset, single });
        load_offset += num_experts;
        offset += num_experts + 2 * num_experts_per_tok;
    }
    taps
}

/// A KV cache for every layer, and a rotary table for every distinct rotary embedding.
fn caches(device: &Device, spec: &ModelSpec, shape: &ChunkShape) -> Vec<LayerState> {
    let ChunkShape { context, cache: format, .. } = *shape;
    let mut tables: Vec<(&RopeSpec, Buffer)> = Vec::new();
    let mut layers = Vec::with_capacity(spec.layers.len());
    for layer in &spec.layers {
        let rope = layer.mixer.rope().map(|rope| {
            if let Some((_, buffer)) = tables.iter().find(|(known, _)| *known == rope) {
                return buffer.clone();
            }
            let table = rope_table(rope, context, 0);
            let buffer = device.storage("rope", (table.len() * 8) as u64);
            device.write(&buffer, 0, bytemuck::cast_slice(&table));
            tables.push((rope, buffer.clone()));
            buffer
        });
        let cache = |label: &str, per_position: usize| device.storage(label, format.bytes(context * per_position) as u64);
        let inputs = |label: &str, per_position: usize| device.storage(label, (context * per_position * 4) as u64);
        let (k_cache, v_cache) = match &layer.mixer {
            Mixer::Attention(attention) => (
                cache("k_cache", attention.num_kv_heads * attention.head_dim),
                cache("v_cache", attention.num_kv_heads * attention.value_dim),
            ),
            Mixer::Latent(latent) => {
                let latents = cache("latent_cache", latent.cache_dim());
                (latents.clone(), latents)
            }
            Mixer::Mamba(_) => unreachable!("checkpoints of such models are not opened"),
        };
        let filter = layer.mixer.attention().and_then(|attention| attention.filter);
        let filter = filter.map(|filter| [inputs("filter_inputs", spec.hidden_size), inputs("filter_middles", filter.middle)]);
        layers.push(LayerState { rope, k_cache, v_cache, filter });
    }
    layers
}
