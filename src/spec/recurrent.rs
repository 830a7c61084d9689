//! Linear recurrences with a state for each head.

use super::state::SlotState;
use super::weight::{Role, Weight};
use crate::quant::padded;

/// Every value head has a state `S [key_dim, value_dim]`. In each row it decays, takes up a key and a value as its [`Rule`] says, and the query reads it:
/// `S^T q`. Values, keys and queries come from one projection, through a short convolution and SiLU, or through SiLU alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RecurrentSpec {
    /// Consecutive value heads share one.
    pub key_heads: usize,
    pub value_heads: usize,
    /// Of keys and queries: a multiple of 4.
    pub key_dim: usize,
    /// A multiple of 4.
    pub value_dim: usize,
    pub rule: Rule,
    pub decay: Decay,
    pub conv: Option<ConvolutionSpec>,
    /// With the gate of the output. Of [`Decay::Pair`] there is none, and the gate multiplies what the heads give.
    pub norm: Option<GatedNormSpec>,
}

/// What a row adds to the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// `k v^T`, times the step where there are steps. Where there are, the output is `S^T q + skip v`.
    Add,
    /// `k (beta (v - S^T k))^T` of the decayed state: what was stored under this key moves towards the value. Keys and queries are divided by their lengths,
    /// queries by the root of `key_dim` too. Source: Yang et al. 2024, arXiv 2412.06464.
    Delta,
}

/// What is left of a state after a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decay {
    /// `exp(decay dt)` of each head, with a step `dt` of each head and row, kept to this range. The gate is part of the input projection.
    /// Sources: Mamba-2, Dao and Gu 2024, arXiv 2405.21060; Yang et al. 2024, arXiv 2412.06464.
    Head { step_range: [f32; 2] },
    /// `exp(decay dt)` with a step for each row of the state, made in two projections with `rank` values between them; so is the gate.
    /// Source: Kimi Team 2025, arXiv 2510.26692.
    Channel { rank: usize },
    /// `exp(decay dt)` with a decay for each value of the state, and a step for each column, made in two projections with `rank` values and a norm
    /// between them. Keys and queries come from the values, and go through norms with this epsilon. The one head has all columns, and the gate is part
    /// of the input projection. Source: Mamba, Gu and Dao 2023, arXiv 2312.00752.
    Pair { rank: usize, eps: f32 },
    /// `exp(-factor 2^(-8 (head + 1) / value_heads))`. The gate has a projection of its own.
    /// Source: lightning attention, MiniMax 2025, arXiv 2501.08313.
    Constant { factor: f32 },
}

/// A causal convolution of each channel by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvolutionSpec {
    /// Positions that it sees.
    pub len: usize,
    pub bias: bool,
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

    /// Values, keys and queries, as far as one projection makes them.
    pub fn channels(&self) -> usize {
        let keys = if matches!(self.decay, Decay::Pair { .. }) { 0 } else { self.key_width() };
        self.inner() + 2 * keys
    }

    /// Of the gate, where it is part of the input projection.
    pub fn gate_width(&self) -> usize {
        if matches!(self.decay, Decay::Head { .. } | Decay::Pair { .. }) { self.inner() } else { 0 }
    }

    /// The gate, then the channels.
    pub fn projected(&self) -> usize {
        self.gate_width() + self.channels()
    }

    /// Rows that steps and betas are made by: of [`Decay::Channel`] those that lead to the steps, those that lead to the gate, then the betas; of
    /// [`Decay::Pair`] those that lead to the steps.
    pub fn step_rows(&self) -> usize {
        let betas = if self.rule == Rule::Delta { self.value_heads } else { 0 };
        match self.decay {
            Decay::Head { .. } => self.value_heads + betas,
            Decay::Channel { rank } => 2 * rank + betas,
            Decay::Pair { rank, .. } => rank,
            Decay::Constant { .. } => 0,
        }
    }

    /// Where the betas begin among the rows of steps.
    pub fn first_beta(&self) -> usize {
        self.step_rows() - self.value_heads.min(self.step_rows())
    }

    /// Values from one row of steps to the next, as `scan` reads them. What leads to a gate is read in whole blocks from where it begins.
    pub fn step_stride(&self) -> usize {
        match self.decay {
            Decay::Channel { rank } => padded(rank + padded(rank)).max(padded(self.step_rows())),
            Decay::Pair { .. } => padded(self.inner()),
            _ => padded(self.step_rows()),
        }
    }

    /// In the order of use.
    pub(super) fn weights(&self, hidden_size: usize) -> Vec<Weight> {
        let mut weights = vec![Weight::matrix(Role::RecurrentInput, self.projected(), hidden_size)];
        if let Some(conv) = self.conv {
            weights.push(Weight::matrix(Role::Convolution, conv.len, self.channels()));
            weights.extend(conv.bias.then(|| Weight::vector(Role::ConvolutionBias, self.channels())));
        }
        weights.extend(self.decay_weights(hidden_size));
        if let Some(norm) = self.norm {
            let len = if norm.shared_weight { self.inner() / norm.groups } else { self.inner() };
            weights.push(Weight::vector(Role::RecurrentNorm, len));
        }
        weights.push(Weight::matrix(Role::AttentionOutput, hidden_size, self.inner()));
        weights
    }

    /// What makes decays, steps, betas and gate.
    fn decay_weights(&self, hidden_size: usize) -> Vec<Weight> {
        let (heads, inner, key_dim, step_rows) = (self.value_heads, self.inner(), self.key_dim, self.step_rows());
        match self.decay {
            Decay::Head { .. } => {
                let mut weights = vec![Weight::matrix(Role::RecurrentStep, step_rows, hidden_size)];
                weights.extend([Role::RecurrentStepBias, Role::RecurrentDecay].map(|role| Weight::vector(role, heads)));
                weights.extend((self.rule == Rule::Add).then(|| Weight::vector(Role::RecurrentSkip, heads)));
                weights
            }
            Decay::Channel { rank } => vec![
                Weight::matrix(Role::RecurrentStep, step_rows, hidden_size),
                Weight::matrix(Role::RecurrentStepUp, heads * key_dim, rank),
                Weight::vector(Role::RecurrentStepBias, heads * key_dim),
                Weight::vector(Role::RecurrentDecay, heads),
                Weight::matrix(Role::RecurrentGate, inner, rank),
            ],
            Decay::Pair { rank, .. } => vec![
                Weight::matrix(Role::RecurrentStep, rank, inner),
                Weight::matrix(Role::RecurrentSelection, 2 * key_dim, inner),
                Weight::vector(Role::RecurrentStepNorm, rank),
                Weight::matrix(Role::RecurrentStepUp, inner, rank),
                Weight::vector(Role::RecurrentStepBias, inner),
                // Skip and the norms of keys and queries follow the decays: as a buffer of their own there would be one too many.
                Weight::vector(Role::RecurrentDecay, inner * key_dim + inner + 2 * key_dim),
            ],
            Decay::Constant { .. } => vec![Weight::matrix(Role::RecurrentGate, inner, hidden_size)],
        }
    }

    /// What a text leaves, whatever its length.
    pub(super) fn carried(&self) -> Vec<SlotState> {
        let inputs = self.conv.map(|conv| SlotState::convolution(conv.len, self.channels()));
        let state = SlotState { name: "recurrent_state", len: self.inner() * self.key_dim };
        inputs.into_iter().chain([state]).collect()
    }
}
