use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem};
use super::{ONE_SHARD, SELDOM, SUM, THOROUGH};
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::head_matmul::{self, Buffers};
use crate::quant::{F16, F32, Q4_1, Q8_0, Quant, ROW_ALIGN, padded};
use crate::reference;

#[derive(Clone, Copy)]
struct HeadMatmul {
    num_tokens: usize,
    num_heads: usize,
    rows: usize,
    cols: usize,
    /// Values of a head behind its columns, which meet no weight.
    rest: usize,
    quant: Quant,
    heads_per_shard: usize,
}

pub fn cases() -> Vec<Case> {
    let usual = HeadMatmul { num_tokens: 9, num_heads: 3, rows: 24, cols: 20, rest: 8, quant: &F32, heads_per_shard: ONE_SHARD };
    let mut problems = Vec::new();
    problems.extend(SELDOM.iter().map(|quant| HeadMatmul { num_tokens: 8, cols: 300, quant, ..usual }));
    for quant in THOROUGH {
        problems.extend([1, 2, 8, 9, 33].map(|num_tokens| HeadMatmul { num_tokens, quant, ..usual }));
    }
    for num_tokens in [1, 9] {
        problems.extend([1, 3, 5, 52].map(|rows| HeadMatmul { num_tokens, rows, ..usual }));
        problems.extend([4, 32, 36, 512].map(|cols| HeadMatmul { num_tokens, cols, ..usual }));
        problems.push(HeadMatmul { num_tokens, rest: 0, ..usual });
        problems.push(HeadMatmul { num_tokens, num_heads: 1, ..usual });
        problems.push(HeadMatmul { num_tokens, num_heads: 5, heads_per_shard: 2, ..usual });
    }
    // More rows than a team has: tiles of 32 and of 64 tokens, with columns that end inside a block.
    let tiled = HeadMatmul { num_tokens: 97, rows: 72, ..usual };
    problems.extend([&F32, &F16, &Q8_0, &Q4_1].map(|quant| HeadMatmul { quant, ..tiled }));
    problems.extend([31, 32, 33, 128].map(|num_tokens| HeadMatmul { num_tokens, heads_per_shard: 2, ..tiled }));
    let case = |problem: HeadMatmul| Case::new("head_matmul", problem.name(), SUM, problem);
    problems.into_iter().map(case).collect()
}

impl HeadMatmul {
    fn name(&self) -> String {
        let HeadMatmul { num_tokens, num_heads, rows, cols, rest, quant, heads_per_shard } = *self;
        let shards = if heads_per_shard < num_heads { " shards" } else { "" };
        format!("{num_tokens} tokens, {num_heads} heads of {cols}x{rows}, {rest} behind, {}{shards}", quant.name)
    }

    fn problem(&self) -> head_matmul::Problem {
        let head_stride = self.cols + self.rest;
        head_matmul::Problem {
            num_tokens: self.num_tokens,
            rows: self.rows,
            cols: self.cols,
            x: head_matmul::Layout { token_stride: padded(self.num_heads * head_stride), head_stride },
            y: head_matmul::Layout { token_stride: padded(self.num_heads * self.rows), head_stride: self.rows },
            quant: self.quant,
        }
    }
}

impl Problem for HeadMatmul {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![head_matmul::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(14));
        let HeadMatmul { num_tokens, num_heads, rows, cols, rest, quant, heads_per_shard } = *self;
        let x_stride = cols + rest;
        let mut x = inputs.floats(num_tokens * num_heads * x_stride, 1.0);
        let weight = inputs.weights(num_heads * rows, cols);
        let (weight, stored) = stage.weights(&weight, cols, quant, heads_per_shard.saturating_mul(rows));
        let twin = reference::head_matmul::Inputs { num_heads, cols, x_stride, x: &x, weight: &stored };
        let heads = reference::head_matmul::head_matmul(&twin);
        let expected: Vec<f32> = heads.chunks_exact(rows + rest).flat_map(|head| &head[..rows]).copied().collect();

        let y = stage.output("y", &expected, Layout::padded(num_heads * rows));
        // As in the model: the last head may be read a little beyond its end.
        let width = num_heads * x_stride;
        let mut spread = Vec::new();
        for token in x.chunks_exact_mut(width) {
            spread.extend_from_slice(token);
            spread.resize(spread.len() + padded(width) - width, 0.0);
        }
        spread.resize(spread.len() + ROW_ALIGN, 0.0);
        let x = stage.input("x", &spread);
        let mut recording = Recording::default();
        let buffers = Buffers { x: &x, weight: &weight, y: &y.buffer };
        head_matmul::record(device, &mut recording, None, &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![y] })
    }
}
