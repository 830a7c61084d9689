//! What a model is, as pure data.
//!
//! A [`ModelSpec`] is read once from `config.json` by the architecture's own file under [`arch`] and drives everything else: what
//! the checkpoint must hold, which kernels run, how much memory it takes. Nothing outside `arch/` may match on a family's name.
//! The enums with one variant are the places where other families add theirs.

pub mod arch;
mod json;
mod parameters;

pub use arch::{ARCHS, Arch};
pub use json::ConfigJson;
pub use parameters::Parameters;

use crate::gating::RouterSpec;

/// A decoder-only language model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// Name of the entry in `ARCHS`.
    pub family: &'static str,
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Longest sequence the model was made for, in tokens.
    pub max_positions: usize,
    /// Added to the mean square under the root of every RMSNorm.
    pub norm_eps: f32,
    /// The head is the embedding table.
    pub tied_embeddings: bool,
    pub layers: Vec<LayerSpec>,
    pub names: TensorNames,
}

/// A pre-norm block: `x += mixer(norm(x)); x += ffn(norm(x))`.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    pub mixer: Mixer,
    pub ffn: Ffn,
}

/// What moves information between tokens.
#[derive(Debug, Clone, PartialEq)]
pub enum Mixer {
    Attention(AttentionSpec),
}

/// Softmax attention with grouped key/value heads and rotary positions.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionSpec {
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    /// Multiplies `q . k`.
    pub scale: f32,
    pub rope: RopeSpec,
    pub mask: Mask,
}

/// Rotary position embedding on pairs `(i, i + head_dim / 2)`: Su et al. 2021, arXiv 2104.09864, in the Llama ordering.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeSpec {
    pub theta: f64,
}

/// Which earlier keys a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    Causal,
    /// Key `j` is visible to query `i` iff `i - window < j <= i`.
    Window(usize),
}

/// What each token does on its own.
#[derive(Debug, Clone, PartialEq)]
pub enum Ffn {
    Moe(MoeSpec),
}

/// A router and the experts it chooses from.
#[derive(Debug, Clone, PartialEq)]
pub struct MoeSpec {
    pub router: RouterSpec,
    pub expert: MlpSpec,
}

/// `down(act(gate(x)) * up(x))`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MlpSpec {
    pub intermediate_size: usize,
    pub activation: Activation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`
    Silu,
}

/// Names of the tensors on disk; `{l}` stands for the layer and `{e}` for the expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorNames {
    pub embedding: &'static str,
    pub final_norm: &'static str,
    pub head: &'static str,
    pub attention_norm: &'static str,
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub attention_output: &'static str,
    pub ffn_norm: &'static str,
    pub router: &'static str,
    pub expert_gate: &'static str,
    pub expert_up: &'static str,
    pub expert_down: &'static str,
}

impl AttentionSpec {
    /// Rows of the concatenated query, key and value projection.
    pub fn qkv_rows(&self) -> usize {
        (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
    }

    /// Width of all query heads together.
    pub fn output_width(&self) -> usize {
        self.num_heads * self.head_dim
    }
}

impl Mixer {
    pub fn attention(&self) -> &AttentionSpec {
        let Mixer::Attention(attention) = self;
        attention
    }
}

impl Ffn {
    pub fn moe(&self) -> &MoeSpec {
        let Ffn::Moe(moe) = self;
        moe
    }
}
