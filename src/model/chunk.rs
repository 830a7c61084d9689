//! How many tokens go through the model at once.

use crate::error::{Error, Result};
use crate::gating::RouterSpec;
use crate::gpu::Caps;
use crate::kernels::attention;
use crate::quant::{CacheFormat, padded};
use crate::spec::{Ffn, LatentSpec, LayerSpec, Mixer, ModelSpec, MoeSpec, ParallelSpec};

/// Most tokens of one chunk of a prompt: enough for each expert of many. Of 512 tokens, one of OLMoE's has 64.
const CHUNK_TOKENS: usize = 512;

/// Most bytes of logits kept for one chunk.
const LOGIT_BYTES: usize = 32 << 20;

/// The KV cache, and the largest extents that any chunk needs, over all layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkShape {
    pub context: usize,
    pub cache: CacheFormat,
    pub max_tokens: usize,
    /// Rows whose logits are kept: all rows of a chunk where the caller asks for all logits.
    pub max_logit_rows: usize,
    pub max_top_k: usize,
    pub max_experts: usize,
    /// Inner values per token: of all its experts, or of a dense or shared MLP.
    pub max_inner: usize,
    pub max_qkv: usize,
    pub max_attention: usize,
    pub max_router_hidden: usize,
    pub max_latent_query: usize,
    pub max_latent_cache: usize,
    pub max_latent_values: usize,
    /// Values of the partial results of attention whose keys are split, of one token.
    pub max_partials: usize,
}

impl ChunkShape {
    /// The largest chunk whose activations fit the device's bindings.
    ///
    /// # Errors
    /// [`Error::DeviceLimit`] if not even one token fits.
    pub fn choose(spec: &ModelSpec, caps: &Caps, (context, cache): (usize, CacheFormat), device: &str) -> Result<Self> {
        let largest = |measure: &dyn Fn(&LayerSpec) -> usize| spec.layers.iter().map(measure).max().unwrap_or(1);
        let choice = |layer: &LayerSpec| layer.mixer.attention().and_then(|attention| attention.choice.clone());
        let of_routers = |measure: &dyn Fn(&RouterSpec) -> usize| {
            let both = |layer: &LayerSpec| {
                layer.ffn.moe().map_or(1, |moe| measure(&moe.router)).max(choice(layer).map_or(1, |router| measure(&router)))
            };
            largest(&both)
        };
        let max_top_k = of_routers(&|router| router.num_experts_per_tok);
        let max_experts = of_routers(&|router| router.num_experts);
        let of_experts = |moe: &MoeSpec| {
            let shared = moe.shared.map_or(0, |shared| padded(shared.mlp.intermediate_size));
            (moe.router.num_experts_per_tok * padded(moe.expert.intermediate_size)).max(shared)
        };
        let max_chosen = largest(&|layer| match layer.mixer.attention() {
            Some(attention) if attention.choice.is_some() => max_top_k * padded(attention.choice_width()),
            _ => 1,
        });
        let max_inner = largest(&|layer| match &layer.ffn {
            Ffn::Dense(mlp) => padded(mlp.intermediate_size),
            Ffn::Moe(moe) => of_experts(moe),
            Ffn::Parallel(ParallelSpec { dense, moe, .. }) => padded(dense.intermediate_size).max(of_experts(moe)),
        })
        .max(max_chosen);
        let router_hidden = |layer: &LayerSpec| {
            let router = &layer.ffn.moe()?.router;
            router.hidden.or(router.attention.then(|| router.rows()))
        };
        let max_router_hidden = largest(&|layer| router_hidden(layer).map_or(1, padded));
        let max_qkv = largest(&|layer| match &layer.mixer {
            Mixer::Attention(attention) => padded(attention.qkv_rows()),
            Mixer::Latent(latent) => padded(latent.query_width()),
            Mixer::Mamba(_) => 1,
        });
        let latent = |measure: &dyn Fn(&LatentSpec) -> usize| {
            spec.layers.iter().filter_map(|layer| layer.mixer.latent()).map(measure).max().unwrap_or(0)
        };
        let max_latent_query = latent(&|spec| spec.query_rank.map_or(0, padded));
        let max_latent_cache = latent(&|spec| padded(spec.cache_dim()));
        let max_latent_values = latent(&|spec| padded(spec.num_heads * spec.latent_dim));
        let max_attention = largest(&|layer| match &layer.mixer {
            Mixer::Attention(attention) => {
                // What is projected apart from the query waits where the output comes to lie.
                let apart = if attention.choice.is_some() || attention.filter.is_some() { attention.qkv_rows() } else { 0 };
                padded(attention.query_width()).max(padded(attention.output_width())).max(padded(apart))
            }
            Mixer::Latent(latent) => {
                let over_cache = latent.over_cache();
                padded(over_cache.query_width()).max(padded(latent.output_width()))
            }
            Mixer::Mamba(_) => 1,
        });

        let max_partials = largest(&|layer| {
            let problem = attention::Problem::of_mixer(&layer.mixer, 1, (context, cache));
            problem.and_then(|problem| attention::merge(caps, &problem)).map_or(1, |merge| merge.num_partials())
        });

        let widest = max_inner
            .max(max_top_k * padded(spec.hidden_size))
            .max(max_qkv)
            .max(max_attention)
            .max(max_latent_values)
            .max(max_experts);
        let limit = usize::try_from(caps.max_shard_bytes()).unwrap_or(usize::MAX) / 4;
        let max_tokens =
            CHUNK_TOKENS.min(limit / widest).min(caps.max_workgroups_per_dimension as usize / max_top_k).min(context);
        if max_tokens == 0 || spec.vocab_size > limit {
            return Err(Error::DeviceLimit {
                what: "one token's activations".to_owned(),
                device: device.to_owned(),
                expected: format!("a binding of {} values", widest.max(spec.vocab_size)),
                found: format!("{limit}"),
            });
        }
        let max_logit_rows = (limit.min(LOGIT_BYTES / 4) / spec.vocab_size).clamp(1, max_tokens);
        Ok(ChunkShape {
            context,
            cache,
            max_tokens,
            max_logit_rows,
            max_top_k,
            max_experts,
            max_inner,
            max_qkv,
            max_attention,
            max_router_hidden,
            max_latent_query,
            max_latent_cache,
            max_latent_values,
            max_partials,
        })
    }
}
