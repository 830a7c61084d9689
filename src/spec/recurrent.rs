//! Linear recurrences with a state for each head.

use super::state::SlotState;
use super::weight::{Role, Weight};

/// A state space of Mamba-2. Source: Dao and Gu 2024, arXiv 2405.21060.
///
/// One projection makes a gate, and the channels of values, keys and queries (x, B and C there); another one the step of each value head. The channels
/// go through a short convolution and SiLU. Each value head has a state `[key_dim, value_dim]`: `S = exp(decay dt) S + k (dt v)^T`, and gives
/// `S^T q + skip v`. All heads together go through a norm with the gate, and through the output projection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RecurrentSpec {
    /// Consecutive value heads share one.
    pub key_heads: usize,
    pub value_heads: usize,
    /// Of keys and queries: a multiple of 4.
    pub key_dim: usize,
    /// A multiple of 4.
    pub value_dim: usize,
    /// What a step is kept to.
    pub step_range: [f32; 2],
    /// Positions that the convolution sees.
    pub conv_len: usize,
    pub conv_bias: bool,
    pub norm: GatedNormSpec,
}

/// An RMSNorm of groups of columns, with a gate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GatedNormSpec {
    pub eps: f32,
    /// So many, of equal length.
    pub groups: usize,
    pub activation: GateActivation,
    /// The gate multiplies before the norm instead of after it.
    pub gate_first: bool,
    /// All groups have one weight.
    pub shared_weight: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateActivation {
    Silu,
    Sigmoid,
}

impl RecurrentSpec {
    /// Width of all value heads together.
    pub fn inner(&self) -> usize {
        self.value_heads * self.value_dim
    }

    /// Width of all keys together.
    pub fn key_width(&self) -> usize {
        self.key_heads * self.key_dim
    }

    /// Values, keys and queries.
    pub fn channels(&self) -> usize {
        self.inner() + 2 * self.key_width()
    }

    /// The gate, then the channels.
    pub fn projected(&self) -> usize {
        self.inner() + self.channels()
    }

    /// In the order of use.
    pub(super) fn weights(&self, hidden_size: usize) -> Vec<Weight> {
        let mut weights = vec![
            Weight::matrix(Role::RecurrentInput, self.projected(), hidden_size),
            Weight::matrix(Role::RecurrentStep, self.value_heads, hidden_size),
            Weight::matrix(Role::Convolution, self.conv_len, self.channels()),
        ];
        weights.extend(self.conv_bias.then(|| Weight::vector(Role::ConvolutionBias, self.channels())));
        let of_heads = [Role::RecurrentStepBias, Role::RecurrentDecay, Role::RecurrentSkip];
        weights.extend(of_heads.map(|role| Weight::vector(role, self.value_heads)));
        let norm_len = if self.norm.shared_weight { self.inner() / self.norm.groups } else { self.inner() };
        weights.push(Weight::vector(Role::RecurrentNorm, norm_len));
        weights.push(Weight::matrix(Role::AttentionOutput, hidden_size, self.inner()));
        weights
    }

    /// What a text leaves, whatever its length.
    pub(super) fn carried(&self) -> Vec<SlotState> {
        let state = SlotState { name: "recurrent_state", len: self.inner() * self.key_dim };
        vec![SlotState::convolution(self.conv_len, self.channels()), state]
    }
}
