//! What a model is, as pure data.
//!
//! A [`ModelSpec`] is read once from `config.json` by the architecture's own file under [`arch`] and drives everything else: what
//! the checkpoint must hold, which kernels run, how much memory it takes. Nothing outside `arch/` may match on a family's name.

pub mod arch;
mod attention;
mod attention_experts;
mod experts;
mod json;
mod latent;
mod names;
mod parameters;
mod published;
mod recurrent;
mod relative_bias;
mod rope;
mod short_conv;
mod state;
mod weight;

pub use arch::{ARCHS, Arch, CUT_ON_PURPOSE};
pub use attention::{AttentionSpec, FilterSpec, Mask, QkNorm, QkNormOver, TemperatureTuning};
pub use attention_experts::AttentionExpertsSpec;
pub use experts::{Activation, MlpSpec, MoeSpec, ParallelInputs, ParallelSpec, SharedSpec};
pub(crate) use json::foreign_text;
pub use json::{ConfigJson, parse_json};
pub use latent::LatentSpec;
pub use names::{
    AbsorbedNames, ChoiceNames, ConvolutionNames, ExpertStorage, FilterNames, LatentNames, QkvStorage, RecurrentNames,
    RecurrentStorage, TensorNames,
};
pub use parameters::Parameters;
pub use published::{Arithmetic, Feed, PUBLISHED, Published, Stated, published};
pub use recurrent::{ConvolutionSpec, Decay, GateActivation, GatedNormSpec, RecurrentSpec, Rule};
pub use relative_bias::RelativeBias;
pub use rope::{RopePairing, RopeScaling, RopeSpec};
pub use short_conv::ShortConvSpec;
pub use state::{PositionState, SLOT_POSITIONS, STATE_SLOTS, SlotState, slot_of};
pub use weight::{Kind, OnDisk, ROLES, Role, RoleFacts, Scope, Share, StorageOf, Template, Weight, WeightKey};

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

/// Blocks that the residual stream goes through one after the other, each with its norms and its way into the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    pub norm: NormSpec,
    pub residual: Residual,
    /// Multiplies what each block adds to the residual stream.
    pub residual_scale: f32,
    pub blocks: Vec<BlockSpec>,
    /// The checkpoint has one number that multiplies the residual stream at the end of the layer, after a norm: not with [`Residual::Pre`].
    pub output_scale: bool,
}

/// One part of a layer.
#[derive(Debug, Clone, PartialEq)]
pub enum BlockSpec {
    Attention(AttentionSpec),
    AttentionExperts(Box<AttentionExpertsSpec>),
    Latent(LatentSpec),
    ShortConv(ShortConvSpec),
    Recurrent(RecurrentSpec),
    Mlp(MlpSpec),
    Experts(MoeSpec),
    Parallel(ParallelSpec),
}

/// Where the norms of a layer stand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Residual {
    /// `x += part(norm(x))`
    Pre,
    /// `x += norm(part(x))`
    Post,
    /// `x += post_norm(part(norm(x)))`
    Sandwich,
    /// `h = norm(x)`, `x = alpha h + beta part(h)`, with `[alpha, beta]` of the mixer and of the feed-forward part.
    AfterNorm { mixer: [f32; 2], ffn: [f32; 2] },
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

impl NormSpec {
    pub fn rms(eps: f32) -> Self {
        NormSpec { kind: NormKind::Rms, eps, bias: false }
    }
}

impl BlockSpec {
    /// Attention over keys and values.
    pub fn attention(&self) -> Option<&AttentionSpec> {
        match self {
            BlockSpec::Attention(attention) => Some(attention),
            BlockSpec::AttentionExperts(experts) => Some(&experts.heads),
            _ => None,
        }
    }

    /// The rotary embedding, where there is one.
    pub fn rope(&self) -> Option<&RopeSpec> {
        match self {
            BlockSpec::Latent(latent) => latent.rope.as_ref(),
            _ => self.attention().and_then(|attention| attention.rope.as_ref()),
        }
    }

    /// The routed part, where there is one.
    pub fn moe(&self) -> Option<&MoeSpec> {
        match self {
            BlockSpec::Experts(moe) | BlockSpec::Parallel(ParallelSpec { moe, .. }) => Some(moe),
            _ => None,
        }
    }

    /// The routers in it.
    pub fn routers(&self) -> Vec<(Role, &RouterSpec)> {
        let own = match self {
            BlockSpec::AttentionExperts(experts) => Some((Role::ChoiceRouter, &experts.router)),
            _ => None,
        };
        own.into_iter().chain(self.moe().map(|moe| (Role::Router, &moe.router))).collect()
    }

