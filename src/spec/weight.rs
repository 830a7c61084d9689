//! Weights as data: what there is to know about each role that a weight can have.
//!
//! A block says which roles it needs and in which shape ([`Weight`]). Everything else follows: the tensors that a checkpoint must have, their
//! formats, the parameters of the model, the bytes that a token reads, the buffers on a device.

use super::names::{ExpertStorage, QkvStorage};
use super::{ModelSpec, NormSpec};
use crate::quant::WeightClass;

/// What a weight is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Embedding,
    FinalNorm,
    /// The embedding where the spec ties them.
    Head,
    HeadBias,
    /// Before the mixer.
    AttentionNorm,
    /// After the mixer.
    AttentionPostNorm,
    /// Before the feed-forward part.
    FfnNorm,
    /// After the feed-forward part.
    FfnPostNorm,
    /// Query rows, then key rows, then value rows; without the query where experts make it, without the value where its input is another.
    Qkv,
    /// Where it is not part of [`Qkv`](Self::Qkv).
    Value,
    /// Of each input the factor of the position before, then its own.
    FilterFirst,
    FilterFirstBias,
    /// As [`FilterFirst`](Self::FilterFirst).
    FilterSecond,
    FilterSecondBias,
    FilterNorm,
    /// The router that chooses query and output projections.
    ChoiceRouter,
    ChoiceQuery,
    ChoiceOutput,
    QkvBias,
    /// Of one head, or of all query heads where the norm is over all heads.
    QueryNorm,
    /// Of one head, or of all key heads where the norm is over all heads.
    KeyNorm,
    /// One logit per head.
    Sinks,
    /// Multiplies what the heads give, through a sigmoid.
    AttentionGate,
    LatentQueryDown,
    LatentQueryNorm,
    /// Has as many columns as the model is wide where the query has one projection.
    LatentQueryUp,
    LatentDown,
    LatentNorm,
    /// From the query without position to what is multiplied with the latent. Row `h latent_dim + i` is column `i` of the rows that make the key of head `h`.
    LatentKeyUp,
    LatentValueUp,
    AttentionOutput,
    AttentionOutputBias,
    /// The first of two layers of the router.
    RouterHidden,
    /// One row per expert. Of a router with attention three times as many: queries, keys, values.
    Router,
    /// Before the router.
    RouterNorm,
    /// The factor of each expert's weight.
    ExpertScale,
    /// Part of the logits.
    RouterBias,
    /// For choosing only.
    SelectionBias,
    /// Row `2i` is row `i` of the gate, row `2i + 1` is row `i` of up. Those of up alone where the activation has no gate.
    ExpertGateUp,
    /// In the order of the rows of [`ExpertGateUp`](Self::ExpertGateUp).
    ExpertGateUpBias,
    ExpertDown,
    ExpertDownBias,
    /// As [`ExpertGateUp`](Self::ExpertGateUp), of the expert that every token uses.
    SharedGateUp,
    SharedDown,
    SharedGate,
    /// Before the dense MLP that runs beside experts.
    ParallelNorm,
    /// After the dense MLP that runs beside experts.
    ParallelPostNorm,
    /// After experts that run beside a dense MLP.
    ExpertPostNorm,
    /// Of the feed-forward part.
    FfnBias,
    /// One number that multiplies the residual stream at the end of the layer.
    OutputScale,
    /// As [`ExpertGateUp`](Self::ExpertGateUp), of a layer without experts or of the MLP that runs beside them.
    DenseGateUp,
    DenseDown,
    /// What is multiplied before a short convolution, after it, and what it is of: as many rows each.
    ConvolutionInput,
    ConvolutionInputBias,
    /// One row for each position that it sees, its own last.
    Convolution,
    ConvolutionBias,
    /// To the gate of a recurrence, then to its values, keys and queries.
    RecurrentInput,
    /// To steps and betas, or to what leads to steps and gate: see [`step_rows`](super::RecurrentSpec::step_rows). Errors of it add up along a text.
    RecurrentStep,
    /// The second of two projections of steps.
    RecurrentStepUp,
    /// Between the two.
    RecurrentStepNorm,
    RecurrentStepBias,
    /// To keys and queries that come from the values.
    RecurrentSelection,
    /// Negative: what the logarithm of the decay is per unit of step. Of [`Decay::Pair`](super::Decay) skip and the norms of keys and queries follow.
    RecurrentDecay,
    RecurrentSkip,
    /// To the gate, where it is not part of [`RecurrentInput`](Self::RecurrentInput).
    RecurrentGate,
    RecurrentNorm,
}

