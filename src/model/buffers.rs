//! Device memory that a decoder writes: activations, caches, sampler.

use super::chunk::Chunk;
use super::plan::rehearse;
use super::sampler::Sampler;
use crate::batch::CacheShape;
use crate::blocks::{DeviceWeights, HaltRecord, LayerMemory, Memory, Parts, Scratch, Sizes, caches};
use crate::error::Result;
use crate::gpu::Device;
use crate::spec::ModelSpec;

/// What a model writes to on a device.
#[derive(Debug)]
pub(super) struct Buffers {
    pub chunk: Chunk,
    pub memory: Memory,
    pub scratch: Scratch,
    pub sampler: Sampler,
}

/// A model with its weights on a device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loaded<'a> {
    pub device: &'a Device,
    pub spec: &'a ModelSpec,
    pub weights: &'a DeviceWeights,
}

impl Buffers {
    /// Zeroed memory for a model, with the caches of another such memory where there are some.
    pub async fn allocate(
        Loaded { device, spec, weights }: Loaded<'_>,
        sizes: Sizes,
        cache: CacheShape,
        layers: Option<Vec<LayerMemory>>,
    ) -> Result<Self> {
        let chunk = Chunk::choose(spec, device, &sizes, cache.context)?;
        let allocate = || {
            let layers = layers.unwrap_or_else(|| caches(device, spec, cache));
            let halt = weights.is_paged.then(|| HaltRecord::new(device, spec));
            let memory = Memory { halt, ..Memory::new(device, spec, cache, chunk.max_tokens, layers) };
            // What a pass needs whatever its rows may grow with their number.
            let parts = Parts { device, model: spec, weights, memory: &memory };
            let sizes = rehearse(parts, chunk.max_tokens, sizes)?;
            let scratch = Scratch::new(device, sizes, chunk.max_tokens);
            let sampler = Sampler::new(device, spec, chunk, &memory);
            Ok(Buffers { chunk, memory, scratch, sampler })
        };
        device.catch("allocating the KV cache and activations", allocate).await
    }
}

/// The scratch that one token and a batch of them need, found out by rehearsing both with caches of a single position.
pub(super) async fn measure(device: &Device, spec: &ModelSpec, weights: &DeviceWeights, cache: CacheShape) -> Result<Sizes> {
    let rehearse_both = || {
        let layers = caches(device, spec, CacheShape { context: 1, ..cache });
        let halt = weights.is_paged.then(|| HaltRecord::new(device, spec));
        let memory = Memory { halt, ..Memory::new(device, spec, cache, 1, layers) };
        let parts = Parts { device, model: spec, weights, memory: &memory };
        [1, 2].into_iter().try_fold(Sizes::default(), |sizes, num_tokens| rehearse(parts, num_tokens, sizes))
    };
    device.catch("preparing the kernels", rehearse_both).await
}

/// Bytes of what all positions leave for later ones.
pub(super) fn kv_bytes(spec: &ModelSpec, cache: CacheShape) -> u64 {
    spec.kv_bytes_per_token(cache.format) * cache.context as u64
}