    /// Whether it moves information between tokens.
    pub fn is_mixer(&self) -> bool {
        match self {
            BlockSpec::Attention(_) | BlockSpec::AttentionExperts(_) | BlockSpec::Latent(_) => true,
            BlockSpec::ShortConv(_) | BlockSpec::Recurrent(_) => true,
            BlockSpec::Mlp(_) | BlockSpec::Experts(_) | BlockSpec::Parallel(_) => false,
        }
    }

    /// The roles of the norms before and after it.
    pub fn norm_roles(&self) -> [Role; 2] {
        if self.is_mixer() { [Role::AttentionNorm, Role::AttentionPostNorm] } else { [Role::FfnNorm, Role::FfnPostNorm] }
    }

    /// What one position leaves for later ones.
    pub fn state(&self, hidden_size: usize) -> Vec<PositionState> {
        match self {
            BlockSpec::Attention(attention) => attention.state(hidden_size),
            BlockSpec::AttentionExperts(experts) => experts.state(hidden_size),
            BlockSpec::Latent(latent) => latent.state(),
            // What these keep is the same for any length.
            BlockSpec::ShortConv(_) | BlockSpec::Recurrent(_) => Vec::new(),
            BlockSpec::Mlp(_) | BlockSpec::Experts(_) | BlockSpec::Parallel(_) => Vec::new(),
        }
    }

    /// What a text leaves, however long it is.
    pub fn carried(&self, hidden_size: usize) -> Vec<SlotState> {
        match self {
            BlockSpec::ShortConv(conv) => conv.carried(hidden_size),
            BlockSpec::Recurrent(recurrent) => recurrent.carried(),
            _ => Vec::new(),
        }
    }

    /// In the order of use; `norm` is that of the layer.
    fn weights(&self, hidden_size: usize, norm: NormSpec) -> Vec<Weight> {
        match self {
            BlockSpec::Attention(attention) => attention.weights(hidden_size),
            BlockSpec::AttentionExperts(experts) => experts.weights(hidden_size),
            BlockSpec::Latent(latent) => latent.weights(hidden_size),
            BlockSpec::ShortConv(conv) => conv.weights(hidden_size),
            BlockSpec::Recurrent(recurrent) => recurrent.weights(hidden_size),
            BlockSpec::Mlp(mlp) => mlp.weights(hidden_size).into(),
            BlockSpec::Experts(moe) => moe.weights(hidden_size),
            BlockSpec::Parallel(parallel) => parallel.weights(hidden_size, norm),
        }
    }
}

impl From<AttentionSpec> for BlockSpec {
    fn from(attention: AttentionSpec) -> Self {
        BlockSpec::Attention(attention)
    }
}

impl From<AttentionExpertsSpec> for BlockSpec {
    fn from(experts: AttentionExpertsSpec) -> Self {
        BlockSpec::AttentionExperts(Box::new(experts))
    }
}

impl From<ShortConvSpec> for BlockSpec {
    fn from(conv: ShortConvSpec) -> Self {
        BlockSpec::ShortConv(conv)
    }
}

impl From<RecurrentSpec> for BlockSpec {
    fn from(recurrent: RecurrentSpec) -> Self {
        BlockSpec::Recurrent(recurrent)
    }
}

impl From<LatentSpec> for BlockSpec {
    fn from(latent: LatentSpec) -> Self {
        BlockSpec::Latent(latent)
    }
}

impl LayerSpec {
    /// What the normed stream is multiplied by to become the stream, where it does, before a block, and what the block's result is multiplied by.
    pub fn factors(&self, block: &BlockSpec) -> (Option<f32>, f32) {
        match self.residual {
            Residual::AfterNorm { mixer, ffn } => {
                let [alpha, beta] = if block.is_mixer() { mixer } else { ffn };
                (Some(alpha), beta)
            }
            _ => (None, self.residual_scale),
        }
    }

    /// The first attention over keys and values.
    pub fn attention(&self) -> Option<&AttentionSpec> {
        self.blocks.iter().find_map(BlockSpec::attention)
    }

    pub fn attention_experts(&self) -> Option<&AttentionExpertsSpec> {
        self.blocks.iter().find_map(|block| match block {
            BlockSpec::AttentionExperts(experts) => Some(&**experts),
            _ => None,
        })
    }

    pub fn latent(&self) -> Option<&LatentSpec> {
        self.blocks.iter().find_map(|block| match block {
            BlockSpec::Latent(latent) => Some(latent),
            _ => None,
        })
    }

    pub fn recurrent(&self) -> Option<&RecurrentSpec> {
        self.blocks.iter().find_map(|block| match block {
            BlockSpec::Recurrent(recurrent) => Some(recurrent),
            _ => None,
        })
    }

    pub fn short_conv(&self) -> Option<&ShortConvSpec> {
        self.blocks.iter().find_map(|block| match block {
            BlockSpec::ShortConv(conv) => Some(conv),
            _ => None,
        })
    }

