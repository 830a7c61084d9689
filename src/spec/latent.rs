//! Attention over latents.

use super::state::PositionState;
use super::weight::{Role, Weight};
use super::{AttentionSpec, RopeSpec};

/// Multi-head latent attention: keys and values of all heads are made from one short vector per token, which is all that is cached.
///
/// `q = up(norm(down(x)))`, per head `[nope | rope]`; `[c | k_rope] = latent_down(x)`, `c = norm(c)`, one `k_rope` for all heads. Absorbed form:
/// `score = scale * (key_up^T q_nope . c + rotated(q_rope) . rotated(k_rope))`, `y = value_up * sum(weight * c)`.
/// Source: DeepSeek-V2, arXiv 2405.04434; `DeepseekV3Attention` of transformers.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentSpec {
    pub num_heads: usize,
    /// Width between the two projections of the query; `None`: one projection.
    pub query_rank: Option<usize>,
    /// Width of the cached vector `c`.
    pub latent_dim: usize,
    /// Dimensions of a query and key head without a position.
    pub nope_dim: usize,
    /// Dimensions of a query head, and of the shared key, with one.
    pub rope_dim: usize,
    pub value_dim: usize,
    /// Multiplies the scores.
    pub scale: f32,
    /// Of the norms of the query's middle and of `c`.
    pub norm_eps: f32,
    /// Multiplies `c` after its norm.
    pub latent_scale: f32,
    /// `None`: the parts that would turn stay as they are.
    pub rope: Option<RopeSpec>,
}

impl LatentSpec {
    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.num_heads * self.key_dim()
    }

    /// Width of one query head, and of the key that it meets.
    pub fn key_dim(&self) -> usize {
        self.nope_dim + self.rope_dim
    }

    /// Values that are cached per token: `[c | rotated k_rope]`.
    pub fn cache_dim(&self) -> usize {
        self.latent_dim + self.rope_dim
    }

    /// Width of what all heads give together.
    pub fn output_width(&self) -> usize {
        self.num_heads * self.value_dim
    }

    /// The attention over the cache: one key head of [`cache_dim`](Self::cache_dim), whose first `latent_dim` values are the value too.
    pub fn over_cache(&self) -> AttentionSpec {
        AttentionSpec { scale: self.scale, ..AttentionSpec::new(self.num_heads, 1, self.cache_dim()) }
    }

    /// In the order of use.
    pub(super) fn weights(&self, hidden_size: usize) -> Vec<Weight> {
        let mut weights = Vec::new();
        if let Some(rank) = self.query_rank {
            weights.push(Weight::matrix(Role::LatentQueryDown, rank, hidden_size));
            weights.push(Weight::vector(Role::LatentQueryNorm, rank));
        }
        weights.extend([
            Weight::matrix(Role::LatentQueryUp, self.query_width(), self.query_rank.unwrap_or(hidden_size)),
            Weight::matrix(Role::LatentDown, self.cache_dim(), hidden_size),
            Weight::vector(Role::LatentNorm, self.latent_dim),
            Weight::matrix(Role::LatentKeyUp, self.num_heads * self.latent_dim, self.nope_dim).in_units_of(self.latent_dim),
            Weight::matrix(Role::LatentValueUp, self.output_width(), self.latent_dim).in_units_of(self.value_dim),
            Weight::matrix(Role::AttentionOutput, hidden_size, self.output_width()),
        ]);
        weights
    }

    /// What one position leaves for later ones.
    pub(super) fn state(&self) -> Vec<PositionState> {
        vec![PositionState::cached("latent_cache", self.cache_dim())]
    }
}
