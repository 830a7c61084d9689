//! One layer of the forward pass, from the twins.

use super::attention::{self, attention};
use super::expert_combine::expert_combine;
use super::expert_down::expert_down;
use super::expert_gate_up::{self, expert_gate_up};
use super::expert_identity::expert_identity;
use super::head_matmul::{self, head_matmul};
use super::latent::{self, latent};
use super::matmul::{add_bias, matmul, sigmoid};
use super::norm::norm;
use super::qk_rope::{self, qk_rope};
use super::qkv::{self, qkv};
use super::rope::rope_table;
use super::router::finish_logits;
use super::router_attention::router_attention;
use super::router_topk::{Routing, router_topk};
use super::{KvCache, LayerRouting, Row};
use crate::checkpoint::WeightKey;
use crate::gating::WeightOn;
use crate::quant::CacheFormat;
use crate::spec::{
    AttentionSpec, Ffn, FilterSpec, LatentSpec, LayerSpec, Mixer, MlpSpec, ModelSpec, MoeSpec, NormSpec, ParallelInputs,
    ParallelSpec,
};
use std::collections::BTreeMap;

/// Every weight of a model, shaped as [`WeightKey`] says.
#[derive(Debug, Default)]
pub(super) struct Weights(pub BTreeMap<WeightKey, Vec<f32>>);

impl Weights {
    /// A weight that the spec may be without.
    pub fn find(&self, key: WeightKey) -> Option<&[f32]> {
        self.0.get(&key).map(Vec::as_slice)
    }

    /// A weight that every such layer has.
    pub fn get(&self, key: WeightKey) -> &[f32] {
        self.find(key).expect("loading reads every weight of the spec")
    }
}

/// The state of one layer.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) index: usize,
    /// `[context, dims / 2]` of (cosine, sine)
    pub(super) rope: Vec<[f32; 2]>,
    pub(super) cache: KvCache,
    /// What a filter remembers: its input and its middle, of every position.
    pub(super) filter: [Vec<f32>; 2],
    pub(super) hidden_size: usize,
}

/// What a mixer reads of a batch of `n` rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch<'a> {
    pub context: usize,
    pub rows: &'a [Row],
    /// `[n, hidden]`, normed.
    pub x: &'a [f32],
}

/// Input, assignments and output of some experts.
struct Experts<'a> {
    spec: &'a MlpSpec,
    /// By slot.
    gate_up: Vec<&'a [f32]>,
    gate_up_bias: Vec<&'a [f32]>,
    down: Vec<&'a [f32]>,
    down_bias: Vec<&'a [f32]>,
    hidden_size: usize,
}

impl Experts<'_> {
    /// `y [num_assignments, hidden]`
    fn run(&self, x: &[f32], slots: &[u32], top_k: usize, input_weights: Option<&[f32]>) -> Vec<f32> {
        let h = expert_gate_up(&expert_gate_up::Inputs {
            x,
            slots,
            top_k,
            slabs: &self.gate_up,
            biases: &self.gate_up_bias,
            input_weights,
            hidden_size: self.hidden_size,
            activation: self.spec.activation,
        });
        expert_down(&h, slots, &self.down, &self.down_bias, self.spec.intermediate_size)
    }
}

impl Layer {
    /// A layer with an empty cache and the table of a short text.
    pub fn new(index: usize, spec: &LayerSpec, (context, format): (usize, CacheFormat), hidden_size: usize) -> Self {
        let cache = KvCache { format, ..KvCache::default() };
        let mut layer = Layer { index, rope: Vec::new(), cache, filter: Default::default(), hidden_size };
        layer.turn(spec, context, 0);
        layer
    }

    /// Takes the rotary table for sequences of `total_len`.
    pub fn turn(&mut self, spec: &LayerSpec, context: usize, total_len: usize) {
        self.rope = spec.mixer.rope().map(|rope| rope_table(rope, context, total_len)).unwrap_or_default();
    }

    pub fn grow_cache(&mut self, spec: &LayerSpec, context: usize, num_sequences: usize) {
        let positions = num_sequences * context;
        let (k, v) = match &spec.mixer {
            Mixer::Attention(attention) => {
                let places = positions * attention.num_kv_heads;
                (places * attention.head_dim, places * attention.value_dim)
            }
            Mixer::Latent(latent) => (positions * latent.cache_dim(), 0),
            Mixer::Mamba(_) => unreachable!("checkpoints of such models are not opened"),
        };
        if let Some(FilterSpec { middle, .. }) = spec.mixer.attention().and_then(|attention| attention.filter) {
            let widths = [self.hidden_size, middle];
            self.filter.iter_mut().zip(widths).for_each(|(cache, width)| cache.resize(cache.len().max(positions * width), 0.0));
        }
        if self.cache.k.len() < k {
            self.cache.k.resize(k, 0.0);
            self.cache.v.resize(v, 0.0);
        }
    }

