//! How many tokens go through the model at once.

use crate::blocks::Sizes;
use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::spec::ModelSpec;

/// Most tokens of one chunk of a prompt: enough for each expert of many. Of 512 tokens, one of OLMoE's has 64.
const CHUNK_TOKENS: usize = 512;

/// Most bytes of logits kept for one chunk.
const LOGIT_BYTES: usize = 32 << 20;

/// The largest pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub max_tokens: usize,
    /// Rows whose logits are kept: all rows of a chunk where the caller asks for all logits.
    pub max_logit_rows: usize,
}

impl Chunk {
    /// The largest chunk whose activations fit the device's bindings.
    ///
    /// # Errors
    /// [`Error::DeviceLimit`] if not even one token fits.
    pub fn choose(spec: &ModelSpec, device: &Device, sizes: &Sizes, context: usize) -> Result<Self> {
        let caps = device.caps();
        let blocks = spec.layers.iter().flat_map(|layer| &layer.blocks);
        let max_top_k = blocks.flat_map(|block| block.routers()).map(|(_, router)| router.num_experts_per_tok).max().unwrap_or(1);
        let widest = sizes.widest();
        let limit = usize::try_from(caps.max_shard_bytes()).unwrap_or(usize::MAX) / 4;
        let max_tokens =
            CHUNK_TOKENS.min(limit / widest).min(caps.max_workgroups_per_dimension as usize / max_top_k).min(context);
        if max_tokens == 0 || spec.vocab_size > limit {
            return Err(Error::DeviceLimit {
                what: "one token's activations".to_owned(),
                device: device.name().to_owned(),
                expected: format!("a binding of {} values", widest.max(spec.vocab_size)),
                found: format!("{limit}"),
            });
        }
        let max_logit_rows = (limit.min(LOGIT_BYTES / 4) / spec.vocab_size).clamp(1, max_tokens);
        Ok(Chunk { max_tokens, max_logit_rows })
    }
}
