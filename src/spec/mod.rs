//! What a model is, as pure data.
//!
//! A [`ModelSpec`] is read once from `config.json` by the architecture's own file under [`arch`] and drives everything else: what
//! the checkpoint must hold, which kernels run, how much memory it takes. Nothing outside `arch/` may match on a family's name.

pub mod arch;
mod json;
mod names;
mod parameters;

pub use arch::{ARCHS, Arch, CUT_ON_PURPOSE};
pub(crate) use json::foreign_text;
pub use json::{ConfigJson, parse_json};
pub use names::{ChoiceNames, ExpertStorage, FilterNames, LatentNames, QkvStorage, TensorNames};
pub use parameters::Parameters;

use crate::error::{Error, Result};
use crate::gating::{RouterSpec, RoutingOverride};

/// A decoder-only language model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// Name of the entry in [`ARCHS`].
    pub family: &'static str,
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Longest sequence the model was made for, in tokens.
    pub max_positions: usize,
    pub final_norm: NormSpec,
    /// The head is the embedding table.
    pub tied_embeddings: bool,
    /// The head adds a bias.
    pub head_bias: bool,
    /// Multiplies the embedding of every token.
    pub embedding_scale: f32,
    /// Multiplies the logits.
    pub logit_scale: f32,
    /// Then they become `cap * tanh(logit / cap)`.
    pub logit_softcap: Option<f32>,
    pub layers: Vec<LayerSpec>,
    pub names: TensorNames,
    /// Whole layers and experts of the checkpoint may stay unused: the config says so under [`CUT_ON_PURPOSE`].
    pub may_be_cut: bool,
}

/// A mixer and a feed-forward part, each with its norm and its way into the residual stream.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    pub norm: NormSpec,
    pub residual: Residual,
    /// Multiplies what each part adds to the residual stream.
    pub residual_scale: f32,
    pub mixer: Mixer,
    pub ffn: Ffn,
    /// The checkpoint has one number that multiplies the residual stream at the end of the layer, after a norm: not with [`Residual::Pre`].
    pub output_scale: bool,
    /// The feed-forward part adds a bias.
    pub ffn_bias: bool,
}

/// Where the norms of a layer stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// `x += part(norm(x))`
    Pre,
    /// `x += norm(part(x))`
    Post,
    /// `x += post_norm(part(norm(x)))`
    Sandwich,
}

/// A norm over the last axis, with a weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormSpec {
    pub kind: NormKind,
    /// Added to the mean square, or the variance, under the root.
    pub eps: f32,
    /// A bias is added after the weight.
    pub bias: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Zhang and Sennrich 2019, arXiv 1910.07467.
    Rms,
    /// Ba et al. 2016, arXiv 1607.06450.
    Layer,
}

/// What moves information between tokens.
#[derive(Debug, Clone, PartialEq)]
pub enum Mixer {
    Attention(AttentionSpec),
    Latent(LatentSpec),
    /// Can be counted, not run.
    Mamba(MambaSpec),
}

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
    pub rope: RopeSpec,
}

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
    /// The query and output projections are experts: each serves as many heads as there are key/value heads, and a token uses those that this
    /// router chooses, `num_heads / num_kv_heads` of them. Every choice meets the same keys. Source: Shen et al. 2024, arXiv 2404.07413.
    pub choice: Option<Box<RouterSpec>>,
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

/// Rotary position embedding of the first `dims` of each head: Su et al. 2021, arXiv 2104.09864.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeSpec {
    pub theta: f64,
    /// Even; the other dimensions pass through.
    pub dims: usize,
    pub pairing: RopePairing,
    pub scaling: RopeScaling,
}

/// Which two dimensions turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePairing {
    /// `(i, i + dims / 2)`, as in Llama.
    Half,
    /// `(2i, 2i + 1)`, as in GPT-J.
    Interleaved,
}

