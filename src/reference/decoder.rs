//! The whole forward pass, from the twins.

use super::attention::attention;
use super::embed::embed;
use super::expert_combine::expert_combine;
use super::expert_down::expert_down;
use super::expert_gate_up::expert_gate_up;
use super::matmul::{matmul, matmul_add};
use super::qkv::{self, qkv};
use super::rms_norm::rms_norm;
use super::rope::rope_table;
use super::router_topk::{Routing, router_topk};
use super::{KvCache, LayerRouting, Row};
use crate::checkpoint::{Checkpoint, WeightKey};
use crate::error::Result;
use crate::spec::{LayerSpec, ModelSpec};

/// A model in host memory, all weights in f32, with the KV caches of its sequences.
#[derive(Debug)]
pub struct Decoder {
    spec: ModelSpec,
    context: usize,
    weights: Weights,
    layers: Vec<Layer>,
}

/// What lies outside the layers.
#[derive(Debug)]
struct Weights {
    /// `[vocab_size, hidden]`
    embedding: Vec<f32>,
    /// `[hidden]`
    final_norm: Vec<f32>,
    /// `[vocab_size, hidden]`; `None` where it is the embedding.
    head: Option<Vec<f32>>,
}

/// Weights and cache of one layer, shaped as [`WeightKey`] says.
#[derive(Debug)]
struct Layer {
    attention_norm: Vec<f32>,
    qkv: Vec<f32>,
    attention_output: Vec<f32>,
    ffn_norm: Vec<f32>,
    router: Vec<f32>,
    /// `[num_experts][2 intermediate, hidden]`
    gate_up: Vec<Vec<f32>>,
    /// `[num_experts][hidden, intermediate]`
    down: Vec<Vec<f32>>,
    /// `[context, head_dim / 2]` of (cosine, sine)
    rope: Vec<[f32; 2]>,
    cache: KvCache,
}

/// What a batch of `n` rows comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// `[n, hidden]`, after the final norm.
    pub hidden: Vec<f32>,
    /// One per layer with a router, in their order.
    pub layers: Vec<LayerRouting>,
}

/// Reads weights, and tells how far it is.
struct Loader<'a> {
    spec: &'a ModelSpec,
    checkpoint: &'a Checkpoint,
    progress: &'a mut dyn FnMut(u64),
    done_bytes: u64,
}

impl Loader<'_> {
    async fn read(&mut self, key: WeightKey) -> Result<Vec<f32>> {
        let (rows, _) = key.shape(self.spec);
        let values = self.checkpoint.read(key, 0..rows).await?.values;
        self.done_bytes += size_of_val(values.as_slice()) as u64;
        (self.progress)(self.done_bytes);
        Ok(values)
    }

    async fn read_layer(&mut self, layer: usize, context: usize) -> Result<Layer> {
        let LayerSpec { mixer, ffn } = &self.spec.layers[layer];
        let (mut gate_up, mut down) = (Vec::new(), Vec::new());
        for expert in 0..ffn.moe().router.num_experts {
            gate_up.push(self.read(WeightKey::ExpertGateUp { layer, expert }).await?);
            down.push(self.read(WeightKey::ExpertDown { layer, expert }).await?);
        }
        Ok(Layer {
            attention_norm: self.read(WeightKey::AttentionNorm { layer }).await?,
            qkv: self.read(WeightKey::Qkv { layer }).await?,
            attention_output: self.read(WeightKey::AttentionOutput { layer }).await?,
            ffn_norm: self.read(WeightKey::FfnNorm { layer }).await?,
            router: self.read(WeightKey::Router { layer }).await?,
            gate_up,
            down,
            rope: rope_table(&mixer.attention().rope, mixer.attention().head_dim, context),
            cache: KvCache::default(),
        })
    }
}

