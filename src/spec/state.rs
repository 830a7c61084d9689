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

/// Positions whose state is kept in one slot, the last of them at last.
pub const SLOT_POSITIONS: usize = 64;
/// Slots of a state that does not grow with the text. Block `b` of [`SLOT_POSITIONS`] positions has slot `b % STATE_SLOTS`: after it the ends of the
/// two blocks before are still there to go back to.
pub const STATE_SLOTS: usize = 3;

/// Values that a whole text leaves, however long it is, kept in f32 in [`STATE_SLOTS`] slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotState {
    pub name: &'static str,
    /// Values of one slot.
    pub len: usize,
}

impl SlotState {
    /// The last inputs of a convolution over `len` positions: `[len, channels]`, that of position `p` in row `p % len`.
    pub(super) fn convolution(len: usize, channels: usize) -> Self {
        SlotState { name: "convolution_inputs", len: len * channels }
    }

    /// Bytes of all slots of one sequence.
    pub fn bytes(&self) -> u64 {
        (STATE_SLOTS * self.len * 4) as u64
    }
}

/// The slot that holds the state after a position.
pub fn slot_of(position: usize) -> usize {
    position / SLOT_POSITIONS % STATE_SLOTS
}