/// Of what there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Model,
    Layer,
    Expert,
}

/// How a weight lies on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Rows in f32, one or two.
    Vector,
    /// Rows that may be dealt out to several buffers.
    Matrix,
    /// One matrix per expert, or one alone, addressed by cache slot.
    Slab,
    /// Part of the slabs of this role.
    SlabBias(Role),
}

/// The sum of parameters that a weight belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    Embedding,
    Head,
    Attention,
    Norms,
    Dense,
    Shared,
    Router,
    Experts,
}

/// Where the weights of a model have their names.
pub type Template = fn(&ModelSpec, usize) -> &'static str;
/// Where the projections of an MLP have theirs.
pub type StorageOf = fn(&ModelSpec, usize) -> ExpertStorage;

/// How a weight lies in an ordinary checkpoint. Templates are those of [`TensorNames`](super::TensorNames), of a spec and a layer.
#[derive(Debug, Clone, Copy)]
pub enum OnDisk {
    /// A matrix `[rows, cols]`, or a vector `[cols]`.
    Whole(Template),
    /// A vector that may have one more leading axis of length one.
    Leading(Template),
    /// The vector that goes with the tensor of this name.
    BiasOf(Template),
    /// A vector, and its bias where the weight has two rows.
    Norm(Template),
    /// `[rows, cols / 2, 2, 1]`: a causal convolution over two positions.
    Convolution(Template),
    /// As [`RecurrentStorage`](super::RecurrentStorage) says.
    Recurrent,
    /// One matrix of `[experts, rows, cols]`.
    Stacked(Template),
    /// As [`QkvStorage`] says.
    Qkv,
    QkvBias,
    /// A matrix of its own, or rows between those of queries.
    AttentionGate,
    /// The rows that make keys out of a latent, each head's transposed, or those that make values.
    LatentUp {
        keys: bool,
    },
    /// One matrix, or the three of a router with attention.
    Router,
    GateUp(StorageOf),
    GateUpBias(StorageOf),
    Down(StorageOf),
    DownBias(StorageOf),
}

/// What there is to know about a role, whatever the model.
#[derive(Debug, Clone, Copy)]
pub struct RoleFacts {
    pub role: Role,
    /// In a checkpoint of `moebius quantize`.
    pub name: &'static str,
    pub scope: Scope,
    pub kind: Kind,
    /// What decides its format on a device; `None` for what is f32 always: norms, biases and routers.
    pub class: Option<WeightClass>,
    pub share: Share,
    pub on_disk: OnDisk,
}

const fn vector(role: Role, name: &'static str, share: Share, on_disk: OnDisk) -> RoleFacts {
    RoleFacts { role, name, scope: Scope::Layer, kind: Kind::Vector, class: None, share, on_disk }
}

const fn matrix(role: Role, name: &'static str, share: Share, on_disk: OnDisk) -> RoleFacts {
    RoleFacts { kind: Kind::Matrix, ..vector(role, name, share, on_disk) }
}

const fn slab(role: Role, name: &'static str, share: Share, on_disk: OnDisk) -> RoleFacts {
    RoleFacts { kind: Kind::Slab, ..vector(role, name, share, on_disk) }
}

impl RoleFacts {
    const fn of_model(self) -> Self {
        RoleFacts { scope: Scope::Model, ..self }
    }

    const fn of_experts(self) -> Self {
        RoleFacts { scope: Scope::Expert, ..self }
    }

