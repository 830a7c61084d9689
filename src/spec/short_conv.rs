//! Gated short convolutions.

use super::state::SlotState;
use super::weight::{Role, Weight};

/// `output(c * convolution(b * u))`, where a projection makes b, c and u, each as wide as the model. Source: `Lfm2ShortConv` of transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShortConvSpec {
    /// Positions that the convolution sees, its own included.
    pub len: usize,
    /// Both projections and the convolution add a bias.
    pub bias: bool,
}

impl ShortConvSpec {
    /// In the order of use.
    pub(super) fn weights(&self, hidden_size: usize) -> Vec<Weight> {
        let bias = |role: Role, len: usize| self.bias.then(|| Weight::vector(role, len));
        let mut weights = vec![Weight::matrix(Role::ConvolutionInput, 3 * hidden_size, hidden_size)];
        weights.extend(bias(Role::ConvolutionInputBias, 3 * hidden_size));
        weights.push(Weight::matrix(Role::Convolution, self.len, hidden_size));
        weights.extend(bias(Role::ConvolutionBias, hidden_size));
        weights.push(Weight::matrix(Role::AttentionOutput, hidden_size, hidden_size));
        weights.extend(bias(Role::AttentionOutputBias, hidden_size));
        weights
    }

    /// What a text leaves, whatever its length.
    pub(super) fn carried(&self, hidden_size: usize) -> Vec<SlotState> {
        vec![SlotState::convolution(self.len, hidden_size)]
    }
}
