//! Softmax attention over keys and values.

use super::state::PositionState;
use super::weight::{Role, Weight};
use super::{RelativeBias, RopeSpec};

/// Softmax attention with grouped key/value heads.
///
/// In this order: projection, bias, clip, the value's norm and scale, then q/k norm and rotary embedding (see [`QkNorm`]), then the query's
/// temperature.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionSpec {
    pub num_heads: usize,
    pub num_kv_heads: usize,
    /// Of queries and keys.
    pub head_dim: usize,
    /// Width of a value head.
    pub value_dim: usize,
    /// Multiplies the values.
    pub value_scale: f32,
    /// Each value head goes through an RMSNorm without weight, with this epsilon.
    pub value_norm: Option<f32>,
    /// There is no projection of the value: it is that of the key, before the key's norm and positions.
    pub values_are_keys: bool,
    /// Multiplies `q . k`.
    pub scale: f32,
    /// Query, key and value add a bias.
    pub qkv_bias: bool,
    /// The output projection adds a bias.
    pub output_bias: bool,
    /// Query, key and value are clamped to this magnitude.
    pub clip: Option<f32>,
    /// Query and key are clamped after their norm instead of before it.
    pub clip_after_norm: bool,
    pub qk_norm: Option<QkNorm>,
    /// `None`: no position encoding.
    pub rope: Option<RopeSpec>,
    pub mask: Mask,
    /// One learned logit per query head joins the softmax and has no value.
    pub sinks: bool,
    /// The output of the heads is multiplied by the sigmoid of one more projection of the input.
    pub output_gate: bool,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    pub temperature: Option<TemperatureTuning>,
    /// Scores add what the distance of the key says.
    pub relative_bias: Option<RelativeBias>,
    /// Query and key are made of what this makes of the input; the value is made of the input itself.
    pub filter: Option<FilterSpec>,
}

/// `norm(x + second(first(x)))`, where both are causal convolutions over two positions with a bias.
/// Source: "localized filtering" of Yuan 2.0, Wu et al. 2023, arXiv 2311.15786.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FilterSpec {
    /// Width between the two.
    pub middle: usize,
    pub norm_eps: f32,
}

/// RMSNorm of query and key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QkNorm {
    pub eps: f32,
    pub over: QkNormOver,
    /// After the rotary embedding instead of before it.
    pub after_rope: bool,
    /// There is a weight to multiply by.
    pub weight: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNormOver {
    /// Each head by itself; weights `[head_dim]`.
    Head,
    /// All query heads together, all key heads together; weights `[num_heads head_dim]`, `[num_kv_heads head_dim]`.
    AllHeads,
}

/// Queries are multiplied by `1 + scale * ln(1 + floor((position + 1) / floor))`. Source: `Llama4TextAttention` of transformers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TemperatureTuning {
    pub scale: f32,
    pub floor: f32,
}

/// Which keys a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    Causal,
    /// Key `j` is visible to query `i` iff `i - window < j <= i`.
    Window(usize),
    /// Key `j` is visible to query `i` iff `j <= i` and both lie in the same chunk of this length.
    Chunk(usize),
    /// Every key that the row counts, later ones among them.
    All,
}

impl AttentionSpec {
    /// Plain multi-head attention, causal and without positions: the base that architectures change.
    pub fn new(num_heads: usize, num_kv_heads: usize, head_dim: usize) -> Self {
        AttentionSpec {
            num_heads,
            num_kv_heads,
            head_dim,
            value_dim: head_dim,
            value_scale: 1.0,
            value_norm: None,
            values_are_keys: false,
            scale: (head_dim as f32).sqrt().recip(),
            qkv_bias: false,
            output_bias: false,
            clip: None,
            clip_after_norm: false,
            qk_norm: None,
            rope: None,
            mask: Mask::Causal,
            sinks: false,
            output_gate: false,
            softcap: None,
            temperature: None,
            relative_bias: None,
            filter: None,
        }
    }

    /// Rows of the concatenated query, key and value projection.
    pub fn qkv_rows(&self) -> usize {
        let value_dim = if self.values_are_keys { 0 } else { self.value_dim };
        self.query_width() + self.num_kv_heads * (self.head_dim + value_dim)
    }

    /// Rows of the projection whose input is that of the key: [`qkv_rows`](Self::qkv_rows) without the value where its input is another.
    pub fn projected_rows(&self) -> usize {
        let value = if self.filter.is_some() { self.value_rows() } else { 0 };
        self.qkv_rows() - value
    }

    /// Width of all value heads together.
    pub fn value_rows(&self) -> usize {
        self.num_kv_heads * self.value_dim
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Width of what all heads give together.
    pub fn output_width(&self) -> usize {
        self.num_heads * self.value_dim
    }

    /// In the order of use.
    pub(super) fn weights(&self, hidden_size: usize) -> Vec<Weight> {
        let mut weights = Vec::new();
        if let Some(filter) = &self.filter {
            weights.extend(filter.weights(hidden_size));
        }
        let qkv_rows = self.projected_rows();
        weights.push(Weight::matrix(Role::Qkv, qkv_rows, hidden_size).in_units_of(self.head_dim));
        weights.extend(self.filter.map(|_| Weight::matrix(Role::Value, self.value_rows(), hidden_size)));
        weights.extend(self.qkv_bias.then(|| Weight::vector(Role::QkvBias, qkv_rows)));
        if let Some(norm) = self.qk_norm.filter(|norm| norm.weight) {
            let [queries, keys] = match norm.over {
                QkNormOver::Head => [1, 1],
                QkNormOver::AllHeads => [self.num_heads, self.num_kv_heads],
            };
            weights.push(Weight::vector(Role::QueryNorm, queries * self.head_dim));
            weights.push(Weight::vector(Role::KeyNorm, keys * self.head_dim));
        }
        weights.extend(self.sinks.then(|| Weight::vector(Role::Sinks, self.num_heads)));
        weights.extend(self.output_gate.then(|| Weight::matrix(Role::AttentionGate, self.output_width(), hidden_size)));
        weights.push(Weight::matrix(Role::AttentionOutput, hidden_size, self.output_width()));
        weights.extend(self.output_bias.then(|| Weight::vector(Role::AttentionOutputBias, hidden_size)));
        weights
    }

    /// What one position leaves for later ones.
    pub(super) fn state(&self, hidden_size: usize) -> Vec<PositionState> {
        let mut state = vec![
            PositionState::cached("k_cache", self.num_kv_heads * self.head_dim),
            PositionState::cached("v_cache", self.value_rows()),
        ];
        if let Some(filter) = &self.filter {
            state.push(PositionState::exact("filter_inputs", hidden_size));
            state.push(PositionState::exact("filter_middles", filter.middle));
        }
        state
    }
}

impl FilterSpec {
    fn weights(&self, hidden_size: usize) -> [Weight; 5] {
        [
            Weight::matrix(Role::FilterFirst, self.middle, 2 * hidden_size),
            Weight::vector(Role::FilterFirstBias, self.middle),
            Weight::matrix(Role::FilterSecond, hidden_size, 2 * self.middle),
            Weight::vector(Role::FilterSecondBias, hidden_size),
            Weight::vector(Role::FilterNorm, hidden_size),
        ]
    }
}