    const fn class(self, class: WeightClass) -> Self {
        RoleFacts { class: Some(class), ..self }
    }

    const fn with_slabs_of(self, role: Role) -> Self {
        RoleFacts { kind: Kind::SlabBias(role), ..self }
    }
}

use OnDisk::{BiasOf, Convolution, Down, DownBias, GateUp, GateUpBias, Leading, Norm, Recurrent, Stacked, Whole};
use Share as S;
use WeightClass as C;

/// Every role, in the order of [`Role`].
pub static ROLES: &[RoleFacts] = &[
    matrix(Role::Embedding, "embedding", S::Embedding, Whole(|spec, _| spec.names.embedding)).class(C::Embedding).of_model(),
    vector(Role::FinalNorm, "final_norm", S::Norms, Norm(|spec, _| spec.names.final_norm)).of_model(),
    matrix(Role::Head, "head", S::Head, Whole(head_name)).class(C::Head).of_model(),
    vector(Role::HeadBias, "head_bias", S::Head, BiasOf(|spec, _| spec.names.head)).of_model(),
    vector(Role::AttentionNorm, "attention_norm", S::Norms, Norm(|spec, _| spec.names.attention_norm)),
    vector(Role::AttentionPostNorm, "attention_post_norm", S::Norms, Norm(|spec, _| spec.names.attention_post_norm)),
    vector(Role::FfnNorm, "ffn_norm", S::Norms, Norm(|spec, _| spec.names.ffn_norm)),
    vector(Role::FfnPostNorm, "ffn_post_norm", S::Norms, Norm(|spec, _| spec.names.ffn_post_norm)),
    matrix(Role::Qkv, "qkv", S::Attention, OnDisk::Qkv).class(C::Attention),
    matrix(Role::Value, "value", S::Attention, Whole(value_name)).class(C::Attention),
    matrix(Role::FilterFirst, "filter_first", S::Attention, Convolution(|spec, _| spec.names.filter.first)).class(C::Attention),
    vector(Role::FilterFirstBias, "filter_first_bias", S::Attention, BiasOf(|spec, _| spec.names.filter.first)),
    matrix(Role::FilterSecond, "filter_second", S::Attention, Convolution(|spec, _| spec.names.filter.second))
        .class(C::Attention),
    vector(Role::FilterSecondBias, "filter_second_bias", S::Attention, BiasOf(|spec, _| spec.names.filter.second)),
    vector(Role::FilterNorm, "filter_norm", S::Attention, Whole(|spec, _| spec.names.filter.norm)),
    matrix(Role::ChoiceRouter, "choice_router", S::Attention, Whole(|spec, _| spec.names.choice.router)),
    slab(Role::ChoiceQuery, "choice_query", S::Attention, Stacked(|spec, _| spec.names.choice.query))
        .of_experts()
        .class(C::Attention),
    slab(Role::ChoiceOutput, "choice_output", S::Attention, Stacked(|spec, _| spec.names.choice.output))
        .of_experts()
        .class(C::Attention),
    vector(Role::QkvBias, "qkv_bias", S::Attention, OnDisk::QkvBias),
    vector(Role::QueryNorm, "query_norm", S::Attention, Whole(|spec, _| spec.names.query_norm)),
    vector(Role::KeyNorm, "key_norm", S::Attention, Whole(|spec, _| spec.names.key_norm)),
    vector(Role::Sinks, "sinks", S::Attention, Whole(|spec, _| spec.names.sinks)),
    matrix(Role::AttentionGate, "attention_gate", S::Attention, OnDisk::AttentionGate).class(C::Attention),
    matrix(Role::LatentQueryDown, "latent_query_down", S::Attention, Whole(|spec, _| spec.names.latent.query_down))
        .class(C::Attention),
    vector(Role::LatentQueryNorm, "latent_query_norm", S::Attention, Whole(|spec, _| spec.names.latent.query_norm)),
    matrix(Role::LatentQueryUp, "latent_query_up", S::Attention, Whole(latent_query_name)).class(C::Attention),
    matrix(Role::LatentDown, "latent_down", S::Attention, Whole(|spec, _| spec.names.latent.down)).class(C::Attention),
    vector(Role::LatentNorm, "latent_norm", S::Attention, Whole(|spec, _| spec.names.latent.norm)),
    matrix(Role::LatentKeyUp, "latent_key_up", S::Attention, OnDisk::LatentUp { keys: true }).class(C::Attention),
    matrix(Role::LatentValueUp, "latent_value_up", S::Attention, OnDisk::LatentUp { keys: false }).class(C::Attention),
    matrix(Role::AttentionOutput, "attention_output", S::Attention, Whole(output_name)).class(C::Attention),
    vector(Role::AttentionOutputBias, "attention_output_bias", S::Attention, BiasOf(output_name)),
    matrix(Role::RouterHidden, "router_hidden", S::Router, Whole(|spec, _| spec.names.router_hidden)),
    matrix(Role::Router, "router", S::Router, OnDisk::Router),
    vector(Role::RouterNorm, "router_norm", S::Router, Whole(|spec, _| spec.names.router_norm)),
    vector(Role::ExpertScale, "expert_scale", S::Router, Whole(|spec, _| spec.names.expert_scale)),
    vector(Role::RouterBias, "router_bias", S::Router, BiasOf(|spec, _| spec.names.router)),
    vector(Role::SelectionBias, "selection_bias", S::Router, Leading(|spec, _| spec.names.selection_bias)),
    slab(Role::ExpertGateUp, "expert_gate_up", S::Experts, GateUp(|spec, _| spec.names.experts)).of_experts().class(C::Experts),
    vector(Role::ExpertGateUpBias, "expert_gate_up_bias", S::Experts, GateUpBias(|spec, _| spec.names.experts))
        .of_experts()
        .with_slabs_of(Role::ExpertGateUp),
    slab(Role::ExpertDown, "expert_down", S::Experts, Down(|spec, _| spec.names.experts)).of_experts().class(C::Experts),
    vector(Role::ExpertDownBias, "expert_down_bias", S::Experts, DownBias(|spec, _| spec.names.experts))
        .of_experts()
        .with_slabs_of(Role::ExpertDown),
    slab(Role::SharedGateUp, "shared_gate_up", S::Shared, GateUp(|spec, _| spec.names.shared)).class(C::Shared),
    slab(Role::SharedDown, "shared_down", S::Shared, Down(|spec, _| spec.names.shared)).class(C::Shared),
    matrix(Role::SharedGate, "shared_gate", S::Shared, Whole(|spec, _| spec.names.shared_gate)),
    vector(Role::ParallelNorm, "parallel_norm", S::Norms, Norm(|spec, _| spec.names.parallel_norm)),
    vector(Role::ParallelPostNorm, "parallel_post_norm", S::Norms, Norm(|spec, _| spec.names.parallel_post_norm)),
    vector(Role::ExpertPostNorm, "expert_post_norm", S::Norms, Norm(|spec, _| spec.names.expert_post_norm)),
    vector(Role::FfnBias, "ffn_bias", S::Dense, Whole(|spec, _| spec.names.ffn_bias)),
    vector(Role::OutputScale, "output_scale", S::Norms, Whole(|spec, _| spec.names.output_scale)),
    slab(Role::DenseGateUp, "dense_gate_up", S::Dense, GateUp(dense_storage)).class(C::Shared),
    slab(Role::DenseDown, "dense_down", S::Dense, Down(dense_storage)).class(C::Shared),
    matrix(Role::ConvolutionInput, "convolution_input", S::Attention, Whole(|spec, _| spec.names.convolution.input))
        .class(C::Attention),
    vector(Role::ConvolutionInputBias, "convolution_input_bias", S::Attention, BiasOf(|spec, _| spec.names.convolution.input)),
    vector(Role::Convolution, "convolution", S::Attention, Recurrent),
    vector(Role::ConvolutionBias, "convolution_bias", S::Attention, BiasOf(|spec, _| spec.names.convolution.weight)),
    matrix(Role::RecurrentInput, "recurrent_input", S::Attention, Recurrent).class(C::Attention),
    matrix(Role::RecurrentStep, "recurrent_step", S::Attention, Recurrent),
    matrix(Role::RecurrentStepUp, "recurrent_step_up", S::Attention, Whole(|spec, _| spec.names.recurrent.step_up)),
    vector(Role::RecurrentStepNorm, "recurrent_step_norm", S::Attention, Whole(|spec, _| spec.names.recurrent.step_norm)),
    vector(Role::RecurrentStepBias, "recurrent_step_bias", S::Attention, Whole(|spec, _| spec.names.recurrent.step_bias)),
    matrix(Role::RecurrentSelection, "recurrent_selection", S::Attention, Recurrent),
    vector(Role::RecurrentDecay, "recurrent_decay", S::Attention, Recurrent),
    vector(Role::RecurrentSkip, "recurrent_skip", S::Attention, Whole(|spec, _| spec.names.recurrent.skip)),
    matrix(Role::RecurrentGate, "recurrent_gate", S::Attention, Whole(|spec, _| spec.names.recurrent.gate)).class(C::Attention),
    vector(Role::RecurrentNorm, "recurrent_norm", S::Attention, Whole(|spec, _| spec.names.recurrent.norm)),
];

