//! Inputs that look random and are the same everywhere.

use crate::batch::rng::{pcg, uniform_f32};

/// A stream of pseudo-random numbers.
#[derive(Debug, Clone)]
pub(super) struct Inputs {
    seed: u32,
    drawn: u32,
}

impl Inputs {
    pub fn new(seed: u32) -> Self {
        Inputs { seed, drawn: 0 }
    }

    /// Uniform in [-1, 1).
    pub fn float(&mut self) -> f32 {
        self.drawn += 1;
        2.0 * uniform_f32(self.seed, self.drawn) - 1.0
    }

    /// `len` values, uniform in [-size, size).
    pub fn floats(&mut self, len: usize, size: f32) -> Vec<f32> {
        (0..len).map(|_| size * self.float()).collect()
    }

    /// A weight matrix that keeps the size of what it is applied to, more or less.
    pub fn weights(&mut self, rows: usize, cols: usize) -> Vec<f32> {
        self.floats(rows * cols, (3.0 / cols as f32).sqrt())
    }

    /// Uniform in `0..end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.drawn += 1;
        pcg(pcg(self.seed) ^ self.drawn) as usize % end
    }

    /// `0..len` in some order: Fisher and Yates.
    pub fn permutation(&mut self, len: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..len as u32).collect();
        for last in (1..len).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}
