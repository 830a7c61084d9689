//! scan: a linear recurrence with a state `S [key_dim, value_dim]` for each value head.
//!
//! ```text
//! rows    [num_tokens] Row                                                     in      those of a sequence one after the other
//! x       [num_tokens, v | k | q] f32                                          in      of each value head, each key head, each key head
//! state   [sequences, STATE_SLOTS, value_heads, value_dim, key_dim] f32        in out  that after position p in its slot
//! y       [num_tokens, value_heads, value_dim] f32                             out
//! ```
//!
//! Row by row `S = D S`, `S += k u^T` and `y = S^T q`, with D and u as [`Decay`] and [`Rule`] say. At position 0 the state is zero, whatever the buffer
//! holds. Sources: Dao and Gu 2024, arXiv 2405.21060; Yang et al. 2024, arXiv 2412.06464; Gu and Dao 2023, arXiv 2312.00752.

use crate::batch::Row;
use crate::spec::{Decay, RecurrentSpec, Rule, SLOT_POSITIONS, STATE_SLOTS, slot_of};

/// Added to the square of a length.
pub const LENGTH_EPS: f32 = 1e-6;

/// What is not used is empty.
pub struct Inputs<'a> {
    pub spec: &'a RecurrentSpec,
    pub rows: &'a [Row],
    /// Of [`Decay::Pair`] values alone.
    pub x: &'a [f32],
    /// `[num_tokens, value_heads]` before bias and softplus, of [`Decay::Pair`] `[num_tokens, value_dim]` before softplus.
    pub steps: &'a [f32],
    /// `[num_tokens, value_heads]` before their sigmoid, of [`Rule::Delta`].
    pub betas: &'a [f32],
    /// `[value_heads]`, added to the step.
    pub step_bias: &'a [f32],
    /// `[value_heads]`, negative. Of [`Decay::Pair`] `[value_dim, key_dim]`.
    pub decay: &'a [f32],
    /// `[num_tokens, value_heads, key_dim]`, from 0 to 1, of [`Decay::Channel`].
    pub decays: &'a [f32],
    /// `[value_heads]`, of [`Decay::Pair`] `[value_dim]`.
    pub skip: &'a [f32],
    /// `[num_tokens, k | q]` and the weights of their norms, of [`Decay::Pair`].
    pub keys: &'a [f32],
    pub key_norms: [&'a [f32]; 2],
    /// `[num_tokens, value_dim]`, of [`Decay::Pair`].
    pub gate: &'a [f32],
}

impl<'a> Inputs<'a> {
    /// Without anything else.
    pub fn new(spec: &'a RecurrentSpec, rows: &'a [Row], x: &'a [f32]) -> Self {
        Inputs {
            spec,
            rows,
            x,
            steps: &[],
            betas: &[],
            step_bias: &[],
            decay: &[],
            decays: &[],
            skip: &[],
            keys: &[],
            key_norms: [&[]; 2],
            gate: &[],
        }
    }
}

/// Returns `y`.
///
/// # Panics
/// If a sequence is beyond the state, or something that is used is not there.
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
fn step(inputs: &Inputs, at: [usize; 2], s: &mut [f32], y: &mut [f32]) {
    let ([head, token], spec) = (at, inputs.spec);
    let [k, q] = key_and_query(inputs, at);
    let values = &inputs.x[token * spec.channels()..][head * spec.value_dim..][..spec.value_dim];
    let beta = inputs.betas.get(token * spec.value_heads + head).map(|beta| sigmoid(f64::from(*beta)));
    for (column, (s, y)) in s.chunks_exact_mut(spec.key_dim).zip(y).enumerate() {
        let v = activated(spec, values[column]);
        let (decay, dt) = decay_of(inputs, at, column);
        let mut decayed: Vec<f64> = s.iter().zip(&decay).map(|(s, decay)| f64::from(*s) * decay).collect();
        let u = match spec.rule {
            Rule::Add => dt * v,
            Rule::Delta => beta.expect("a delta rule has betas") * (v - dot(&decayed, &k)),
        };
        decayed.iter_mut().zip(&k).for_each(|(s, k)| *s += k * u);
        s.iter_mut().zip(&decayed).for_each(|(s, decayed)| *s = *decayed as f32);
        let skip = if let Decay::Pair { .. } = spec.decay { inputs.skip.get(column) } else { inputs.skip.get(head) };
        let sum = dot(&decayed, &q) + skip.map_or(0.0, |skip| f64::from(*skip) * v);
        let gate = inputs.gate.get(token * spec.inner() + column).map_or(1.0, |gate| silu(f64::from(*gate)));
        *y = (gate * sum) as f32;
    }
}

