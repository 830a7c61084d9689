use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem};
use super::{ONE_SHARD, SELDOM, SUM, THOROUGH, fused_norm, normed};
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::matmul::{self, Buffers, Output, Part};
use crate::quant::{BF16, F32, Q4_1, Q8_0, Quant, padded};
use crate::reference;

#[derive(Clone, Copy)]
struct Matmul {
    num_tokens: usize,
    rows: usize,
    cols: usize,
    bias: bool,
    scale: f32,
    output: Output,
    norm: bool,
    part: Option<Part>,
    quant: Quant,
    rows_per_shard: usize,
    /// Rows of `y` without padding, as the router and the head have them.
    dense: bool,
}

/// What may become of a sum.
const OUTPUTS: [Output; 7] =
    [Output::Replace, Output::Add, Output::Sigmoid, Output::Tanh, Output::Gate, Output::Capped(0.5), Output::Decay { rows: 11 }];

pub fn cases() -> Vec<Case> {
    let usual = Matmul {
        num_tokens: 9,
        rows: 52,
        cols: 96,
        bias: false,
        scale: 1.0,
        output: Output::Replace,
        norm: false,
        part: None,
        quant: &F32,
        rows_per_shard: ONE_SHARD,
        dense: false,
    };
    let mut problems = Vec::new();
    for quant in THOROUGH {
        for output in [Output::Replace, Output::Add] {
            problems.extend([1, 2, 7, 8, 9, 33].map(|num_tokens| Matmul { num_tokens, output, quant, ..usual }));
        }
    }
    for num_tokens in [1, 9] {
        problems.extend([1, 3, 5].map(|rows| Matmul { num_tokens, rows, ..usual }));
        problems.extend([1, 31, 32, 33, 64, 2048].map(|cols| Matmul { num_tokens, cols, rows: 12, ..usual }));
        // Whole passes and a piece of one, whole workgroups and a piece of one.
        problems.extend(THOROUGH.iter().map(|quant| Matmul { num_tokens, cols: 1120, rows: 1100, quant, ..usual }));
        // Two superblocks and pieces of one, more than a pass and a piece of one.
        problems.extend(SELDOM.iter().map(|quant| Matmul { num_tokens, cols: 545, quant, ..usual }));
        let head = Matmul { num_tokens, rows: 430, dense: true, ..usual };
        let sharded = Matmul { rows_per_shard: 128, ..head };
        problems.extend([head, sharded, Matmul { output: Output::Add, quant: &BF16, dense: false, ..sharded }]);
        for output in OUTPUTS {
            for (bias, scale) in [(true, 1.0), (false, 0.22), (true, 0.22)] {
                // The last quad is cut short, and so is the one at the end of a shard.
                let finished = Matmul { num_tokens, rows: 55, bias, scale, output, ..usual };
                problems.extend([finished, Matmul { rows_per_shard: 22, ..finished }]);
            }
        }
        problems.extend(parts(Matmul { num_tokens, ..usual }));
    }
    // Tiles of 32 and of 64 tokens: full ones and what is left of one, rows and columns that end inside a tile of 64 rows and 32 columns.
    let tiled = Matmul { num_tokens: 97, rows: 100, cols: 70, ..usual };
    problems.extend([31, 32, 65, 97, 127, 128, 129].map(|num_tokens| Matmul { num_tokens, ..tiled }));
    problems.extend([33, 63, 64, 65, 128].map(|rows| Matmul { rows, ..tiled }));
    problems.extend([1, 33, 1120].map(|cols| Matmul { cols, ..tiled }));
    problems.extend([&Q8_0, &Q4_1].map(|quant| Matmul { quant, ..tiled }));
    let normed = Matmul { num_tokens: 1, norm: true, ..usual };
    problems.extend(THOROUGH.iter().map(|quant| Matmul { quant, ..normed }));
    problems.extend([1, 33, 1120].map(|cols| Matmul { cols, ..normed }));
    problems.extend([Matmul { bias: true, ..normed }, Matmul { rows: 430, rows_per_shard: 128, dense: true, ..normed }]);
    problems.into_iter().map(|problem| Case::new("matmul", problem.name(), SUM, problem)).collect()
}

/// Of longer rows, from their beginning and from within; and the gate of a shared expert.
fn parts(usual: Matmul) -> Vec<Matmul> {
    let mut problems = vec![Matmul { rows: 1, output: Output::Sigmoid, dense: true, ..usual }];
    for (stride, first) in [(128, 0), (104, 72)] {
        let part = Some(Part { stride, first });
        problems.extend([&F32, &BF16].map(|quant| Matmul { cols: 12, part, quant, ..usual }));
        problems.push(Matmul { num_tokens: 8 * usual.num_tokens, cols: 12, rows: 70, part, ..usual });
    }
    problems
}

