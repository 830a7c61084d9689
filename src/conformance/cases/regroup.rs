use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem};
use super::{COPY, SUM};
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::regroup::{self, Buffers, Regroup, Strides};
use crate::reference;

struct Moved {
    num_tokens: usize,
    shape: Regroup,
    /// Values of a row on either side.
    widths: [usize; 2],
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let dense = |width: usize| Strides { first: 0, token: width, outer: 0, inner: 0 };
    let mut add = |name: &str, num_tokens, shape: Regroup, widths| {
        let tolerance = if shape.add.is_some() { SUM } else { COPY };
        cases.push(Case::new("regroup", format!("{name}, {num_tokens} tokens"), tolerance, Moved { num_tokens, shape, widths }));
    };
    for num_tokens in [1, 9] {
        // Two groups of three heads of four, to three groups of two, behind something else.
        let turned = Regroup {
            outer: 2,
            inner: 3,
            len: 4,
            x: Strides { first: 0, token: 64, outer: 32, inner: 4 },
            y: Strides { first: 5, token: 40, outer: 4, inner: 8 },
            add: None,
        };
        add("heads in turns", num_tokens, turned, [64, 40]);
        // Every row twice.
        let twice = Regroup {
            outer: 2,
            inner: 1,
            len: 33,
            x: dense(64),
            y: Strides { first: 0, token: 128, outer: 64, inner: 0 },
            add: None,
        };
        add("rows twice", num_tokens, twice, [64, 128]);
        let bias = Regroup { outer: 1, inner: 1, len: 33, x: dense(0), y: dense(64), add: Some(0.5) };
        add("one row added to all", num_tokens, bias, [33, 64]);
        add("rows added", num_tokens, Regroup { x: dense(40), add: Some(1.0), ..bias }, [40, 64]);
    }
    cases
}

impl Moved {
    fn problem(&self) -> regroup::Problem {
        regroup::Problem { num_tokens: self.num_tokens, shape: self.shape }
    }
}

impl Problem for Moved {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![regroup::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(16));
        let [x_width, y_width] = self.widths;
        let x = inputs.floats(self.num_tokens * x_width, 1.0);
        let before = inputs.floats(self.num_tokens * y_width, 1.0);
        let mut after = before.clone();
        reference::regroup::regroup(&self.shape, self.num_tokens, &x, &mut after);

        let y = stage.changed("y", &before, &after, Layout::dense(y_width));
        let mut recording = Recording::default();
        let buffers = Buffers { x: &stage.input("x", &x), y: &y.buffer };
        regroup::record(device, &mut recording, None, &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![y] })
    }
}
