//! lru: the expert whose last use is longest ago goes.

use super::{Policy, PolicySetup};

#[derive(Debug)]
pub(super) struct Lru {
    /// `[experts]`: tokens up to the last use; 0 before the first.
    last: Vec<u64>,
}

impl Lru {
    pub(super) fn new(setup: &PolicySetup<'_>) -> Self {
        Lru { last: vec![0; setup.experts] }
    }
}

impl Policy for Lru {
    fn used(&mut self, expert: usize, tokens: u32, now: u64) {
        if tokens > 0 {
            self.last[expert] = now + 1;
        }
    }

    fn victim(&self, candidates: &[usize], _: u64) -> usize {
        candidates.iter().copied().min_by_key(|&expert| self.last[expert]).expect("there is a candidate")
    }
}
