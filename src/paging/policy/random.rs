//! random: any expert goes. Which one depends on the place, the token and the number of candidates alone, so every run draws the same.

use super::{Policy, PolicySetup};
use crate::batch::rng::pcg;

#[derive(Debug)]
pub(super) struct Random {
    seed: u32,
}

impl Random {
    pub(super) fn new(setup: &PolicySetup<'_>) -> Self {
        Random { seed: pcg(setup.place as u32) }
    }
}

impl Policy for Random {
    fn used(&mut self, _: usize, _: u32, _: u64) {}

    fn victim(&self, candidates: &[usize], now: u64) -> usize {
        // Within a token every victim makes the list of candidates shorter by one.
        let drawn = pcg(pcg(self.seed ^ now as u32) ^ candidates.len() as u32);
        candidates[((u64::from(drawn) * candidates.len() as u64) >> 32) as usize]
    }
}