fn head_name(spec: &ModelSpec, _: usize) -> &'static str {
    if spec.tied_embeddings { spec.names.embedding } else { spec.names.head }
}

fn value_name(spec: &ModelSpec, _: usize) -> &'static str {
    match spec.names.qkv {
        QkvStorage::Separate { value, .. } | QkvStorage::Gated { value, .. } | QkvStorage::Paired { value, .. } => value,
        QkvStorage::Fused(fused) => fused,
    }
}

fn output_name(spec: &ModelSpec, layer: usize) -> &'static str {
    let layer = &spec.layers[layer];
    let has_convolution = layer.short_conv().is_some() || layer.recurrent().is_some();
    if has_convolution { spec.names.convolution.output } else { spec.names.attention_output }
}

fn latent_query_name(spec: &ModelSpec, layer: usize) -> &'static str {
    let in_two = spec.layers[layer].latent().is_some_and(|latent| latent.query_rank.is_some());
    if in_two { spec.names.latent.query_up } else { spec.names.latent.query }
}

fn dense_storage(spec: &ModelSpec, layer: usize) -> ExpertStorage {
    if spec.layers[layer].parallel().is_some() { spec.names.parallel } else { spec.names.dense }
}

impl Role {
    pub fn facts(self) -> &'static RoleFacts {
        &ROLES[self as usize]
    }

    /// The weight of the model.
    pub const fn of_model(self) -> WeightKey {
        WeightKey { role: self, layer: 0, expert: 0 }
    }

    /// The weight of a layer.
    pub const fn of_layer(self, layer: usize) -> WeightKey {
        WeightKey { role: self, layer, expert: 0 }
    }

    /// The weight of one expert of a layer.
    pub const fn of_expert(self, layer: usize, expert: usize) -> WeightKey {
        WeightKey { role: self, layer, expert }
    }
}