impl Decoder {
    /// Reads all weights. `context` is how many positions a sequence may have; `progress` gets the bytes so far, as f32: at the end they
    /// are four times [`Parameters::total`](crate::spec::Parameters::total).
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub async fn load(spec: &ModelSpec, checkpoint: &Checkpoint, context: usize, progress: &mut dyn FnMut(u64)) -> Result<Self> {
        let mut loader = Loader { spec, checkpoint, progress, done_bytes: 0 };
        let embedding = loader.read(WeightKey::Embedding).await?;
        let mut layers = Vec::with_capacity(spec.layers.len());
        for layer in 0..spec.layers.len() {
            layers.push(loader.read_layer(layer, context).await?);
        }
        let final_norm = loader.read(WeightKey::FinalNorm).await?;
        let head = if spec.tied_embeddings { None } else { Some(loader.read(WeightKey::Head).await?) };
        Ok(Decoder { spec: spec.clone(), context, weights: Weights { embedding, final_norm, head }, layers })
    }

    /// Positions that a sequence may have.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Runs a batch: each row attends to what its sequence has so far, the rows of this batch included, and is appended to it.
    ///
    /// # Panics
    /// If a token is beyond the vocabulary or a position beyond the context.
    pub fn forward(&mut self, rows: &[Row]) -> Forward {
        let Decoder { spec, context, weights, layers } = self;
        let num_sequences = rows.iter().map(|row| row.sequence as usize + 1).max().unwrap_or(0);
        let mut x = embed(rows, &weights.embedding, spec.hidden_size); // the residual stream, [n, hidden]
        let mut routings = Vec::with_capacity(layers.len());
        for (index, (layer_spec, layer)) in spec.layers.iter().zip(layers).enumerate() {
            layer.grow_cache(layer_spec, *context, num_sequences);
            layer.mix(spec, layer_spec, *context, rows, &mut x);
            routings.push(layer.route_and_run(spec, index, &mut x));
        }
        Forward { hidden: rms_norm(&x, &weights.final_norm, spec.norm_eps), layers: routings }
    }

    /// `[n, vocab_size]` from `hidden [n, hidden]`, any rows of [`Forward::hidden`].
    pub fn logits(&self, hidden: &[f32]) -> Vec<f32> {
        let head = self.weights.head.as_ref().unwrap_or(&self.weights.embedding);
        matmul(hidden, head, self.spec.hidden_size)
    }
}

impl Layer {
    fn grow_cache(&mut self, spec: &LayerSpec, context: usize, num_sequences: usize) {
        let attention = spec.mixer.attention();
        let len = num_sequences * attention.num_kv_heads * context * attention.head_dim;
        if self.cache.k.len() < len {
            self.cache.k.resize(len, 0.0);
            self.cache.v.resize(len, 0.0);
        }
    }

    /// `x += attention(norm(x))`
    fn mix(&mut self, model: &ModelSpec, spec: &LayerSpec, context: usize, rows: &[Row], x: &mut [f32]) {
        let attention_spec = spec.mixer.attention();
        let normed = rms_norm(x, &self.attention_norm, model.norm_eps);
        let inputs = qkv::Inputs { spec: attention_spec, context, rows, x: &normed, weight: &self.qkv, rope: &self.rope };
        let q = qkv(&inputs, &mut self.cache);
        let mixed = attention(attention_spec, context, rows, &q, &self.cache);
        matmul_add(&mixed, &self.attention_output, attention_spec.output_width(), x);
    }

    /// `x += experts(norm(x))`
    fn route_and_run(&self, model: &ModelSpec, layer: usize, x: &mut [f32]) -> LayerRouting {
        let moe = model.layers[layer].ffn.moe();
        let (top_k, hidden_size) = (moe.router.num_experts_per_tok, model.hidden_size);
        let normed = rms_norm(x, &self.ffn_norm, model.norm_eps);
        let router_logits = matmul(&normed, &self.router, hidden_size);
        // Every expert is resident in the slot of its own number.
        let slot_table: Vec<u32> = (0..moe.router.num_experts as u32).collect();
        let mut loads = vec![0; slot_table.len()];
        let Routing { expert_ids, slots, routing_weights } = router_topk(&moe.router, &router_logits, &slot_table, &mut loads);
        let h = expert_gate_up(&normed, &slots, top_k, &self.gate_up, hidden_size);
        let y = expert_down(&h, &slots, &self.down, moe.expert.intermediate_size);
        expert_combine(&y, &routing_weights, top_k, x);
        LayerRouting { layer, router_logits, expert_ids, routing_weights }
    }
}