    /// Experts beside a dense MLP.
    pub fn parallel(&self) -> Option<&ParallelSpec> {
        self.blocks.iter().find_map(|block| match block {
            BlockSpec::Parallel(parallel) => Some(parallel),
            _ => None,
        })
    }

    /// The MLP that every token uses, by itself or beside experts.
    pub fn dense(&self) -> Option<&MlpSpec> {
        self.blocks.iter().find_map(|block| match block {
            BlockSpec::Mlp(mlp) | BlockSpec::Parallel(ParallelSpec { dense: mlp, .. }) => Some(mlp),
            _ => None,
        })
    }

    /// The routed part, where there is one.
    pub fn moe(&self) -> Option<&MoeSpec> {
        self.blocks.iter().find_map(BlockSpec::moe)
    }

    /// The rotary embedding, where there is one.
    pub fn rope(&self) -> Option<&RopeSpec> {
        self.blocks.iter().find_map(BlockSpec::rope)
    }

    fn moe_mut(&mut self) -> Option<&mut MoeSpec> {
        self.blocks.iter_mut().find_map(|block| match block {
            BlockSpec::Experts(moe) | BlockSpec::Parallel(ParallelSpec { moe, .. }) => Some(moe),
            _ => None,
        })
    }
}

impl ModelSpec {
    /// Whether a text of `total_len` tokens is beyond the original length of a rotary embedding that depends on it.
    pub fn is_long(&self, total_len: usize) -> bool {
        self.layers.iter().filter_map(LayerSpec::rope).any(|rope| match rope.scaling {
            RopeScaling::Long { original_positions, .. } => total_len > original_positions,
            _ => false,
        })
    }

    /// The same model with other routing.
    ///
    /// # Errors
    /// As [`RoutingOverride::apply`], and for a layer that has no router.
    pub fn with_routing(&self, routing: &RoutingOverride) -> Result<ModelSpec> {
        let mut changed = self.clone();
        let named = routing.disabled.iter().chain(&routing.forced).filter_map(|at| at.layer);
        for layer in named {
            if self.layers.get(layer).and_then(LayerSpec::moe).is_none() {
                let routed: Vec<String> = self.moe_layers().map(|(layer, _)| layer.to_string()).collect();
                let expected = format!("one with a router ({})", routed.join(", "));
                return Err(Error::Argument { what: "layer", expected, found: layer.to_string() });
            }
        }
        for (layer, spec) in changed.layers.iter_mut().enumerate() {
            if let Some(moe) = spec.moe_mut() {
                moe.router = routing.apply(layer, &moe.router)?;
            }
        }
        Ok(changed)
    }

    /// The layers with a router, with their index in the model.
    pub fn moe_layers(&self) -> impl Iterator<Item = (usize, &MoeSpec)> {
        self.layers.iter().enumerate().filter_map(|(layer, spec)| spec.moe().map(|moe| (layer, moe)))
    }

    /// The weights of a layer, in the order of use.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn layer_weights(&self, layer: usize) -> Vec<Weight> {
        let spec = &self.layers[layer];
        let (before, after) = (spec.residual != Residual::Post, matches!(spec.residual, Residual::Post | Residual::Sandwich));
        let norm = |wanted: bool, role: Role| wanted.then(|| Weight::norm(role, spec.norm, self.hidden_size));
        let mut weights = Vec::new();
        for block in &spec.blocks {
            let [norm_before, norm_after] = block.norm_roles();
            weights.extend(norm(before, norm_before));
            weights.extend(block.weights(self.hidden_size, spec.norm));
            weights.extend(norm(after, norm_after));
        }
        weights.extend(spec.output_scale.then(|| Weight::vector(Role::OutputScale, 1)));
        weights
    }

    /// The weights before the layers, and those after them.
    pub fn model_weights(&self) -> [Vec<Weight>; 2] {
        let mut last = vec![Weight::norm(Role::FinalNorm, self.final_norm, self.hidden_size)];
        last.extend((!self.tied_embeddings).then(|| self.table(Role::Head)));
        last.extend(self.head_bias.then(|| Weight::vector(Role::HeadBias, self.vocab_size)));
        [vec![self.table(Role::Embedding)], last]
    }

    /// The embedding, or the head.
    fn table(&self, role: Role) -> Weight {
        Weight::matrix(role, self.vocab_size, self.hidden_size)
    }

    /// The weights of the whole model.
    pub fn weights(&self) -> impl Iterator<Item = Weight> {
        let [first, last] = self.model_weights();
        let layers = (0..self.layers.len()).flat_map(|layer| self.layer_weights(layer));
        first.into_iter().chain(layers).chain(last)
    }
}
