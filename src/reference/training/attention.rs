//! Causal attention with grouped heads and rotary embeddings, there and back.

use super::linear::{add_scaled, dot, grad_input, grad_weight, product};
use crate::batch::Row;
use crate::batch::rope::rope_turns;
use crate::platform::for_each_row;
use crate::spec::AttentionSpec;

/// What the way back needs: query, key and value after the turn `[n, qkv_rows]`, and what the heads gave `[n, num_heads head_dim]`.
pub struct Kept {
    qkv: Vec<f64>,
    heads: Vec<f64>,
}

/// Returns what the output projection gives, `[n, hidden]`. `weights`: query, key and value together, then output.
pub(super) fn forward(spec: &AttentionSpec, rows: &[Row], x: &[f64], weights: [&[f64]; 2]) -> (Vec<f64>, Kept) {
    let mut qkv = product(x, weights[0], x.len() / rows.len());
    turn_all(spec, rows, &mut qkv, 1.0);
    let (width, head_dim) = (spec.query_width(), spec.head_dim);
    let mut heads = vec![0.0; rows.len() * width];
    for_each_row(&mut heads, width, |t, heads| {
        for (h, y) in heads.chunks_exact_mut(head_dim).enumerate() {
            let head = Head { spec, qkv: &qkv, head: h };
            for (key, probability) in head.probabilities(t, rows[t].position as usize) {
                add_scaled(probability, head.value(key), y); // y[t, h] += p[key] v[key]
            }
        }
    });
    (product(&heads, weights[1], width), Kept { qkv, heads })
}

/// What [`backward`] reads beside the gradient.
pub(super) struct Back<'a> {
    pub spec: &'a AttentionSpec,
    pub rows: &'a [Row],
    /// The normed input, `[n, hidden]`.
    pub x: &'a [f64],
    pub weights: [&'a [f64]; 2],
    pub kept: &'a Kept,
}

/// The gradients of the input and of both weights, from `dy [n, hidden]`.
pub(super) fn backward(back: &Back, dy: &[f64]) -> (Vec<f64>, [Vec<f64>; 2]) {
    let Back { spec, rows, x, weights, kept } = back;
    let width = spec.query_width();
    let dheads = grad_input(dy, weights[1], width);
    let doutput = grad_weight(dy, &kept.heads, width);
    // A sequence at a time, each by one thread: its rows follow each other.
    let starts = (0..rows.len()).filter(|&t| rows[t].position == 0);
    let mut sequences: Vec<(usize, Vec<f64>)> = starts.map(|start| (start, Vec::new())).collect();
    for_each_row(&mut sequences, 1, |_, sequence| {
        let (start, dqkv) = &mut sequence[0];
        *dqkv = sequence_back(back, &dheads, *start);
    });
    let mut dqkv: Vec<f64> = sequences.into_iter().flat_map(|(_, dqkv)| dqkv).collect();
    turn_all(spec, rows, &mut dqkv, -1.0);
    let hidden_size = x.len() / rows.len();
    (grad_input(&dqkv, weights[0], hidden_size), [grad_weight(&dqkv, x, hidden_size), doutput])
}

/// Of the sequence that begins at row `start`, the gradients of query, key and value as they are after the turn.
fn sequence_back(back: &Back, dheads: &[f64], start: usize) -> Vec<f64> {
    let Back { spec, rows, kept, .. } = back;
    let (head_dim, stride, scale) = (spec.head_dim, spec.qkv_rows(), f64::from(spec.scale));
    let len = 1 + rows[start + 1..].iter().take_while(|row| row.position > 0).count();
    let mut dqkv = vec![0.0; len * stride];
    for h in 0..spec.num_heads {
        let head = Head { spec, qkv: &kept.qkv, head: h };
        for t in start..start + len {
            let dy = &dheads[(t * spec.num_heads + h) * head_dim..][..head_dim]; // dy[t, h]
            let probabilities = head.probabilities(t, rows[t].position as usize);
            let dprobabilities: Vec<f64> = probabilities.iter().map(|(key, _)| dot(dy, head.value(*key))).collect();
            let mean: f64 = probabilities.iter().zip(&dprobabilities).map(|((_, p), dp)| p * dp).sum();
            for ((key, p), dp) in probabilities.iter().zip(dprobabilities) {
                let dscore = p * (dp - mean) * scale;
                let (at_query, at_key) = ((t - start) * stride, (key - start) * stride);
                add_scaled(dscore, head.key(*key), &mut dqkv[at_query + head.query_at()..][..head_dim]);
                add_scaled(dscore, head.query(t), &mut dqkv[at_key + head.key_at()..][..head_dim]);
                add_scaled(*p, dy, &mut dqkv[at_key + head.value_at()..][..head_dim]);
            }
        }
    }
    dqkv
}

/// One query head and the key and value head that it reads.
struct Head<'a> {
    spec: &'a AttentionSpec,
    qkv: &'a [f64],
    head: usize,
}

impl Head<'_> {
    fn query_at(&self) -> usize {
        self.head * self.spec.head_dim
    }

    fn key_at(&self) -> usize {
        self.spec.query_width() + self.head * self.spec.num_kv_heads / self.spec.num_heads * self.spec.head_dim
    }

    fn value_at(&self) -> usize {
        self.key_at() + self.spec.num_kv_heads * self.spec.head_dim
    }

    fn part(&self, row: usize, at: usize) -> &[f64] {
        &self.qkv[row * self.spec.qkv_rows() + at..][..self.spec.head_dim]
    }

    fn query(&self, row: usize) -> &[f64] {
        self.part(row, self.query_at())
    }

    fn key(&self, row: usize) -> &[f64] {
        self.part(row, self.key_at())
    }

    fn value(&self, row: usize) -> &[f64] {
        self.part(row, self.value_at())
    }

    /// Row and probability of every key that row `t` sees: those of its sequence up to itself.
    fn probabilities(&self, t: usize, position: usize) -> Vec<(usize, f64)> {
        let scale = f64::from(self.spec.scale);
        let scores: Vec<f64> = (t - position..=t).map(|key| scale * dot(self.query(t), self.key(key))).collect();
        let log_sum = super::gate::log_sum_exp(&scores);
        (t - position..=t).zip(scores.iter().map(|score| (score - log_sum).exp())).collect()
    }
}

/// Turns queries and keys by their position, or back where `direction` is minus one.
fn turn_all(spec: &AttentionSpec, rows: &[Row], qkv: &mut [f64], direction: f64) {
    let Some(rope) = &spec.rope else { return };
    let positions = rows.iter().map(|row| row.position as usize + 1).max().unwrap_or(0);
    let turns = rope_turns(rope, positions, positions);
    let pairs = rope.dims / 2;
    let turned = (spec.num_heads + spec.num_kv_heads) * spec.head_dim;
    for (row, qkv) in rows.iter().zip(qkv.chunks_exact_mut(spec.qkv_rows())) {
        let turns = &turns[row.position as usize * pairs..][..pairs];
        for head in qkv[..turned].chunks_exact_mut(spec.head_dim) {
            for (i, [cosine, sine]) in turns.iter().enumerate() {
                let (a, b, sine) = (head[i], head[i + pairs], sine * direction);
                head[i] = a * cosine - b * sine;
                head[i + pairs] = b * cosine + a * sine;
            }
        }
    }
}
