//! Attention whose query and output projections are experts.

use super::AttentionSpec;
use super::state::PositionState;
use super::weight::{Role, Weight};
use crate::gating::RouterSpec;

/// Attention in which a router chooses the projections of query and output for each token. Each expert serves as many heads as there are
/// key/value heads, and a token uses `num_heads / num_kv_heads` of them. The heads of every chosen expert attend to the same keys.
/// Source: Shen et al. 2024, arXiv 2404.07413; `JetMoeAttention` of transformers.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionExpertsSpec {
    /// All heads that one token uses.
    pub heads: AttentionSpec,
    pub router: RouterSpec,
}

impl AttentionExpertsSpec {
    /// Width of the query that one expert makes, of the heads that it serves.
    pub fn expert_width(&self) -> usize {
        self.heads.num_kv_heads * self.heads.head_dim
    }

    /// Rows of the projection to keys and values, which all experts share.
    pub fn shared_rows(&self) -> usize {
        self.heads.qkv_rows() - self.heads.query_width()
    }

    /// In the order of use.
    pub(super) fn weights(&self, hidden_size: usize) -> Vec<Weight> {
        let (num_experts, num_used, width) = (self.router.num_experts, self.router.num_experts_per_tok, self.expert_width());
        let mut weights = vec![
            Weight::matrix(Role::ChoiceRouter, num_experts, hidden_size),
            Weight::matrix(Role::ChoiceQuery, width, hidden_size).of_experts(num_experts, num_used),
            Weight::matrix(Role::ChoiceOutput, hidden_size, width).of_experts(num_experts, num_used),
            Weight::matrix(Role::Qkv, self.shared_rows(), hidden_size),
        ];
        weights.extend(self.heads.output_bias.then(|| Weight::vector(Role::AttentionOutputBias, hidden_size)));
        weights
    }

    pub(super) fn state(&self, hidden_size: usize) -> Vec<PositionState> {
        self.heads.state(hidden_size)
    }
}