    /// `x += post_norm(attention(norm(x)))`, with the norms that the spec has. Gives what a router chose of the attention's projections, where
    /// there is one.
    pub fn mix(
        &mut self,
        spec: &LayerSpec,
        weights: &Weights,
        context: usize,
        rows: &[Row],
        x: &mut [f32],
    ) -> Option<LayerRouting> {
        let layer = self.index;
        let normed = norm_if(spec, x, weights.find(WeightKey::AttentionNorm { layer }));
        let batch = Batch { context, rows, x: &normed };
        let mut choice = None;
        let mut y = match &spec.mixer {
            Mixer::Attention(attention) => match &attention.choice {
                Some(router) => {
                    let (y, routing) = self.attend_by_choice(attention, router, weights, &batch);
                    choice = Some(routing);
                    y
                }
                None => self.attend(attention, weights, &batch),
            },
            Mixer::Latent(spec) => self.attend_to_latents(spec, weights, &batch),
            Mixer::Mamba(_) => unreachable!("checkpoints of such models are not opened"),
        };
        if let Some(output) = weights.find(WeightKey::AttentionOutput { layer }) {
            y = matmul(&y, output, spec.mixer.output_width());
        }
        if let Some(bias) = weights.find(WeightKey::AttentionOutputBias { layer }) {
            add_bias(&mut y, bias);
        }
        add_scaled(spec, &norm_if(spec, &y, weights.find(WeightKey::AttentionPostNorm { layer })), x);
        choice
    }

    /// `[n, num_heads head_dim]`
    fn attend(&mut self, spec: &AttentionSpec, weights: &Weights, batch: &Batch) -> Vec<f32> {
        let (layer, Batch { context, rows, x }) = (self.index, *batch);
        let [query_norm, key_norm] = [WeightKey::QueryNorm { layer }, WeightKey::KeyNorm { layer }].map(|key| weights.find(key));
        let q = if let Some(filter) = &spec.filter {
            let qkv = self.project_filtered(spec, filter, weights, batch);
            qk_rope(&qk_rope::Inputs { spec, context, rows, qkv: &qkv, query_norm, key_norm, rope: &self.rope }, &mut self.cache)
        } else {
            let weight = weights.get(WeightKey::Qkv { layer });
            let bias = weights.find(WeightKey::QkvBias { layer });
            let inputs = qkv::Inputs { spec, context, rows, x, weight, bias, query_norm, key_norm, rope: &self.rope };
            qkv(&inputs, &mut self.cache)
        };
        let sinks = weights.find(WeightKey::Sinks { layer });
        let mut mixed = attention(&attention::Inputs { spec, context, rows, q: &q, cache: &self.cache, sinks, value_dim: None });
        if let Some(gate) = weights.find(WeightKey::AttentionGate { layer }) {
            let gates = matmul(x, gate, x.len() / rows.len());
            mixed.iter_mut().zip(gates).for_each(|(value, gate)| *value *= sigmoid(gate));
        }
        mixed
    }

    /// `[n, num_heads value_dim]`
    fn attend_to_latents(&mut self, spec: &LatentSpec, weights: &Weights, batch: &Batch) -> Vec<f32> {
        let (layer, Batch { context, rows, x }) = (self.index, *batch);
        if rows.is_empty() {
            return Vec::new();
        }
        let hidden_size = x.len() / rows.len();
        let LatentSpec { num_heads, latent_dim, nope_dim, .. } = *spec;
        let query_up = weights.get(WeightKey::LatentQueryUp { layer });
        let mut q = match spec.query_rank {
            Some(rank) => {
                let down = matmul(x, weights.get(WeightKey::LatentQueryDown { layer }), hidden_size);
                let normed = norm(&NormSpec::rms(spec.norm_eps), &down, weights.get(WeightKey::LatentQueryNorm { layer }));
                matmul(&normed, query_up, rank)
            }
            None => matmul(x, query_up, hidden_size),
        };
        let kv = matmul(x, weights.get(WeightKey::LatentDown { layer }), hidden_size);
        let norm = weights.get(WeightKey::LatentNorm { layer });
        latent(&latent::Inputs { spec, context, rows, kv: &kv, norm, rope: &self.rope }, &mut q, &mut self.cache);

        let weight = weights.get(WeightKey::LatentKeyUp { layer });
        let q = head_matmul(&head_matmul::Inputs { num_heads, cols: nope_dim, x_stride: spec.key_dim(), x: &q, weight });
        let over_cache = attention::Inputs {
            spec: &spec.over_cache(),
            context,
            rows,
            q: &q,
            cache: &self.cache,
            sinks: None,
            value_dim: Some(latent_dim),
        };
        let x = attention(&over_cache);
        let weight = weights.get(WeightKey::LatentValueUp { layer });
        head_matmul(&head_matmul::Inputs { num_heads, cols: latent_dim, x_stride: latent_dim, x: &x, weight })
    }

