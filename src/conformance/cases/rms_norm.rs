use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem};
use super::SUM;
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::rms_norm::{self, Buffers};
use crate::reference;

struct RmsNorm {
    first_row: usize,
    num_tokens: usize,
    cols: usize,
    /// Of the inputs.
    size: f32,
}

const EPS: f32 = 1e-5;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: String, problem| cases.push(Case::new("rms_norm", name, SUM, problem));
    for cols in [1, 4, 31, 32, 33, 96, 255, 256, 257, 2048] {
        add(format!("3x{cols}"), RmsNorm { first_row: 0, num_tokens: 3, cols, size: 1.0 });
    }
    add("last row of 5".to_owned(), RmsNorm { first_row: 4, num_tokens: 1, cols: 64, size: 1.0 });
    add("tiny inputs".to_owned(), RmsNorm { first_row: 0, num_tokens: 2, cols: 64, size: 1e-4 });
    add("huge inputs".to_owned(), RmsNorm { first_row: 0, num_tokens: 2, cols: 64, size: 1e6 });
    add("zeros".to_owned(), RmsNorm { first_row: 0, num_tokens: 2, cols: 64, size: 0.0 });
    cases
}

impl RmsNorm {
    fn problem(&self) -> rms_norm::Problem {
        rms_norm::Problem { first_row: self.first_row, num_tokens: self.num_tokens, cols: self.cols, eps: EPS }
    }
}

impl Problem for RmsNorm {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![rms_norm::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(2));
        let x = inputs.floats((self.first_row + self.num_tokens) * self.cols, self.size);
        let weight = inputs.floats(self.cols, 1.0);
        let expected = reference::rms_norm::rms_norm(&x[self.first_row * self.cols..], &weight, EPS);

        let x = stage.padded_input("x", &x, self.cols);
        let weight = stage.padded_input("weight", &weight, self.cols);
        let y = stage.output("y", &expected, Layout::clearing(self.cols));
        let mut recording = Recording::default();
        let buffers = Buffers { x: &x, weight: &weight, y: &y.buffer };
        rms_norm::record(device, &mut recording, None, &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![y] })
    }
}