impl Matmul {
    fn name(&self) -> String {
        let Matmul { num_tokens, rows, cols, quant, .. } = self;
        let mut name = format!("{num_tokens}x{cols}x{rows} {}", quant.name);
        let part = self.part.map_or(String::new(), |part| format!(" of {} from {}", part.stride, part.first));
        let scaled = format!(" times {}", self.scale);
        for (holds, word) in [
            (self.norm, " norm"),
            (self.bias, " bias"),
            (self.scale != 1.0, scaled.as_str()),
            (self.output == Output::Add, " residual"),
            (self.output == Output::Sigmoid, " sigmoid"),
            (self.output == Output::Tanh, " tanh"),
            (self.output == Output::Gate, " gate"),
            (matches!(self.output, Output::Capped(_)), " capped"),
            (matches!(self.output, Output::Decay { .. }), " decay"),
            (self.part.is_some(), part.as_str()),
            (self.dense, " dense"),
            (self.rows_per_shard != ONE_SHARD, " shards"),
        ] {
            if holds {
                name.push_str(word);
            }
        }
        name
    }

    fn problem(&self) -> matmul::Problem {
        matmul::Problem {
            num_tokens: self.num_tokens,
            rows: self.rows,
            cols: self.cols,
            y_stride: if self.dense { self.rows } else { padded(self.rows) },
            bias: self.bias,
            scale: self.scale,
            output: self.output,
            norm: fused_norm(self.norm),
            part: self.part,
            quant: self.quant,
        }
    }
}

/// `x` as columns of longer rows of other numbers.
fn within(x: &[f32], cols: usize, part: Part) -> Vec<f32> {
    let mut wide = vec![7.0; x.len() / cols * part.stride];
    for (row, x) in wide.chunks_exact_mut(part.stride).zip(x.chunks_exact(cols)) {
        row[part.first..][..cols].copy_from_slice(x);
    }
    wide
}

impl Problem for Matmul {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![matmul::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(3));
        let Matmul { num_tokens, rows, cols, .. } = *self;
        let x = inputs.floats(num_tokens * cols, 1.0);
        let weight = inputs.weights(rows, cols);
        let (weight, stored) = stage.weights(&weight, cols, self.quant, self.rows_per_shard);
        let bias = inputs.floats(rows, 1.0);
        let before = inputs.floats(num_tokens * rows, 1.0);
        let decay = [-0.1, -2.0, -1e-4, -50.0, -0.7];
        let norm = self.norm.then(|| inputs.floats(cols, 1.0));
        let mut result = reference::matmul::matmul(&normed(&x, norm.as_deref()), &stored, cols);
        if self.bias {
            reference::matmul::add_bias(&mut result, &bias);
        }
        result.iter_mut().for_each(|value| *value *= self.scale);

        let layout = if self.dense { Layout::dense(rows) } else { Layout::padded(rows) };
        let y = match self.output {
            Output::Replace => stage.output("y", &result, layout),
            Output::Add => {
                result.iter_mut().zip(&before).for_each(|(value, before)| *value += before);
                stage.changed("y", &before, &result, layout)
            }
            Output::Tanh => {
                result.iter_mut().for_each(|value| *value = f64::from(*value).tanh() as f32);
                stage.output("y", &result, layout)
            }
            Output::Gate => {
                result.iter_mut().zip(&before).for_each(|(value, before)| *value = before * reference::matmul::sigmoid(*value));
                stage.changed("y", &before, &result, layout)
            }
            Output::Capped(limit) => {
                reference::matmul::cap(&mut result, limit);
                stage.output("y", &result, layout)
            }
            Output::Decay { .. } => {
                reference::matmul::decays(&mut result, rows, &decay);
                stage.output("y", &result, layout)
            }
            Output::Sigmoid => {
                result.iter_mut().for_each(|value| *value = reference::matmul::sigmoid(*value));
                stage.output("y", &result, layout)
            }
        };
        let bias = self.bias.then(|| stage.input("bias", &bias));
        let norm = norm.map(|norm| stage.padded_input("norm", &norm, cols));
        let x = self.part.map_or_else(|| stage.padded_input("x", &x, cols), |part| stage.input("x", &within(&x, cols, part)));
        let decay = matches!(self.output, Output::Decay { .. }).then(|| stage.input("decay", &decay));
        let mut recording = Recording::default();
        let (bias, norm, decay) = (bias.as_ref(), norm.as_ref(), decay.as_ref());
        let buffers = Buffers { x: &x, weight: &weight, bias, norm, decay, y: &y.buffer };
        matmul::record(device, &mut recording, None, &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![y] })
    }
}
