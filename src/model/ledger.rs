//! What the slots of a state hold that does not grow with the text, without asking the device.

use crate::spec::{ModelSpec, SLOT_POSITIONS, STATE_SLOTS};
use std::ops::Range;

/// Which beginnings of the text a model can go on from.
///
/// Keys and values can be gone on from anywhere: what lies behind the end is not read. A state is that after one position, and earlier ones are there
/// only where a block of positions ended: see [`STATE_SLOTS`].
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    /// The model has such a state.
    has_state: bool,
    /// How many tokens of the text the state in each slot comprises; 0: it is of no use.
    ends: [usize; STATE_SLOTS],
}

impl Ledger {
    pub fn new(spec: &ModelSpec) -> Self {
        Ledger { has_state: spec.held_state_bytes() > 0, ends: [0; STATE_SLOTS] }
    }

    /// Notes that rows at these positions are about to run. Until they [`ran`](Self::ran), nobody knows what the slots hold that they write to.
    pub fn runs(&mut self, positions: Range<usize>) {
        self.ends.iter_mut().filter(|end| **end > positions.start).for_each(|end| *end = 0);
        for block in blocks(&positions) {
            self.ends[block % STATE_SLOTS] = 0;
        }
    }

    /// Notes that rows at these positions have been run.
    pub fn ran(&mut self, positions: Range<usize>) {
        self.runs(positions.clone());
        for block in blocks(&positions) {
            self.ends[block % STATE_SLOTS] = positions.end.min((block + 1) * SLOT_POSITIONS);
        }
    }

    /// The longest beginning of the text that can be gone on from, of those up to `wanted` tokens.
    pub fn resumable(&self, wanted: usize) -> usize {
        if !self.has_state {
            return wanted;
        }
        self.ends.into_iter().filter(|end| *end <= wanted).max().unwrap_or(0)
    }

    /// Forgets the text.
    pub fn clear(&mut self) {
        self.ends = [0; STATE_SLOTS];
    }
}

/// The last blocks of these positions, as many as have slots.
fn blocks(positions: &Range<usize>) -> impl Iterator<Item = usize> {
    let blocks = positions.start / SLOT_POSITIONS..positions.end.div_ceil(SLOT_POSITIONS);
    blocks.rev().take(STATE_SLOTS)
}
