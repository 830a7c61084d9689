//! Tokens, cut into windows that are drawn in an order which follows from the seed.

use crate::batch::rng::pcg;
use crate::error::{Error, Result};
use crate::reference::training::Batch;

/// A text in tokens: what is trained on, and what is held out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    trained: Vec<u32>,
    held_out: Vec<u32>,
    seq_len: usize,
    seed: u32,
}

/// Rounds of the permutation.
const ROUNDS: u32 = 4;

impl Data {
    /// Of every document the last `held_out` share is kept back. Windows have `seq_len` tokens, and the one that follows.
    ///
    /// # Errors
    /// [`Error::Argument`] for a text shorter than a window.
    pub fn new(documents: &[Vec<u32>], seq_len: usize, held_out: f64, seed: u32) -> Result<Self> {
        let mut data = Data { trained: Vec::new(), held_out: Vec::new(), seq_len, seed };
        for document in documents {
            let kept_back = (document.len() as f64 * held_out) as usize;
            let (trained, held_out) = document.split_at(document.len() - kept_back);
            data.trained.extend_from_slice(trained);
            data.held_out.extend_from_slice(held_out);
        }
        if data.num_windows() == 0 {
            let expected = format!("a text of more than {seq_len} tokens, which make a window");
            return Err(Error::Argument { what: "data.path", expected, found: format!("{} tokens", data.trained.len()) });
        }
        Ok(data)
    }

    /// Tokens that are trained on.
    pub fn num_tokens(&self) -> usize {
        self.trained.len()
    }

    /// Windows of one pass through the text.
    pub fn num_windows(&self) -> usize {
        self.trained.len().saturating_sub(1) / self.seq_len
    }

    /// So many windows from number `drawn` on, counted from the start of the run. Every pass through the text has an order of its own.
    pub fn batch(&self, drawn: u64, windows: usize) -> Batch {
        let count = self.num_windows() as u64;
        let tokens: Vec<u32> = (drawn..drawn + windows as u64)
            .flat_map(|number| {
                let key = pcg(self.seed ^ pcg((number / count) as u32));
                self.window(&self.trained, permuted((number % count) as u32, count as u32, key) as usize)
            })
            .copied()
            .collect();
        Batch::of_windows(&tokens, self.seq_len)
    }

    /// Up to `batches` batches of so many windows, spread over what is held out; always the same.
    pub fn held_out(&self, batches: usize, windows: usize) -> Vec<Batch> {
        let count = self.held_out.len().saturating_sub(1) / self.seq_len;
        let wanted = count.min(batches * windows);
        let indices: Vec<usize> = (0..wanted).map(|i| i * count / wanted).collect();
        let of_batch = |indices: &[usize]| {
            let tokens: Vec<u32> = indices.iter().flat_map(|index| self.window(&self.held_out, *index)).copied().collect();
            Batch::of_windows(&tokens, self.seq_len)
        };
        indices.chunks(windows).map(of_batch).collect()
    }

    fn window<'a>(&self, tokens: &'a [u32], index: usize) -> &'a [u32] {
        &tokens[index * self.seq_len..][..self.seq_len + 1]
    }
}

/// Where `index` of `0..count` comes to stand in an order that follows from the key: a Feistel network over a power of four, applied until the
/// result is below `count`.
fn permuted(index: u32, count: u32, key: u32) -> u32 {
    let half_bits = (u32::BITS - count.saturating_sub(1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1u32 << half_bits) - 1;
    let mut value = index;
    loop {
        let (mut left, mut right) = (value >> half_bits, value & mask);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ (pcg(right ^ pcg(key ^ round)) & mask));
        }
        value = left << half_bits | right;
        if value < count {
            return value;
        }
    }
}
