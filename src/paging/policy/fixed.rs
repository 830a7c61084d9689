//! static: the experts that were used most elsewhere stay; the others pass through the slots that are left.

use super::lru::Lru;
use super::{Policy, PolicySetup};

#[derive(Debug)]
pub(super) struct Fixed {
    /// The hottest first.
    pinned: Vec<usize>,
    /// Among those that pass.
    others: Lru,
}

impl Fixed {
    /// One token may need none of the pinned experts, so slots for a whole token are left to the others.
    pub(super) fn new(setup: &PolicySetup<'_>) -> Self {
        let pinned = setup.hot.iter().copied().take(setup.slots.saturating_sub(setup.least_slots)).collect();
        Fixed { pinned, others: Lru::new(setup) }
    }
}

impl Policy for Fixed {
    fn used(&mut self, expert: usize, tokens: u32, now: u64) {
        self.others.used(expert, tokens, now);
    }

    fn victim(&self, candidates: &[usize], now: u64) -> usize {
        let passing: Vec<usize> = candidates.iter().copied().filter(|expert| !self.pinned.contains(expert)).collect();
        if passing.is_empty() {
            // Only if pinned experts alone hold slots: then the coldest of them.
            return self.pinned.iter().rev().copied().find(|expert| candidates.contains(expert)).unwrap_or(candidates[0]);
        }
        self.others.victim(&passing, now)
    }

    fn pinned(&self) -> &[usize] {
        &self.pinned
    }
}
