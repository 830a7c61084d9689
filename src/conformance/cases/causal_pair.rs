use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem};
use super::{COPY, rows_with_gaps};
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::causal_pair::{self, Buffers};
use crate::reference;

struct Pair(causal_pair::Problem);

const CONTEXT: usize = 40;
const SEQUENCES: usize = 2;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (num_tokens, width) in [(1, 8), (9, 33), (33, 64), (2, 1), (5, 257)] {
        let problem = causal_pair::Problem { num_tokens, width, context: CONTEXT };
        cases.push(Case::new("causal_pair", format!("{num_tokens}x{width}"), COPY, Pair(problem)));
    }
    cases
}

impl Problem for Pair {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        [true, false].map(|appends| causal_pair::choose(caps, &self.0, appends)).to_vec()
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(18));
        let causal_pair::Problem { num_tokens, width, context } = self.0;
        let rows = rows_with_gaps(num_tokens, context);
        let x = inputs.floats(num_tokens * width, 1.0);
        let before = inputs.floats(SEQUENCES * context * width, 1.0);
        let mut after = before.clone();
        let y = reference::causal_pair::causal_pair(&rows, context, width, &x, &mut after);

        let cache = stage.changed("cache", &before, &after, Layout::dense(width));
        let y = stage.output("y", &y, Layout::padded(2 * width));
        let buffers = Buffers {
            rows: &stage.input("rows", &rows),
            x: &stage.padded_input("x", &x, width),
            cache: &cache.buffer,
            y: &y.buffer,
        };
        let mut recording = Recording::default();
        causal_pair::record(device, &mut recording, None, &self.0, &buffers)?;
        Ok(Prepared { recording, outputs: vec![cache, y] })
    }
}
