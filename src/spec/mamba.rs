//! Selective state spaces.

use super::weight::{Role, Weight};

/// A selective state space: Gu and Dao 2023, arXiv 2312.00752. Here for its size alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MambaSpec {
    /// Channels.
    pub inner_size: usize,
    /// Values of state per channel.
    pub state_size: usize,
    /// Positions that the convolution sees.
    pub conv_len: usize,
    /// Width of what the step of every channel is made from.
    pub step_rank: usize,
    pub conv_bias: bool,
    pub proj_bias: bool,
    /// Step, input and output factors go through a norm each.
    pub inner_norms: bool,
}

impl MambaSpec {
    pub(super) fn weights(&self, hidden_size: usize) -> Vec<Weight> {
        let MambaSpec { inner_size: inner, state_size: state, conv_len, step_rank, .. } = *self;
        let mut weights = vec![
            Weight::matrix(Role::MambaInput, 2 * inner, hidden_size),
            Weight::matrix(Role::MambaConvolution, inner, conv_len),
            Weight::matrix(Role::MambaSelection, step_rank + 2 * state, inner),
            Weight::matrix(Role::MambaStep, inner, step_rank),
            Weight::vector(Role::MambaStepBias, inner),
            Weight::matrix(Role::MambaDecay, inner, state),
            Weight::vector(Role::MambaSkip, inner),
            Weight::matrix(Role::AttentionOutput, hidden_size, inner),
        ];
        weights.extend(self.conv_bias.then(|| Weight::vector(Role::MambaConvolutionBias, inner)));
        weights.extend(self.proj_bias.then(|| Weight::vector(Role::MambaProjectionBias, 2 * inner + hidden_size)));
        weights.extend(self.inner_norms.then(|| Weight::vector(Role::MambaInnerNorms, step_rank + 2 * state)));
        weights
    }
}
