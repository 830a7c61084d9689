//! What every pass through a model speaks of: rows of a batch, how their tokens are routed and sampled, where they are in their sequences.
//!
//! Kernels and their twins both build on these, so that neither takes them from the other.

pub mod place;
pub mod regroup;
pub mod rng;
pub mod rope;
mod routing;
mod sampling;
pub mod sinusoid;

pub use place::{LayerPart, Place, all_finite};
pub use routing::LayerRouting;
pub use sampling::{Sampling, mark_seen, seen_words};

use crate::quant::CacheFormat;

/// The extent of a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// Positions of one sequence.
    pub context: usize,
    pub format: CacheFormat,
}

/// One row of a batch, as in `shaders/lib/rows.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Row {
    /// Id in the vocabulary.
    pub token: u32,
    /// Index in its sequence.
    pub position: u32,
    /// Which KV cache it belongs to.
    pub sequence: u32,
    /// Keys of its sequence, where attention meets all of them; otherwise nobody reads it.
    pub keys: u32,
}

impl Row {
    pub fn new(token: u32, position: u32, sequence: u32) -> Self {
        Row { token, position, sequence, keys: 0 }
    }
}