    /// `x += post_norm(ffn(norm(x)))`, with the norms that the spec has. Returns what the router did, where there is one.
    /// `input` is what `x` was before the mixer; `deferred` is what the layer before left to be added, and then what this one leaves.
    pub fn feed_forward(
        &self,
        (model, weights): (&ModelSpec, &Weights),
        input: &[f32],
        x: &mut [f32],
        deferred: &mut Option<Vec<f32>>,
    ) -> Option<LayerRouting> {
        let (layer, spec) = (self.index, &model.layers[self.index]);
        let waiting = deferred.take();
        let normed = norm_if(spec, x, weights.find(WeightKey::FfnNorm { layer }));
        let mut y = vec![0.0; x.len()];
        let routing = match &spec.ffn {
            Ffn::Dense(mlp) => {
                let keys = [WeightKey::DenseGateUp { layer }, WeightKey::DenseDown { layer }];
                self.run_for_all(mlp, keys, weights, &normed, &mut y);
                None
            }
            Ffn::Moe(moe) => Some(self.route_and_run((model, weights), moe, [&normed, x], &mut y)),
            Ffn::Parallel(parallel) => {
                let (dense, experts, routing) = self.run_parallel((model, weights), parallel, input, x);
                if parallel.deferred {
                    *deferred = Some(experts.iter().map(|value| spec.residual_scale * value).collect());
                    y = dense;
                } else {
                    y = dense.iter().zip(&experts).map(|(dense, expert)| dense + expert).collect();
                }
                Some(routing)
            }
        };
        if let Some(bias) = weights.find(WeightKey::FfnBias { layer }) {
            add_bias(&mut y, bias);
        }
        add_scaled(spec, &norm_if(spec, &y, weights.find(WeightKey::FfnPostNorm { layer })), x);
        if let Some(waiting) = waiting {
            x.iter_mut().zip(waiting).for_each(|(x, waiting)| *x += waiting);
        }
        if let Some(scale) = weights.find(WeightKey::OutputScale { layer }) {
            x.iter_mut().for_each(|x| *x *= scale[0]);
        }
        routing
    }

    /// What a dense MLP gives, what the experts beside it give, and what their router did.
    fn run_parallel(
        &self,
        (model, weights): (&ModelSpec, &Weights),
        parallel: &ParallelSpec,
        input: &[f32],
        x: &[f32],
    ) -> (Vec<f32>, Vec<f32>, LayerRouting) {
        let (layer, spec) = (self.index, &model.layers[self.index]);
        let before_experts = weights.find(WeightKey::FfnNorm { layer });
        let before_dense = weights.find(WeightKey::ParallelNorm { layer }).or(before_experts);
        let keys = [WeightKey::DenseGateUp { layer }, WeightKey::DenseDown { layer }];
        let mut dense = vec![0.0; x.len()];
        self.run_for_all(&parallel.dense, keys, weights, &norm_if(spec, x, before_dense), &mut dense);
        let stream = if parallel.inputs == ParallelInputs::LayerInput { input } else { x };
        let mut experts = vec![0.0; x.len()];
        let normed = norm_if(spec, stream, before_experts);
        let routing = self.route_and_run((model, weights), &parallel.moe, [&normed, stream], &mut experts);
        let dense = norm_if(spec, &dense, weights.find(WeightKey::ParallelPostNorm { layer }));
        (dense, norm_if(spec, &experts, weights.find(WeightKey::ExpertPostNorm { layer })), routing)
    }

