//! How many tokens go through the model at once.

use crate::error::{Error, Result};
use crate::gpu::Caps;
use crate::quant::padded;
use crate::spec::ModelSpec;

/// Most tokens of one chunk of a prompt.
const MAX_TOKENS: usize = 256;
/// Most bytes of logits kept for one chunk.
const LOGIT_BYTES: usize = 32 << 20;

/// The largest extents that any chunk needs, over all layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkShape {
    pub context: usize,
    pub max_tokens: usize,
    /// Rows whose logits are kept: all rows of a chunk where the caller asks for all logits.
    pub max_logit_rows: usize,
    pub max_top_k: usize,
    pub max_experts: usize,
    pub max_intermediate: usize,
    pub max_attention_width: usize,
}

impl ChunkShape {
    /// The largest chunk whose activations fit the device's bindings.
    ///
    /// # Errors
    /// [`Error::DeviceLimit`] if not even one token fits.
    pub fn choose(spec: &ModelSpec, caps: &Caps, context: usize, device: &str) -> Result<Self> {
        let moes = || spec.layers.iter().map(|layer| layer.ffn.moe());
        let largest = |values: &mut dyn Iterator<Item = usize>| values.max().unwrap_or(1);
        let max_top_k = largest(&mut moes().map(|moe| moe.router.num_experts_per_tok));
        let max_experts = largest(&mut moes().map(|moe| moe.router.num_experts));
        let max_intermediate = largest(&mut moes().map(|moe| moe.expert.intermediate_size));
        let max_attention_width = largest(&mut spec.layers.iter().map(|layer| layer.mixer.attention().output_width()));

        let widest = (max_top_k * padded(max_intermediate).max(padded(spec.hidden_size))).max(padded(max_attention_width));
        let limit = usize::try_from(caps.max_shard_bytes()).unwrap_or(usize::MAX) / 4;
        let fits = (limit / widest).min(limit / max_experts).min(caps.max_workgroups_per_dimension as usize / max_top_k);
        let max_tokens = MAX_TOKENS.min(fits).min(context);
        let max_logit_rows = (limit.min(LOGIT_BYTES / 4) / spec.vocab_size).clamp(1, max_tokens.max(1));
        if max_tokens == 0 || spec.vocab_size > limit {
            return Err(Error::DeviceLimit {
                what: "one token's activations".to_owned(),
                device: device.to_owned(),
                expected: format!("a binding of {} values", widest.max(spec.vocab_size)),
                found: format!("{limit}"),
            });
        }
        Ok(ChunkShape { context, max_tokens, max_logit_rows, max_top_k, max_experts, max_intermediate, max_attention_width })
    }
}
