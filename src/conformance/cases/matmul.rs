use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem};
use super::{ONE_SHARD, SUM};
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::matmul::{self, Buffers};
use crate::quant::{QUANTS, Quant, padded};
use crate::reference;

#[derive(Clone, Copy)]
struct Matmul {
    num_tokens: usize,
    rows: usize,
    cols: usize,
    residual: bool,
    quant: Quant,
    rows_per_shard: usize,
    /// Rows of `y` without padding, as the router and the head have them.
    dense: bool,
}

pub fn cases() -> Vec<Case> {
    let usual =
        Matmul { num_tokens: 9, rows: 52, cols: 96, residual: false, quant: QUANTS[0], rows_per_shard: ONE_SHARD, dense: false };
    let mut problems = Vec::new();
    for quant in QUANTS {
        for residual in [false, true] {
            problems.extend([1, 2, 7, 8, 9, 33].map(|num_tokens| Matmul { num_tokens, residual, quant, ..usual }));
        }
    }
    for num_tokens in [1, 9] {
        problems.extend([1, 3, 5].map(|rows| Matmul { num_tokens, rows, ..usual }));
        problems.extend([1, 31, 32, 33, 64, 2048].map(|cols| Matmul { num_tokens, cols, rows: 12, ..usual }));
        let head = Matmul { num_tokens, rows: 430, dense: true, ..usual };
        let sharded = Matmul { rows_per_shard: 128, ..head };
        problems.extend([head, sharded, Matmul { residual: true, quant: QUANTS[2], dense: false, ..sharded }]);
    }
    problems.into_iter().map(|problem| Case::new("matmul", problem.name(), SUM, problem)).collect()
}

impl Matmul {
    fn name(&self) -> String {
        let Matmul { num_tokens, rows, cols, quant, .. } = self;
        let mut name = format!("{num_tokens}x{cols}x{rows} {}", quant.name);
        for (holds, word) in [(self.residual, " residual"), (self.dense, " dense"), (self.rows_per_shard != ONE_SHARD, " shards")]
        {
            if holds {
                name.push_str(word);
            }
        }
        name
    }

    fn problem(&self) -> matmul::Problem {
        matmul::Problem {
            num_tokens: self.num_tokens,
            cols: self.cols,
            y_stride: if self.dense { self.rows } else { padded(self.rows) },
            residual: self.residual,
            quant: self.quant,
        }
    }
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
        let before = inputs.floats(num_tokens * rows, 1.0);

        let layout = if self.dense { Layout::dense(rows) } else { Layout::padded(rows) };
        let y = if self.residual {
            let mut after = before.clone();
            reference::matmul::matmul_add(&x, &stored, cols, &mut after);
            stage.changed("y", &before, &after, layout)
        } else {
            stage.output("y", &reference::matmul::matmul(&x, &stored, cols), layout)
        };
        let x = stage.padded_input("x", &x, cols);
        let mut recording = Recording::default();
        let buffers = Buffers { x: &x, weight: &weight, y: &y.buffer };
        matmul::record(device, &mut recording, None, &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![y] })
    }
}
