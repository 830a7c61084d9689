//! What a block keeps between passes.

use crate::quant::CacheFormat;

/// Values that one position of a sequence leaves for later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PositionState {
    pub name: &'static str,
    /// Values of one position.
    pub len: usize,
    /// Kept in the format of the KV cache; f32 otherwise.
    pub in_cache_format: bool,
}

impl PositionState {
    /// Part of the KV cache.
    pub(super) fn cached(name: &'static str, len: usize) -> Self {
        PositionState { name, len, in_cache_format: true }
    }

    /// Kept in f32.
    pub(super) fn exact(name: &'static str, len: usize) -> Self {
        PositionState { name, len, in_cache_format: false }
    }

    /// Bytes of so many positions.
    pub fn bytes(&self, positions: usize, cache: CacheFormat) -> u64 {
        let values = positions * self.len;
        if self.in_cache_format { cache.bytes(values) as u64 } else { (values * 4) as u64 }
    }
}
