//! short_conv: a causal convolution of each channel by itself, over `len` positions.
//!
//! ```text
//! rows    [num_tokens] Row                                in      those of a sequence one after the other
//! x       [num_tokens, channels] f32                      in      [b | c | u], three times as wide, where it is gated: the input is b u
//! weight  [len, channels] f32                             in      row len - 1 is that of the position itself
//! bias    [channels] f32                                  in
//! state   [sequences, STATE_SLOTS, len, channels] f32     in out  inputs: that of position p in its slot, row p % len
//! y       [num_tokens, channels] f32                      out     after SiLU, or times c
//! ```
//!
//! What lies before position 0 is zero, whatever the state holds. Of the inputs of a pass those are kept whose place no later one takes.

use crate::batch::Row;
use crate::spec::{STATE_SLOTS, slot_of};

pub struct Inputs<'a> {
    pub rows: &'a [Row],
    pub channels: usize,
    pub x: &'a [f32],
    pub weight: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub silu: bool,
    pub gated: bool,
}

impl Inputs<'_> {
    /// What the convolution is over, as the device computes it: a product is rounded.
    fn input(&self, token: usize) -> Vec<f32> {
        let width = self.channels * if self.gated { 3 } else { 1 };
        let x = &self.x[token * width..][..width];
        if !self.gated {
            return x.to_vec();
        }
        x[..self.channels].iter().zip(&x[2 * self.channels..]).map(|(b, u)| b * u).collect()
    }

    /// The row of a position in the state.
    fn place(&self, sequence: u32, position: usize) -> usize {
        let len = self.weight.len() / self.channels;
        ((sequence as usize * STATE_SLOTS + slot_of(position)) * len + position % len) * self.channels
    }
}

/// Returns `y`.
///
/// # Panics
/// If a sequence is beyond the state.
pub fn short_conv(inputs: &Inputs, state: &mut [f32]) -> Vec<f32> {
    let Inputs { rows, channels, weight, .. } = *inputs;
    let len = weight.len() / channels;
    let over: Vec<Vec<f32>> = (0..rows.len()).map(|token| inputs.input(token)).collect();
    let mut y = Vec::with_capacity(rows.len() * channels);
    for (token, row) in rows.iter().enumerate() {
        let mut sums = vec![0.0; channels];
        for (back, weight) in weight.chunks_exact(channels).rev().enumerate() {
            let Some(position) = (row.position as usize).checked_sub(back) else { break };
            let own = token.checked_sub(back).filter(|&other| is_row(&rows[other], row.sequence, position));
            let earlier = match own {
                Some(other) => &over[other][..],
                None => &state[inputs.place(row.sequence, position)..][..channels],
            };
            for (sum, (weight, earlier)) in sums.iter_mut().zip(weight.iter().zip(earlier)) {
                *sum += f64::from(*weight) * f64::from(*earlier);
            }
        }
        y.extend(sums.iter().enumerate().map(|(c, sum)| finish(inputs, token, c, *sum)));
    }
    for (token, row) in rows.iter().enumerate().filter(|(token, _)| !is_replaced(rows, *token, len)) {
        state[inputs.place(row.sequence, row.position as usize)..][..channels].copy_from_slice(&over[token]);
    }
    y
}

fn is_row(row: &Row, sequence: u32, position: usize) -> bool {
    row.sequence == sequence && row.position as usize == position
}

/// Bias, activation and gate of one channel.
fn finish(inputs: &Inputs, token: usize, c: usize, sum: f64) -> f32 {
    let mut value = sum + inputs.bias.map_or(0.0, |bias| f64::from(bias[c]));
    if inputs.silu {
        value /= 1.0 + (-value).exp();
    }
    if inputs.gated {
        value *= f64::from(inputs.x[(3 * token + 1) * inputs.channels + c]);
    }
    value as f32
}

/// Whether a later row takes the place where the input of this one would be kept.
fn is_replaced(rows: &[Row], token: usize, len: usize) -> bool {
    let (sequence, position) = (rows[token].sequence, rows[token].position as usize);
    let place = |position: usize| (slot_of(position), position % len);
    let later = rows[token + 1..].iter().take_while(|row| row.sequence == sequence);
    // The first row of the third block after this one makes all of the slot its own.
    later.map(|row| row.position as usize).any(|later| place(later) == place(position) || starts_over(position, later))
}

/// Whether the slot of `position` belongs to another block once `later` has come.
fn starts_over(position: usize, later: usize) -> bool {
    slot_of(later) == slot_of(position) && later / crate::spec::SLOT_POSITIONS != position / crate::spec::SLOT_POSITIONS
}
