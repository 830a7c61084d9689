//! What loading a model took.

use crate::quant::CacheFormat;

/// Memory of a loaded model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadStats {
    /// Device memory of the weights; of the reference, their f32 in host memory.
    pub weight_bytes: u64,
    /// Device memory of the KV cache.
    pub kv_cache_bytes: u64,
    pub kv_cache_format: CacheFormat,
    /// Device memory of a state that does not grow with the text, with its earlier copies; 0 for most models.
    pub state_bytes: u64,
    /// Device memory of activations, rotary tables and sampler.
    pub activation_bytes: u64,
    /// The most memory of this process while the weights were loaded, beyond what it had before: pieces of weights on their way, and on a
    /// software device the weights themselves. `None` where the system does not tell.
    pub peak_host_bytes: Option<u64>,
}

/// How far loading is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadStep {
    /// Weights on the device.
    Weights { done_bytes: u64, total_bytes: u64 },
    /// Compiled pipelines, of those that were not there yet.
    Kernels { done: u64, total: u64 },
}