/// How the frequencies are changed for longer contexts.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    None,
    Linear {
        factor: f64,
    },
    /// Source: `_compute_llama3_parameters` of transformers.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_positions: usize,
    },
    /// Peng et al. 2023, arXiv 2309.00071. `attention_factor` multiplies cosine and sine.
    Yarn {
        factor: f64,
        beta_fast: f64,
        beta_slow: f64,
        original_positions: usize,
        truncate: bool,
        attention_factor: f64,
    },
    /// Ding et al. 2024, arXiv 2402.13753: one divisor per pair, chosen by the total length. Each `mscale` multiplies cosine and sine.
    Long {
        short: Vec<f64>,
        long: Vec<f64>,
        short_mscale: f64,
        long_mscale: f64,
        original_positions: usize,
    },
    /// Only so many pairs turn, the fastest ones; the others stay where they are. Source: `_compute_proportional_rope_parameters` of
    /// transformers.
    Proportional {
        pairs: usize,
    },
}

/// Which earlier keys a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    Causal,
    /// Key `j` is visible to query `i` iff `i - window < j <= i`.
    Window(usize),
    /// Key `j` is visible to query `i` iff `j <= i` and both lie in the same chunk of this length.
    Chunk(usize),
}

/// What each token does on its own.
#[derive(Debug, Clone, PartialEq)]
pub enum Ffn {
    Dense(MlpSpec),
    Moe(MoeSpec),
    Parallel(ParallelSpec),
}

/// Experts beside a dense MLP. Both are added.
#[derive(Debug, Clone, PartialEq)]
pub struct ParallelSpec {
    pub dense: MlpSpec,
    pub moe: MoeSpec,
    pub inputs: ParallelInputs,
    /// Each of the two goes through a norm of its own before they are added.
    pub post_norms: bool,
    /// What the experts give waits, and is added at the end of the next layer.
    pub deferred: bool,
}

/// What a dense MLP and the experts beside it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParallelInputs {
    /// Both the norm of what the mixer left.
    Same,
    /// Both what the mixer left, each through a norm of its own.
    OwnNorms,
    /// The experts the norm of the layer's own input, before its mixer; the MLP what the mixer left, through a norm of its own.
    LayerInput,
}

/// A router, the experts it chooses from, and the expert that every token uses.
#[derive(Debug, Clone, PartialEq)]
pub struct MoeSpec {
    pub router: RouterSpec,
    pub expert: MlpSpec,
    pub shared: Option<SharedSpec>,
}

/// An expert that every token uses, added to the routed ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SharedSpec {
    pub mlp: MlpSpec,
    /// Its output is multiplied by the sigmoid of one more linear row.
    pub gate: bool,
}

/// `down(act(gate(x), up(x)))`, each projection with a bias where `bias` says so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MlpSpec {
    pub intermediate_size: usize,
    pub activation: Activation,
    pub bias: bool,
}

/// From gate and up to the inner values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `silu(gate) * up`
    Silu,
    /// `gelu(gate) * up`, with the tanh approximation.
    GeluTanh,
    /// `(up + 1) * gate * sigmoid(alpha * gate)`, with `gate <= limit` and `|up| <= limit`. Source: `GptOssExperts` of transformers.
    ClampedSwiglu { alpha: f32, limit: f32 },
}

impl NormSpec {
    pub fn rms(eps: f32) -> Self {
        NormSpec { kind: NormKind::Rms, eps, bias: false }
    }
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
            choice: None,
            filter: None,
        }
    }

    /// Rows of the concatenated query, key and value projection.
    pub fn qkv_rows(&self) -> usize {
        let value_dim = if self.values_are_keys { 0 } else { self.value_dim };
        self.query_width() + self.num_kv_heads * (self.head_dim + value_dim)
    }

    /// Rows of the projection that all tokens share from the same input as the key: [`qkv_rows`](Self::qkv_rows) without the query where
    /// experts make it, and without the value where its input is another.
    pub fn projected_rows(&self) -> usize {
        let query = if self.choice.is_some() { self.query_width() } else { 0 };
        let value = if self.filter.is_some() { self.num_kv_heads * self.value_dim } else { 0 };
        self.qkv_rows() - query - value
    }

    /// Width of the query that one expert makes, of the heads that it serves.
    pub fn choice_width(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Width of what all heads give together.
    pub fn output_width(&self) -> usize {
        self.num_heads * self.value_dim
    }
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
}

