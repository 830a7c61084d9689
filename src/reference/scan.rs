//! scan: a linear recurrence with a state `S [key_dim, value_dim]` for each value head.
//!
//! ```text
//! rows    [num_tokens] Row                                                     in      those of a sequence one after the other
//! x       [num_tokens, v | k | q] f32                                          in      of each value head, each key head, each key head
//! steps   [num_tokens, value_heads] f32                                        in      before bias and softplus
//! state   [sequences, STATE_SLOTS, value_heads, value_dim, key_dim] f32        in out  that after position p in its slot
//! y       [num_tokens, value_heads, value_dim] f32                             out
//! ```
//!
//! Row by row `S = a S + k u^T` and `y = S^T q + skip v`, with `a = exp(decay dt)`, `u = dt v` and `dt` the step. At position 0 the state is zero,
//! whatever the buffer holds. Source: Dao and Gu 2024, arXiv 2405.21060.

use crate::batch::Row;
use crate::spec::{RecurrentSpec, SLOT_POSITIONS, STATE_SLOTS, slot_of};

pub struct Inputs<'a> {
    pub spec: &'a RecurrentSpec,
    pub rows: &'a [Row],
    pub x: &'a [f32],
    pub steps: &'a [f32],
    /// `[value_heads]`, added to the step.
    pub step_bias: &'a [f32],
    /// `[value_heads]`, negative.
    pub decay: &'a [f32],
    /// `[value_heads]`
    pub skip: &'a [f32],
}

/// Returns `y`.
///
/// # Panics
/// If a sequence is beyond the state.
pub fn scan(inputs: &Inputs, state: &mut [f32]) -> Vec<f32> {
    let (spec, rows) = (inputs.spec, inputs.rows);
    let mut y = vec![0.0; rows.len() * spec.inner()];
    for head in 0..spec.value_heads {
        let mut s = Vec::new();
        for (token, row) in rows.iter().enumerate() {
            let follows = token.checked_sub(1).is_some_and(|before| is_next(&rows[before], row));
            if row.position == 0 {
                s = vec![0.0; spec.value_dim * spec.key_dim];
            } else if !follows {
                let place = place(spec, row.sequence, row.position as usize - 1, head);
                s = state[place..][..spec.value_dim * spec.key_dim].to_vec();
            }
            step(inputs, [head, token], &mut s, &mut y[token * spec.inner() + head * spec.value_dim..][..spec.value_dim]);
            if is_kept(rows, token) {
                let place = place(spec, row.sequence, row.position as usize, head);
                state[place..][..s.len()].copy_from_slice(&s);
            }
        }
    }
    y
}

/// One row of one head; `s [value_dim, key_dim]` is rounded in every row, so that it is the same however a text is cut into passes.
fn step(inputs: &Inputs, [head, token]: [usize; 2], s: &mut [f32], y: &mut [f32]) {
    let Inputs { spec, x, steps, step_bias, decay, skip, .. } = *inputs;
    let (inner, key_dim) = (spec.inner(), spec.key_dim);
    let x = &x[token * spec.channels()..][..spec.channels()];
    let key_head = head / (spec.value_heads / spec.key_heads);
    let [k, q] = [inner, inner + spec.key_width()].map(|first| &x[first + key_head * key_dim..][..key_dim]);
    let raw = f64::from(steps[token * spec.value_heads + head]) + f64::from(step_bias[head]);
    let [least, most] = spec.step_range.map(f64::from);
    let dt = (raw.max(0.0) + (-raw.abs()).exp().ln_1p()).clamp(least, most);
    let a = (f64::from(decay[head]) * dt).exp();
    let values = &x[head * spec.value_dim..][..spec.value_dim];
    for ((s, y), v) in s.chunks_exact_mut(key_dim).zip(y).zip(values) {
        let mut sum = f64::from(skip[head]) * f64::from(*v);
        for ((s, k), q) in s.iter_mut().zip(k).zip(q) {
            *s = (a * f64::from(*s) + dt * f64::from(*v) * f64::from(*k)) as f32;
            sum += f64::from(*s) * f64::from(*q);
        }
        *y = sum as f32;
    }
}

fn place(spec: &RecurrentSpec, sequence: u32, position: usize, head: usize) -> usize {
    let slot = sequence as usize * STATE_SLOTS + slot_of(position);
    (slot * spec.value_heads + head) * spec.value_dim * spec.key_dim
}

fn is_next(before: &Row, row: &Row) -> bool {
    before.sequence == row.sequence && before.position + 1 == row.position
}

/// Whether the state after a row is kept: the row is the last of its text, or of its block, and no later block takes the slot.
fn is_kept(rows: &[Row], token: usize) -> bool {
    let block = |row: &Row| row.position as usize / SLOT_POSITIONS;
    let (row, own) = (&rows[token], block(&rows[token]));
    let later = rows[token + 1..].iter().take_while(|later| later.sequence == row.sequence);
    later.map(block).all(|later| later != own && later < own + STATE_SLOTS)
}