/// A weight of a model: a matrix `[rows, cols]` that maps a row of `cols` values to `rows` values, or a vector as its only row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WeightKey {
    pub role: Role,
    /// 0 for what the model has once.
    pub layer: usize,
    /// 0 for what a layer has once.
    pub expert: usize,
}

/// What a block needs in one role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight {
    pub role: Role,
    pub rows: usize,
    pub cols: usize,
    /// Where each expert has one: how many experts there are, and how many of them one token uses.
    pub experts: Option<Experts>,
    /// Rows that must not be dealt out to different buffers.
    pub unit_rows: usize,
}

/// See [`Weight::experts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Experts {
    pub count: usize,
    pub used: usize,
}

/// Rows of a matrix may be cut anywhere between quads.
const UNIT_ROWS: usize = 4;

impl Weight {
    pub(super) fn matrix(role: Role, rows: usize, cols: usize) -> Self {
        Weight { role, rows, cols, experts: None, unit_rows: UNIT_ROWS }
    }

    pub(super) fn vector(role: Role, len: usize) -> Self {
        Weight::matrix(role, 1, len)
    }

    /// The weight of a norm of the residual stream; its bias, where it has one, is row 1.
    pub(super) fn norm(role: Role, norm: NormSpec, len: usize) -> Self {
        Weight::matrix(role, 1 + usize::from(norm.bias), len)
    }