impl Mixer {
    pub fn attention(&self) -> Option<&AttentionSpec> {
        match self {
            Mixer::Attention(attention) => Some(attention),
            Mixer::Latent(_) | Mixer::Mamba(_) => None,
        }
    }

    pub fn latent(&self) -> Option<&LatentSpec> {
        match self {
            Mixer::Latent(latent) => Some(latent),
            Mixer::Attention(_) | Mixer::Mamba(_) => None,
        }
    }

    /// The rotary embedding, where there is one.
    pub fn rope(&self) -> Option<&RopeSpec> {
        match self {
            Mixer::Attention(attention) => attention.rope.as_ref(),
            Mixer::Latent(latent) => Some(&latent.rope),
            Mixer::Mamba(_) => None,
        }
    }

    /// Columns of the output projection.
    pub fn output_width(&self) -> usize {
        match self {
            Mixer::Attention(attention) => attention.output_width(),
            Mixer::Latent(latent) => latent.output_width(),
            Mixer::Mamba(mamba) => mamba.inner_size,
        }
    }

    /// The output projection adds a bias.
    pub fn output_bias(&self) -> bool {
        self.attention().is_some_and(|attention| attention.output_bias)
    }
}

impl From<AttentionSpec> for Mixer {
    fn from(attention: AttentionSpec) -> Self {
        Mixer::Attention(attention)
    }
}

impl From<LatentSpec> for Mixer {
    fn from(latent: LatentSpec) -> Self {
        Mixer::Latent(latent)
    }
}

impl Ffn {
    /// The routed part, where there is one.
    pub fn moe(&self) -> Option<&MoeSpec> {
        match self {
            Ffn::Moe(moe) | Ffn::Parallel(ParallelSpec { moe, .. }) => Some(moe),
            Ffn::Dense(_) => None,
        }
    }
}

impl ModelSpec {
    /// Whether a text of `total_len` tokens is beyond the original length of a rotary embedding that depends on it.
    pub fn is_long(&self, total_len: usize) -> bool {
        self.layers.iter().filter_map(|layer| layer.mixer.rope()).any(|rope| match rope.scaling {
            RopeScaling::Long { original_positions, .. } => total_len > original_positions,
            _ => false,
        })
    }

    /// What keeps the model from being run, though it can be counted.
    pub fn cannot_run(&self) -> Option<String> {
        let mamba = self.layers.iter().filter(|layer| matches!(layer.mixer, Mixer::Mamba(_))).count();
        (mamba > 0).then(|| {
            format!("{mamba} of {} layers have a state-space mixer (Mamba), which this version only counts", self.layers.len())
        })
    }

    /// Refuses a model that can only be counted.
    ///
    /// # Errors
    /// [`Error::NotRun`].
    pub fn check_runnable(&self) -> Result<()> {
        self.cannot_run().map_or(Ok(()), |reason| Err(Error::NotRun { family: self.family, reason }))
    }

    /// The same model with other routing.
    ///
    /// # Errors
    /// As [`RoutingOverride::apply`], and for a layer that has no router.
    pub fn with_routing(&self, routing: &RoutingOverride) -> Result<ModelSpec> {
        let mut changed = self.clone();
        let named = routing.disabled.iter().chain(&routing.forced).filter_map(|at| at.layer);
        for layer in named {
            if self.layers.get(layer).and_then(|layer| layer.ffn.moe()).is_none() {
                let routed: Vec<String> = self.moe_layers().map(|(layer, _)| layer.to_string()).collect();
                let expected = format!("one with a router ({})", routed.join(", "));
                return Err(Error::Argument { what: "layer", expected, found: layer.to_string() });
            }
        }
        for (layer, spec) in changed.layers.iter_mut().enumerate() {
            if let Ffn::Moe(moe) | Ffn::Parallel(ParallelSpec { moe, .. }) = &mut spec.ffn {
                moe.router = routing.apply(layer, &moe.router)?;
            }
        }
        Ok(changed)
    }

    /// The layers with a router, with their index in the model.
    pub fn moe_layers(&self) -> impl Iterator<Item = (usize, &MoeSpec)> {
        self.layers.iter().enumerate().filter_map(|(layer, spec)| spec.ffn.moe().map(|moe| (layer, moe)))
    }
}
