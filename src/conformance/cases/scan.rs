use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem, Tolerance};
use super::consecutive_rows;
use crate::batch::Row;
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::scan::{self, Buffers, DecayBuffers};
use crate::quant::padded;
use crate::reference::{self};
use crate::spec::{ConvolutionSpec, Decay, RecurrentSpec, Rule, STATE_SLOTS, slot_of};

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

#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    rule: Rule,
    decay: Decay,
}

const KINDS: [Kind; 5] = [
    Kind { name: "a step per head", rule: Rule::Add, decay: HEAD },
    Kind { name: "a step per head, delta rule", rule: Rule::Delta, decay: HEAD },
    Kind { name: "a decay per channel, delta rule", rule: Rule::Delta, decay: Decay::Channel { rank: 12 } },
    Kind { name: "a decay per value", rule: Rule::Add, decay: Decay::Pair { rank: 8, eps: 1e-6 } },
    Kind { name: "constant decays", rule: Rule::Add, decay: Decay::Constant { factor: 0.7 } },
];

const HEAD: Decay = Decay::Head { step_range: [0.0, f32::MAX] };

/// States and outputs up to about 4, of up to 260 rows.
const WITHIN: Tolerance =
    Tolerance { max_abs: 5e-5, nmse: 1e-9, why: "an f32 state that is rounded in every row, and sums of 8 to 128 products" };

/// What is never forgotten grows to some hundreds.
const WITHIN_WILD: Tolerance = Tolerance { max_abs: 2e-4, ..WITHIN };

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut push = |kind: Kind, heads: [usize; 2], dims: [usize; 2], texts: &[[usize; 2]], steps: Steps| {
        let decay = if let Steps::Clamped = steps { Decay::Head { step_range: [0.1, 0.5] } } else { kind.decay };
        let spec = spec(kind.rule, decay, heads, dims);
        let named = texts.iter().map(|[first, rows]| format!("{rows} from {first}")).collect::<Vec<_>>().join(" and ");
        let ([key_heads, value_heads], [key_dim, value_dim]) = (heads, dims);
        let name =
            format!("{}: {named}, {value_heads} heads of {key_dim} x {value_dim}, {key_heads} for keys, {steps:?}", kind.name);
        let within = if let Steps::Wild = steps { WITHIN_WILD } else { WITHIN };
        cases.push(Case::new("scan", name, within, Scan { spec, texts: texts.to_vec(), steps }));
    };
    let usual = KINDS[0];
    for first in [0, 1, 63, 64, 100] {
        push(usual, [1, 2], [16, 16], &[[first, 1]], Steps::Usual);
        push(usual, [2, 2], [12, 8], &[[first, 2]], Steps::Usual);
    }
    for (first, rows) in [(0, 63), (0, 64), (0, 65), (1, 130), (63, 3), (100, 28), (0, 260), (190, 70)] {
        push(usual, [1, 3], [8, 20], &[[first, rows]], Steps::Usual);
    }
    push(usual, [2, 4], [128, 64], &[[0, 3]], Steps::Usual);
    push(usual, [1, 2], [128, 12], &[[70, 1]], Steps::Usual);
    push(usual, [1, 1], [256, 8], &[[5, 9]], Steps::Usual);
    push(usual, [1, 2], [96, 4], &[[64, 5]], Steps::Usual);
    push(usual, [2, 6], [20, 12], &[[7, 4], [66, 5]], Steps::Usual);
    push(usual, [1, 2], [16, 16], &[[3, 1], [0, 1], [128, 1]], Steps::Usual);
    for steps in [Steps::Tiny, Steps::Wild, Steps::Clamped] {
        push(usual, [2, 4], [16, 12], &[[0, 70]], steps);
        push(usual, [1, 2], [128, 8], &[[60, 20]], steps);
    }
    for kind in &KINDS[1..] {
        let has_heads = !matches!(kind.decay, Decay::Pair { .. });
        // One head of as many columns, where there are no others.
        let sized = |heads: [usize; 2], [key_dim, value_dim]: [usize; 2]| {
            if has_heads { (heads, [key_dim, value_dim]) } else { ([1, 1], [key_dim.min(32), heads[1] * value_dim]) }
        };
        let sizes = [([2, 4], [16, 12], [[0, 70]]), ([2, 6], [12, 8], [[63, 3]]), ([1, 3], [8, 20], [[0, 200]])];
        for (heads, dims, texts) in sizes.into_iter().chain([([1, 2], [128, 16], [[70, 1]]), ([2, 2], [128, 8], [[0, 9]])]) {
            let (heads, dims) = sized(heads, dims);
            push(*kind, heads, dims, &texts, Steps::Usual);
        }
        let (heads, dims) = sized([1, 2], [20, 36]);
        push(*kind, heads, dims, &[[7, 4], [0, 1], [128, 2]], Steps::Usual);
        if !matches!(kind.decay, Decay::Constant { .. }) {
            for steps in [Steps::Tiny, Steps::Wild] {
                let (heads, dims) = sized([2, 4], [16, 12]);
                push(*kind, heads, dims, &[[0, 70]], steps);
            }
        }
    }
    cases
}