/// Of every value of a column what is left of it, and the step.
fn decay_of(inputs: &Inputs, [head, token]: [usize; 2], column: usize) -> (Vec<f64>, f64) {
    let RecurrentSpec { value_heads, value_dim, key_dim, .. } = *inputs.spec;
    match inputs.spec.decay {
        Decay::Head { step_range } => {
            let raw = f64::from(inputs.steps[token * value_heads + head]) + f64::from(inputs.step_bias[head]);
            let [least, most] = step_range.map(f64::from);
            let dt = softplus(raw).clamp(least, most);
            (vec![(f64::from(inputs.decay[head]) * dt).exp(); key_dim], dt)
        }
        Decay::Channel { .. } => {
            let decays = &inputs.decays[(token * value_heads + head) * key_dim..][..key_dim];
            (decays.iter().map(|decay| f64::from(*decay)).collect(), 1.0)
        }
        Decay::Pair { .. } => {
            let dt = softplus(f64::from(inputs.steps[token * value_dim + column]));
            let decays = &inputs.decay[column * key_dim..][..key_dim];
            (decays.iter().map(|decay| (f64::from(*decay) * dt).exp()).collect(), dt)
        }
        Decay::Constant { factor } => {
            let slope = f64::from(factor) * (-8.0 * (head + 1) as f64 / value_heads as f64).exp2();
            (vec![(-slope).exp(); key_dim], 1.0)
        }
    }
}

/// As the state meets them.
fn key_and_query(inputs: &Inputs, [head, token]: [usize; 2]) -> [Vec<f64>; 2] {
    let (spec, key_dim) = (inputs.spec, inputs.spec.key_dim);
    if let Decay::Pair { eps, .. } = spec.decay {
        return [0, 1].map(|index| {
            let raw = &inputs.keys[(2 * token + index) * key_dim..][..key_dim];
            let mean = raw.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / key_dim as f64;
            let root = (mean + f64::from(eps)).sqrt();
            let weights = inputs.key_norms[index];
            raw.iter().zip(weights).map(|(value, weight)| f64::from(*value) / root * f64::from(*weight)).collect()
        });
    }
    let x = &inputs.x[token * spec.channels()..][..spec.channels()];
    let first = head / (spec.value_heads / spec.key_heads) * key_dim;
    let [k, q] = [spec.inner(), spec.inner() + spec.key_width()]
        .map(|section| x[section + first..][..key_dim].iter().map(|value| activated(spec, *value)).collect::<Vec<f64>>());
    match spec.rule {
        Rule::Add => [k, q],
        Rule::Delta => [unit(&k, 1.0), unit(&q, key_dim as f64)],
    }
}

/// Divided by its length and the root of `by`.
fn unit(values: &[f64], by: f64) -> Vec<f64> {
    let length = ((dot(values, values) + f64::from(LENGTH_EPS)) * by).sqrt();
    values.iter().map(|value| value / length).collect()
}

fn activated(spec: &RecurrentSpec, value: f32) -> f64 {
    let value = f64::from(value);
    if let Decay::Constant { .. } = spec.decay { silu(value) } else { value }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(super) fn softplus(value: f64) -> f64 {
    value.max(0.0) + (-value.abs()).exp().ln_1p()
}

fn sigmoid(value: f64) -> f64 {
    1.0 / (1.0 + (-value).exp())
}

fn silu(value: f64) -> f64 {
    value * sigmoid(value)
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
