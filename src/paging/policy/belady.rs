//! belady: the expert whose next use is farthest away goes. While decoding, nothing that loads on demand has more hits.
//!
//! Source: Belady 1966, "A study of replacement algorithms for a virtual-storage computer".

use super::{Policy, PolicySetup};

#[derive(Debug)]
pub(super) struct Belady {
    /// `[experts]`: the tokens that will use it, ascending.
    uses: Vec<Vec<u64>>,
    /// `[experts]`: how many of them are past.
    past: Vec<usize>,
}

impl Belady {
    pub(super) fn new(setup: &PolicySetup<'_>) -> Self {
        let mut uses: Vec<Vec<u64>> = vec![Vec::new(); setup.experts];
        for (token, chosen) in (0u64..).zip(setup.future) {
            for &expert in *chosen {
                if let Some(uses) = uses.get_mut(expert as usize)
                    && uses.last() != Some(&token)
                {
                    uses.push(token);
                }
            }
        }
        Belady { uses, past: vec![0; setup.experts] }
    }

    fn next_use(&self, expert: usize) -> u64 {
        self.uses[expert].get(self.past[expert]).copied().unwrap_or(u64::MAX)
    }
}

impl Policy for Belady {
    fn used(&mut self, expert: usize, tokens: u32, _: u64) {
        self.past[expert] += tokens as usize;
    }

    fn victim(&self, candidates: &[usize], _: u64) -> usize {
        // The lowest of those that are as far away as can be.
        let farthest = candidates.iter().copied().min_by_key(|&expert| std::cmp::Reverse(self.next_use(expert)));
        farthest.expect("there is a candidate")
    }
}