fn spec(rule: Rule, decay: Decay, [key_heads, value_heads]: [usize; 2], [key_dim, value_dim]: [usize; 2]) -> RecurrentSpec {
    let conv = Some(ConvolutionSpec { len: 4, bias: true });
    RecurrentSpec { key_heads, value_heads, key_dim, value_dim, rule, decay, conv, norm: None }
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

    /// In turns.
    fn decay(self, index: usize) -> f32 {
        match self {
            Steps::Wild => [-1e-7, -1000.0, -0.01][index % 3],
            _ => -[1.0, 4.0, 0.3][index % 3],
        }
    }
}

/// What a case has besides values, keys and queries, as the twin reads it.
struct Given {
    rows: Vec<Row>,
    x: Vec<f32>,
    steps: Vec<f32>,
    betas: Vec<f32>,
    step_bias: Vec<f32>,
    decay: Vec<f32>,
    decays: Vec<f32>,
    skip: Vec<f32>,
    keys: Vec<f32>,
    key_norms: [Vec<f32>; 2],
    gate: Vec<f32>,
}

impl Scan {
    fn problem(&self) -> scan::Problem<'_> {
        scan::Problem { num_tokens: self.texts.iter().map(|[_, rows]| rows).sum(), spec: &self.spec }
    }

    fn given(&self, inputs: &mut Inputs) -> Given {
        let (spec, steps) = (&self.spec, self.steps);
        let (rows, [center, width]) = (consecutive_rows(&self.texts), steps.center());
        let (num_tokens, inner, num_heads) = (rows.len(), spec.inner(), spec.value_heads);
        // Keys and queries of length about 1, so that outputs are as large as values.
        let size = (3.0 / spec.key_dim as f32).sqrt();
        let mut x = Vec::new();
        for _ in &rows {
            x.extend(inputs.floats(inner, 1.0));
            x.extend(inputs.floats(spec.channels() - inner, size));
        }
        let mut some = |is_some: bool, len: usize, size: f32| if is_some { inputs.floats(len, size) } else { Vec::new() };
        let (per_head, per_pair) = (matches!(spec.decay, Decay::Head { .. }), matches!(spec.decay, Decay::Pair { .. }));
        let per_channel = matches!(spec.decay, Decay::Channel { .. });
        let num_decays = if per_head { num_heads } else { inner * spec.key_dim };
        let decays = if per_channel { num_tokens * num_heads * spec.key_dim } else { 0 };
        let decays = some(true, decays, width).into_iter().enumerate();
        let softplus = |step: f32| f64::from(step).exp().ln_1p();
        let decays = decays.map(|(index, step)| (f64::from(steps.decay(index)) * softplus(center + step)).exp() as f32).collect();
        let mut raw_steps = some(per_head, num_tokens * num_heads, width);
        // There the product that makes them has the bias.
        raw_steps.extend(some(per_pair, num_tokens * inner, width).iter().map(|step| center + step));
        Given {
            steps: raw_steps,
            betas: some(spec.rule == Rule::Delta, num_tokens * num_heads, 3.0),
            step_bias: vec![center; num_heads],
            decay: (0..if per_head || per_pair { num_decays } else { 0 }).map(|index| steps.decay(index)).collect(),
            decays,
            skip: some(spec.rule == Rule::Add && (per_head || per_pair), if per_pair { inner } else { num_heads }, 1.0),
            keys: some(per_pair, num_tokens * 2 * spec.key_dim, 2.0),
            key_norms: [size; 2].map(|size| some(per_pair, spec.key_dim, size)),
            gate: some(per_pair, num_tokens * inner, 3.0),
            rows,
            x,
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

    /// Steps and betas as they lie on a device, with NaN where nobody reads.
    fn step_rows(&self, given: &Given) -> Vec<f32> {
        let (spec, stride) = (&self.spec, self.spec.step_stride());
        let mut wide = vec![f32::NAN; given.rows.len() * stride];
        let (steps, betas) = (given.steps.len() / given.rows.len(), given.betas.len() / given.rows.len());
        for (token, row) in wide.chunks_exact_mut(stride).enumerate() {
            row[..steps].copy_from_slice(&given.steps[token * steps..][..steps]);
            row[spec.first_beta()..][..betas].copy_from_slice(&given.betas[token * betas..][..betas]);
        }
        wide
    }
}

impl Problem for Scan {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![scan::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs, spec) = (Stage { device }, Inputs::new(33), &self.spec);
        let given = self.given(&mut inputs);
        let before = self.earlier(&mut inputs);
        let mut after = before.clone();
        let twin = reference::scan::Inputs {
            steps: &given.steps,
            betas: &given.betas,
            step_bias: &given.step_bias,
            decay: &given.decay,
            decays: &given.decays,
            skip: &given.skip,
            keys: &given.keys,
            key_norms: [&given.key_norms[0], &given.key_norms[1]],
            gate: &given.gate,
            ..reference::scan::Inputs::new(spec, &given.rows, &given.x)
        };
        let y = reference::scan::scan(&twin, &mut after);
        assert!(y.iter().all(|value| value.is_finite()), "the twin reads what nobody has written");

        let state = stage.partly("state", &before, &after);
        let y = stage.output("y", &y, Layout::padded(spec.inner()));
        // What is not used is one value, since a buffer has at least that.
        let input = |name: &'static str, values: &[f32]| stage.input(name, if values.is_empty() { &[0.0] } else { values });
        let [step_bias, decay, skip] = [("step_bias", &given.step_bias), ("decay", &given.decay), ("skip", &given.skip)]
            .map(|(name, values)| input(name, values));
        let decays = stage.padded_input("decays", &given.decays, spec.value_heads * spec.key_dim);
        let keys = stage.padded_input("keys", &given.keys, 2 * spec.key_dim);
        let vectors = [&given.decay, &given.skip, &given.key_norms[0], &given.key_norms[1]];
        let vectors = input("vectors", &vectors.map(|values| values.as_slice()).concat());
        let mut gates = vec![f32::NAN; given.rows.len() * padded(spec.projected())];
        for (row, gate) in gates.chunks_exact_mut(padded(spec.projected())).zip(given.gate.chunks_exact(spec.inner())) {
            row[..spec.inner()].copy_from_slice(gate);
        }
        let gate = input("gate", &gates);
        let steps = (spec.step_rows() > 0).then(|| input("steps", &self.step_rows(&given)));
        let buffers = Buffers {
            rows: &stage.input("rows", &given.rows),
            x: &stage.padded_input("x", &given.x, spec.channels()),
            steps: steps.as_ref(),
            state: &state.buffer,
            y: &y.buffer,
            decay: match spec.decay {
                Decay::Head { .. } => {
                    DecayBuffers::Head { step_bias: &step_bias, decay: &decay, skip: (spec.rule == Rule::Add).then_some(&skip) }
                }
                Decay::Channel { .. } => DecayBuffers::Channel { decays: &decays },
                Decay::Pair { .. } => DecayBuffers::Pair { keys: &keys, vectors: &vectors, gate: &gate },
                Decay::Constant { .. } => DecayBuffers::Constant,
            },
        };
        let mut recording = Recording::default();
        scan::record(device, &mut recording, None, &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![state, y] })
    }
}
