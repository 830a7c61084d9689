use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem, Tolerance};
use super::consecutive_rows;
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::scan::{self, Buffers};
use crate::quant::padded;
use crate::reference::{self};
use crate::spec::{GateActivation, GatedNormSpec, RecurrentSpec, STATE_SLOTS, slot_of};

struct Scan {
    spec: RecurrentSpec,
    /// The position of the first row of each sequence, and how many rows it has.
    texts: Vec<[usize; 2]>,
    steps: Steps,
}

/// How large the steps and the decays are.
#[derive(Debug, Clone, Copy)]
enum Steps {
    /// As in a model.
    Usual,
    /// So small that a logarithm of one and a little has no digits left.
    Tiny,
    /// Decays of 1 beside those of nothing.
    Wild,
    /// Beyond both ends of what they are kept to.
    Clamped,
}

/// States and outputs up to about 4, of up to 260 rows.
const WITHIN: Tolerance =
    Tolerance { max_abs: 5e-5, nmse: 1e-9, why: "an f32 state that is rounded in every row, and sums of 8 to 128 products" };

/// What is never forgotten grows to some hundreds.
const WITHIN_WILD: Tolerance = Tolerance { max_abs: 2e-4, ..WITHIN };

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut push = |heads: [usize; 2], dims: [usize; 2], texts: &[[usize; 2]], steps: Steps| {
        let spec = spec(heads, dims, steps);
        let named = texts.iter().map(|[first, rows]| format!("{rows} from {first}")).collect::<Vec<_>>().join(" and ");
        let ([key_heads, value_heads], [key_dim, value_dim]) = (heads, dims);
        let name = format!("{named}, {value_heads} heads of {key_dim} x {value_dim}, {key_heads} for keys, {steps:?}");
        let within = if let Steps::Wild = steps { WITHIN_WILD } else { WITHIN };
        cases.push(Case::new("scan", name, within, Scan { spec, texts: texts.to_vec(), steps }));
    };
    for first in [0, 1, 63, 64, 100] {
        push([1, 2], [16, 16], &[[first, 1]], Steps::Usual);
        push([2, 2], [12, 8], &[[first, 2]], Steps::Usual);
    }
    for (first, rows) in [(0, 63), (0, 64), (0, 65), (1, 130), (63, 3), (100, 28), (0, 260), (190, 70)] {
        push([1, 3], [8, 20], &[[first, rows]], Steps::Usual);
    }
    push([2, 4], [128, 64], &[[0, 3]], Steps::Usual);
    push([1, 2], [128, 12], &[[70, 1]], Steps::Usual);
    push([1, 1], [256, 8], &[[5, 9]], Steps::Usual);
    push([1, 2], [96, 4], &[[64, 5]], Steps::Usual);
    push([2, 6], [20, 12], &[[7, 4], [66, 5]], Steps::Usual);
    push([1, 2], [16, 16], &[[3, 1], [0, 1], [128, 1]], Steps::Usual);
    for steps in [Steps::Tiny, Steps::Wild, Steps::Clamped] {
        push([2, 4], [16, 12], &[[0, 70]], steps);
        push([1, 2], [128, 8], &[[60, 20]], steps);
    }
    cases
}

fn spec([key_heads, value_heads]: [usize; 2], [key_dim, value_dim]: [usize; 2], steps: Steps) -> RecurrentSpec {
    let step_range = if let Steps::Clamped = steps { [0.1, 0.5] } else { [0.0, f32::MAX] };
    let norm = GatedNormSpec { eps: 1e-5, groups: 1, activation: GateActivation::Silu, gate_first: true, shared_weight: false };
    RecurrentSpec { key_heads, value_heads, key_dim, value_dim, step_range, conv_len: 4, conv_bias: true, norm }
}

impl Steps {
    /// What is added to all of them, and how far each is from that, before softplus.
    fn center(self) -> [f32; 2] {
        match self {
            Steps::Usual => [-2.0, 2.0],
            Steps::Tiny => [-11.0, 4.0],
            Steps::Wild => [-4.0, 12.0],
            Steps::Clamped => [-1.0, 4.0],
        }
    }

    /// Of the heads in turns.
    fn decay(self, head: usize) -> f32 {
        match self {
            Steps::Wild => [-1e-7, -1000.0, -0.01][head % 3],
            _ => -[1.0, 4.0, 0.3][head % 3],
        }
    }
}

impl Scan {
    fn problem(&self) -> scan::Problem<'_> {
        scan::Problem {
            num_tokens: self.texts.iter().map(|[_, rows]| rows).sum(),
            spec: &self.spec,
            x_stride: padded(self.spec.channels()),
            step_stride: padded(self.spec.value_heads),
            y_stride: padded(self.spec.inner()),
        }
    }

    /// A state in which only what the texts have to read is a number.
    fn earlier(&self, inputs: &mut Inputs) -> Vec<f32> {
        let len = self.spec.value_heads * self.spec.value_dim * self.spec.key_dim;
        let mut state = vec![f32::NAN; self.texts.len() * STATE_SLOTS * len];
        for (sequence, [first, _]) in self.texts.iter().enumerate().filter(|(_, [first, _])| *first > 0) {
            state[(sequence * STATE_SLOTS + slot_of(first - 1)) * len..][..len].copy_from_slice(&inputs.floats(len, 1.0));
        }
        state
    }
}

impl Problem for Scan {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![scan::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs, spec) = (Stage { device }, Inputs::new(33), &self.spec);
        let (rows, [center, width]) = (consecutive_rows(&self.texts), self.steps.center());
        // Keys and queries of length about 1, so that outputs are as large as values.
        let size = (3.0 / spec.key_dim as f32).sqrt();
        let mut x = Vec::new();
        for _ in &rows {
            x.extend(inputs.floats(spec.inner(), 1.0));
            x.extend(inputs.floats(2 * spec.key_width(), size));
        }
        let steps = inputs.floats(rows.len() * spec.value_heads, width);
        let step_bias = vec![center; spec.value_heads];
        let decay: Vec<f32> = (0..spec.value_heads).map(|head| self.steps.decay(head)).collect();
        let skip = inputs.floats(spec.value_heads, 1.0);
        let before = self.earlier(&mut inputs);
        let mut after = before.clone();
        let twin = reference::scan::Inputs {
            spec,
            rows: &rows,
            x: &x,
            steps: &steps,
            step_bias: &step_bias,
            decay: &decay,
            skip: &skip,
        };
        let y = reference::scan::scan(&twin, &mut after);
        assert!(y.iter().all(|value| value.is_finite()), "the twin reads what nobody has written");

        let state = stage.partly("state", &before, &after);
        let y = stage.output("y", &y, Layout::padded(spec.inner()));
        let buffers = Buffers {
            rows: &stage.input("rows", &rows),
            x: &stage.padded_input("x", &x, spec.channels()),
            steps: &stage.padded_input("steps", &steps, spec.value_heads),
            step_bias: &stage.input("step_bias", &step_bias),
            decay: &stage.input("decay", &decay),
            skip: &stage.input("skip", &skip),
            state: &state.buffer,
            y: &y.buffer,
        };
        let mut recording = Recording::default();
        scan::record(device, &mut recording, None, &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![state, y] })
    }
}
