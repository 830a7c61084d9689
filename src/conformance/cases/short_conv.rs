use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem, Tolerance};
use super::consecutive_rows;
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::short_conv::{self, Buffers, Step};
use crate::quant::padded;
use crate::reference::{self};
use crate::spec::STATE_SLOTS;

struct Convolution {
    problem: short_conv::Problem,
    /// The position of the first row of each sequence, and how many rows it has.
    texts: Vec<[usize; 2]>,
}

/// Of products up to 1 by 3 to 8 weights up to 1; what is kept is a product at most.
const WITHIN: Tolerance =
    Tolerance { max_abs: 2e-6, nmse: 1e-12, why: "f32 sums of a few products in another order than the twin's f64" };

/// Before the channels that are read lie others, as in a projection that gives more.
const X_FIRST: usize = 8;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut push = |texts: &[[usize; 2]], channels: usize, len: usize, flags: [bool; 3]| {
        let [bias, silu, gated] = flags;
        let num_tokens = texts.iter().map(|[_, rows]| rows).sum();
        let x_first = if gated { 0 } else { X_FIRST };
        let x_stride = padded(x_first + channels * if gated { 3 } else { 1 });
        let problem = short_conv::Problem { num_tokens, channels, len, x_stride, x_first, bias, silu, gated };
        let flags = [(bias, ", bias"), (silu, ", silu"), (gated, ", gated")];
        let flags: String = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| *name).collect();
        let texts_named = texts.iter().map(|[first, rows]| format!("{rows} from {first}")).collect::<Vec<_>>().join(" and ");
        cases.push(Case::new(
            "short_conv",
            format!("{texts_named}, {channels} channels, {len} positions{flags}"),
            WITHIN,
            Convolution { problem, texts: texts.to_vec() },
        ));
    };
    // One token: at the beginning, inside of a block of positions, and at its edges.
    for first in [0, 1, 2, 3, 63, 64, 65, 200] {
        push(&[[first, 1]], 80, 3, [false, false, true]);
        push(&[[first, 1]], 33, 4, [true, true, false]);
    }
    // Fewer rows than the convolution is long, across the edge of a block, across all slots and beyond, and two texts at once.
    for (first, rows) in [(0, 2), (1, 2), (0, 3), (62, 2), (63, 3), (60, 9), (5, 64), (64, 2), (127, 130), (0, 200), (3, 260)] {
        push(&[[first, rows]], 12, 3, [false, false, true]);
        push(&[[first, rows]], 20, 4, [true, true, false]);
    }
    push(&[[7, 5], [64, 4]], 257, 4, [true, true, false]);
    push(&[[0, 1], [70, 1]], 64, 3, [true, false, true]);
    push(&[[130, 10]], 64, 8, [false, true, false]);
    push(&[[9, 4]], 64, 2, [false, false, false]);
    cases
}

impl Problem for Convolution {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        Step::of(self.problem.num_tokens).iter().map(|step| short_conv::choose(caps, &self.problem, *step)).collect()
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(31));
        let short_conv::Problem { num_tokens, channels, len, x_stride, x_first, bias, silu, gated } = self.problem;
        let rows = consecutive_rows(&self.texts);
        let width = channels * if gated { 3 } else { 1 };
        let x = inputs.floats(num_tokens * width, 1.0);
        let weight = inputs.floats(len * channels, 1.0);
        let biases = inputs.floats(channels, 1.0);
        let before = earlier_inputs(&mut inputs, &self.texts, [len, channels]);
        let mut after = before.clone();
        let twin = reference::short_conv::Inputs {
            rows: &rows,
            channels,
            x: &x,
            weight: &weight,
            bias: bias.then_some(&*biases),
            silu,
            gated,
        };
        let y = reference::short_conv::short_conv(&twin, &mut after);
        assert!(y.iter().all(|value| value.is_finite()), "the twin reads what nobody has written");

        let mut wide = vec![f32::NAN; num_tokens * x_stride];
        for (row, x) in wide.chunks_exact_mut(x_stride).zip(x.chunks_exact(width)) {
            row[x_first..][..width].copy_from_slice(x);
        }
        let state = stage.partly("state", &before, &after);
        let y = stage.output("y", &y, Layout::padded(channels));
        let biases = stage.input("bias", &biases);
        let buffers = Buffers {
            rows: &stage.input("rows", &rows),
            x: &stage.input("x", &wide),
            weight: &stage.padded_input("weight", &weight, channels),
            bias: bias.then_some(&biases),
            state: &state.buffer,
            y: &y.buffer,
        };
        let mut recording = Recording::default();
        short_conv::record(device, &mut recording, None, &self.problem, &buffers)?;
        Ok(Prepared { recording, outputs: vec![state, y] })
    }
}

/// A state in which only what the texts have to read is a number.
fn earlier_inputs(inputs: &mut Inputs, texts: &[[usize; 2]], [len, channels]: [usize; 2]) -> Vec<f32> {
    let mut state = vec![f32::NAN; texts.len() * STATE_SLOTS * len * channels];
    for (sequence, [first, _]) in texts.iter().enumerate() {
        for position in first.saturating_sub(len - 1)..*first {
            let row = (sequence * STATE_SLOTS + crate::spec::slot_of(position)) * len + position % len;
            state[row * channels..][..channels].copy_from_slice(&inputs.floats(channels, 1.0));
        }
    }
    state
}
