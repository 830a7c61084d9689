//! What a block computes with on the host: weights in f32, caches, and the rows of a pass.

use crate::batch::rope::rope_table;
use crate::batch::{CacheShape, Row};
use crate::reference::KvCache;
use crate::reference::expert_combine::expert_combine;
use crate::reference::expert_down::expert_down;
use crate::reference::expert_gate_up::{self, expert_gate_up};
use crate::reference::matmul::{matmul, sigmoid};
use crate::reference::norm::norm;
use crate::spec::{BlockSpec, LayerSpec, MlpSpec, ModelSpec, Role, STATE_SLOTS, WeightKey};
use std::collections::BTreeMap;

/// Every weight of a model, shaped as [`WeightKey`] says.
#[derive(Debug, Default)]
pub(crate) struct HostWeights(pub BTreeMap<WeightKey, Vec<f32>>);

impl HostWeights {
    /// A weight that the spec may be without.
    pub fn find(&self, key: WeightKey) -> Option<&[f32]> {
        self.0.get(&key).map(Vec::as_slice)
    }

    /// A weight that every such layer has.
    pub fn get(&self, key: WeightKey) -> &[f32] {
        self.find(key).expect("loading reads every weight of the spec")
    }
}

/// What one block keeps between passes.
#[derive(Debug, Default)]
pub(crate) struct HostBlock {
    /// `[context, dims / 2]` of (cosine, sine)
    pub rope: Vec<[f32; 2]>,
    pub cache: KvCache,
    /// What a filter remembers: its input and its middle, of every position.
    pub filter: [Vec<f32>; 2],
    /// By the name of its [`SlotState`](crate::spec::SlotState).
    carried: BTreeMap<&'static str, Vec<f32>>,
}

impl HostBlock {
    /// An empty cache, and the table of a short text.
    pub fn new(spec: &BlockSpec, cache: CacheShape) -> Self {
        let mut block = HostBlock { cache: KvCache { format: cache.format, ..KvCache::default() }, ..HostBlock::default() };
        block.write_rope(spec, cache.context, 0);
        block
    }

    /// Takes the rotary table for sequences of `total_len`.
    pub fn write_rope(&mut self, spec: &BlockSpec, context: usize, total_len: usize) {
        self.rope = spec.rope().map(|rope| rope_table(rope, context, total_len)).unwrap_or_default();
    }

    /// Makes room for so many sequences of `context` positions each.
    pub fn grow(&mut self, spec: &BlockSpec, [num_sequences, context]: [usize; 2], hidden_size: usize) {
        let positions = num_sequences * context;
        for state in spec.carried(hidden_size) {
            let values = self.carried.entry(state.name).or_default();
            // Nobody reads what nobody has written.
            values.resize(values.len().max(num_sequences * STATE_SLOTS * state.len), f32::NAN);
        }
        for state in spec.state(hidden_size) {
            let [inputs, middles] = &mut self.filter;
            let values = match state.name {
                "k_cache" | "latent_cache" => &mut self.cache.k,
                "v_cache" => &mut self.cache.v,
                "filter_inputs" => inputs,
                _ => middles,
            };
            values.resize(values.len().max(positions * state.len), 0.0);
        }
    }

    /// # Panics
    /// If the block declares no such state.
    pub fn carried(&mut self, name: &str) -> &mut [f32] {
        self.carried.get_mut(name).unwrap_or_else(|| panic!("no state `{name}`"))
    }
}

/// What a block reads of a batch of `n` rows.
pub(crate) struct HostPass<'a> {
    pub model: &'a ModelSpec,
    pub weights: &'a HostWeights,
    pub context: usize,
    pub rows: &'a [Row],
    /// Index of the layer.
    pub layer: usize,
    /// `[n, hidden]`, the residual stream before the block.
    pub x: &'a [f32],
    /// The same, after the norm before the block.
    pub normed: Vec<f32>,
    /// `[n, hidden]`, the residual stream before the first block of the layer.
    pub layer_input: &'a [f32],
}

impl<'a> HostPass<'a> {
    pub fn layer_spec(&self) -> &'a LayerSpec {
        &self.model.layers[self.layer]
    }

    /// A weight of the layer that the spec may be without.
    pub fn find(&self, role: Role) -> Option<&'a [f32]> {
        self.weights.find(role.of_layer(self.layer))
    }

    /// A weight that every such layer has.
    pub fn weight(&self, role: Role) -> &'a [f32] {
        self.weights.get(role.of_layer(self.layer))
    }

    /// The weights of all experts; none where the experts have no weight of this role.
    pub fn of_experts(&self, role: Role, num_experts: usize) -> Vec<&'a [f32]> {
        (0..num_experts).filter_map(|expert| self.weights.find(role.of_expert(self.layer, expert))).collect()
    }

    /// `y += mlp(x)` for every token, times the sigmoid of the shared expert's gate where there is one.
    pub fn run_for_all(&self, spec: &MlpSpec, [gate_up, down]: [Role; 2], x: &[f32], y: &mut [f32]) {
        let hidden_size = self.model.hidden_size;
        let only = HostExperts {
            spec,
            gate_up: vec![self.weight(gate_up)],
            gate_up_bias: Vec::new(),
            down: vec![self.weight(down)],
            down_bias: Vec::new(),
            hidden_size,
        };
        let num_tokens = x.len() / hidden_size;
        let factors = match self.find(Role::SharedGate) {
            Some(gate) => matmul(x, gate, hidden_size).iter().map(|logit| sigmoid(*logit)).collect(),
            None => vec![1.0; num_tokens],
        };
        expert_combine(&only.run(x, &vec![0; num_tokens], 1, None), &factors, 1, y);
    }
}

/// The weights of some experts.
pub(super) struct HostExperts<'a> {
    pub spec: &'a MlpSpec,
    /// By slot.
    pub gate_up: Vec<&'a [f32]>,
    pub gate_up_bias: Vec<&'a [f32]>,
    pub down: Vec<&'a [f32]>,
    pub down_bias: Vec<&'a [f32]>,
    pub hidden_size: usize,
}

impl HostExperts<'_> {
    /// `y [num_assignments, hidden]`
    pub fn run(&self, x: &[f32], slots: &[u32], top_k: usize, input_weights: Option<&[f32]>) -> Vec<f32> {
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

/// `norm(x)` with the layer's norm, or `x` where there is no weight.
pub(crate) fn norm_if(spec: &LayerSpec, x: &[f32], weight: Option<&[f32]>) -> Vec<f32> {
    weight.map_or_else(|| x.to_vec(), |weight| norm(&spec.norm, x, weight))
}