    /// `y += experts(x)`, where a router with a norm of its own reads the `stream`.
    fn route_and_run(
        &self,
        (model, weights): (&ModelSpec, &Weights),
        moe: &MoeSpec,
        [x, stream]: [&[f32]; 2],
        y: &mut [f32],
    ) -> LayerRouting {
        let layer = self.index;
        let (num_experts, top_k) = (moe.router.num_experts, moe.router.num_experts_per_tok);
        let router_logits = router_logits((model, weights), moe, layer, [x, stream]);
        // Every expert is resident in the slot of its own number.
        let slot_table: Vec<u32> = (0..num_experts as u32).collect();
        let mut loads = vec![0; num_experts];
        let vectors = [WeightKey::SelectionBias { layer }, WeightKey::ExpertScale { layer }].map(|key| weights.find(key));
        let routing = router_topk(&moe.router, &router_logits, vectors, &slot_table, &mut loads);
        let Routing { expert_ids, slots, routing_weights } = routing;

        let of = |key: &dyn Fn(usize) -> WeightKey| {
            (0..moe.router.num_weighted()).filter_map(|expert| weights.find(key(expert))).collect()
        };
        let experts = Experts {
            spec: &moe.expert,
            gate_up: of(&|expert| WeightKey::ExpertGateUp { layer, expert }),
            gate_up_bias: of(&|expert| WeightKey::ExpertGateUpBias { layer, expert }),
            down: of(&|expert| WeightKey::ExpertDown { layer, expert }),
            down_bias: of(&|expert| WeightKey::ExpertDownBias { layer, expert }),
            hidden_size: model.hidden_size,
        };
        if moe.router.weight_on == WeightOn::Input {
            let outputs = experts.run(x, &slots, top_k, Some(&routing_weights));
            expert_combine(&outputs, &vec![1.0; slots.len()], top_k, y);
        } else {
            expert_combine(&experts.run(x, &slots, top_k, None), &routing_weights, top_k, y);
        }
        expert_identity(x, (&expert_ids, &routing_weights), moe.router.num_weighted(), top_k, y);
        if let Some(shared) = &moe.shared {
            let keys = [WeightKey::SharedGateUp { layer }, WeightKey::SharedDown { layer }];
            self.run_for_all(&shared.mlp, keys, weights, x, y);
        }
        LayerRouting { layer, router_logits, expert_ids, routing_weights }
    }

    /// `y += mlp(x)` for every token, times the sigmoid of the shared expert's gate where there is one.
    fn run_for_all(&self, mlp: &MlpSpec, [gate_up, down]: [WeightKey; 2], weights: &Weights, x: &[f32], y: &mut [f32]) {
        let gate_up = weights.get(gate_up);
        let hidden_size = gate_up.len() / (2 * mlp.intermediate_size);
        let only = Experts {
            spec: mlp,
            gate_up: vec![gate_up],
            gate_up_bias: Vec::new(),
            down: vec![weights.get(down)],
            down_bias: Vec::new(),
            hidden_size,
        };
        let num_tokens = x.len() / hidden_size;
        let factors = match weights.find(WeightKey::SharedGate { layer: self.index }) {
            Some(gate) => matmul(x, gate, hidden_size).iter().map(|logit| sigmoid(*logit)).collect(),
            None => vec![1.0; num_tokens],
        };
        expert_combine(&only.run(x, &vec![0; num_tokens], 1, None), &factors, 1, y);
    }
}

/// `[num_tokens, num_experts]`, as the router chooses by them. A router with a norm of its own reads the `stream`.
fn router_logits((model, weights): (&ModelSpec, &Weights), moe: &MoeSpec, layer: usize, [x, stream]: [&[f32]; 2]) -> Vec<f32> {
    let last = weights.get(WeightKey::Router { layer });
    let own = moe.router.input_norm.map(|eps| norm(&NormSpec::rms(eps), stream, weights.get(WeightKey::RouterNorm { layer })));
    let x = own.as_deref().unwrap_or(x);
    let mut logits = match (moe.router.hidden, weights.find(WeightKey::RouterHidden { layer })) {
        (Some(width), Some(first)) => {
            let middle: Vec<f32> = matmul(x, first, model.hidden_size).iter().map(|x| f64::from(*x).tanh() as f32).collect();
            matmul(&middle, last, width)
        }
        _ => matmul(x, last, model.hidden_size),
    };
    if moe.router.attention {
        logits = router_attention(&logits, moe.router.num_experts);
    }
    finish_logits(&moe.router, &mut logits, weights.find(WeightKey::RouterBias { layer }));
    logits
}

fn norm_if(spec: &LayerSpec, x: &[f32], weight: Option<&[f32]>) -> Vec<f32> {
    weight.map_or_else(|| x.to_vec(), |weight| norm(&spec.norm, x, weight))
}

/// `x += residual_scale * y`
fn add_scaled(spec: &LayerSpec, y: &[f32], x: &mut [f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x = (f64::from(*x) + f64::from(spec.residual_scale) * f64::from(*y)) as f32;
    }
}