    pub(super) fn of_experts(self, count: usize, used: usize) -> Self {
        Weight { experts: Some(Experts { count, used: used.min(count) }), ..self }
    }

    pub(super) fn in_units_of(self, unit_rows: usize) -> Self {
        Weight { unit_rows, ..self }
    }

    /// How many there are: one per expert.
    pub fn copies(&self) -> usize {
        self.experts.map_or(1, |experts| experts.count)
    }

    /// How many of them one token uses.
    pub fn used(&self) -> usize {
        self.experts.map_or(1, |experts| experts.used)
    }

    /// Values of all copies.
    pub fn count(&self) -> u64 {
        self.copies() as u64 * self.rows as u64 * self.cols as u64
    }
}

impl WeightKey {
    /// Every weight of a model once, in the order of use, expert by expert; no [`Role::Head`] where the spec ties it to the embedding.
    pub fn all(spec: &ModelSpec) -> impl Iterator<Item = WeightKey> {
        let layers = (0..spec.layers.len()).flat_map(|layer| of_layer(layer, &spec.layer_weights(layer)));
        let [first, last] = spec.model_weights().map(|weights| weights.into_iter().map(|weight| weight.role.of_model()));
        first.chain(layers).chain(last)
    }

    /// What decides its format on a device; `None` for what is f32 always: norms, biases and routers.
    pub fn class(self) -> Option<WeightClass> {
        self.role.facts().class
    }

    /// `(rows, cols)`.
    ///
    /// # Panics
    /// If the spec has no such layer, or the layer not what the key is about.
    pub fn shape(self, spec: &ModelSpec) -> (usize, usize) {
        let weight = self.weight(spec);
        (weight.rows, weight.cols)
    }

    /// What the model says about the weight.
    ///
    /// # Panics
    /// As [`shape`](Self::shape).
    pub fn weight(self, spec: &ModelSpec) -> Weight {
        let find = |weights: Vec<Weight>| weights.into_iter().find(|weight| weight.role == self.role);
        let found = match self.role {
            // Has the shape of the embedding, whether it is a weight of its own or not.
            Role::Head => Some(spec.table(Role::Head)),
            role if role.facts().scope != Scope::Model => find(spec.layer_weights(self.layer)),
            _ => spec.model_weights().into_iter().find_map(find),
        };
        found.unwrap_or_else(|| panic!("layer {} has no {:?}", self.layer, self.role))
    }

    /// Its name in a checkpoint of `moebius quantize`, and that of its buffer on a device: `embedding`, `layers.3.qkv`, `layers.3.expert_down.17`.
    pub fn packed_name(self) -> String {
        let RoleFacts { name, scope, .. } = *self.role.facts();
        match scope {
            Scope::Model => name.to_owned(),
            Scope::Layer => format!("layers.{}.{name}", self.layer),
            Scope::Expert => format!("layers.{}.{name}.{}", self.layer, self.expert),
        }
    }
}

/// The weights of a layer: of neighbours that every expert has, expert by expert.
fn of_layer(layer: usize, weights: &[Weight]) -> Vec<WeightKey> {
    let runs = weights.chunk_by(|a, b| a.experts.is_some() && a.experts == b.experts);
    let keys = runs.flat_map(|run| {
        let experts = 0..run[0].copies();
        experts.flat_map(move |expert| run.iter().map(move |weight| weight.role.of_expert(layer, expert)))
    });
    keys.collect()
}
