//! Gradients of matrix products: of the input and of the weight, with and without experts.

use super::super::inputs::Inputs;
use super::super::stage::{Layout, Output, Prepared, Stage};
use super::super::{Case, Problem, Tolerance};
use crate::error::Result;
use crate::gpu::{Buffer, Caps, Device, Recording, Variant};
use crate::kernels::grad_weight::{ByToken, Experts};
use crate::kernels::{expert_sort, grad_input, grad_weight};
use crate::reference;
use crate::reference::grad_weight::{Pair, all_tokens};

/// Sums of up to a few hundred products of values up to 1, in f32, one after the other.
const LONG_SUM: Tolerance =
    Tolerance { max_abs: 1e-4, nmse: 1e-11, why: "f32 sums of some hundred products, one after the other" };

#[derive(Clone, Copy)]
struct Sizes {
    num_tokens: usize,
    rows: usize,
    cols: usize,
    accumulate: bool,
    routed: Option<Routed>,
}

#[derive(Clone, Copy)]
struct Routed {
    num_experts: usize,
    top_k: usize,
    spread: Spread,
    by_token: ByToken,
    weighted: bool,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Spread {
    Random,
    /// All assignments of the first expert.
    One,
    /// Only every third expert.
    Gaps,
}

struct Input(Sizes);
struct Weight(Sizes);

const USUAL: Sizes = Sizes { num_tokens: 33, rows: 52, cols: 96, accumulate: false, routed: None };
const ROUTED: Routed = Routed { num_experts: 6, top_k: 2, spread: Spread::Random, by_token: ByToken::X, weighted: false };

pub fn input_cases() -> Vec<Case> {
    sizes().into_iter().map(|sizes| Case::new("grad_input", sizes.name(), LONG_SUM, Input(sizes))).collect()
}

pub fn weight_cases() -> Vec<Case> {
    let mut all = sizes();
    for num_experts in [1, 6] {
        for by_token in [ByToken::Dy, ByToken::X] {
            for weighted in [false, true] {
                let routed = Some(Routed { num_experts, by_token, weighted, ..ROUTED });
                all.push(Sizes { num_tokens: 40, rows: 33, cols: 31, routed, ..USUAL });
            }
        }
    }
    all.into_iter().map(|sizes| Case::new("grad_weight", sizes.name(), LONG_SUM, Weight(sizes))).collect()
}

fn sizes() -> Vec<Sizes> {
    let mut all = vec![USUAL, Sizes { accumulate: true, ..USUAL }];
    all.extend([1, 4, 7, 8, 9, 16, 17, 64, 65, 130].map(|num_tokens| Sizes { num_tokens, ..USUAL }));
    all.extend([1, 3, 4, 5, 31, 64, 65, 130].map(|rows| Sizes { rows, ..USUAL }));
    all.extend([1, 31, 32, 33, 64, 130].map(|cols| Sizes { cols, ..USUAL }));
    all.push(Sizes { num_tokens: 100, rows: 100, cols: 100, ..USUAL });
    all.push(Sizes { num_tokens: 130, rows: 72, cols: 260, accumulate: true, ..USUAL });
    let routed = Sizes { routed: Some(ROUTED), ..USUAL };
    all.extend([1, 2, 9, 33].map(|num_tokens| Sizes { num_tokens, ..routed }));
    for spread in [Spread::One, Spread::Gaps] {
        all.push(Sizes { routed: Some(Routed { spread, ..ROUTED }), ..routed });
    }
    let many = Routed { num_experts: 2, top_k: 1, ..ROUTED };
    all.push(Sizes { num_tokens: 150, rows: 70, cols: 68, routed: Some(many), accumulate: true });
    all
}

impl Sizes {
    fn name(&self) -> String {
        let Sizes { num_tokens, rows, cols, accumulate, routed } = self;
        let mut name = format!("{num_tokens}x{rows}x{cols}");
        if let Some(Routed { num_experts, top_k, spread, by_token, weighted }) = routed {
            name.push_str(&format!(" {top_k} of {num_experts} {spread:?}, {by_token:?} by token"));
            name.push_str(if *weighted { ", weighted" } else { "" });
        }
        name.push_str(if *accumulate { ", added" } else { "" });
        name
    }

    fn num_rows_of_tokens(&self) -> usize {
        self.num_tokens * self.routed.map_or(1, |routed| routed.top_k)
    }

    fn sort(&self) -> Option<expert_sort::Problem> {
        let num_assignments = self.num_rows_of_tokens();
        self.routed.map(|routed| expert_sort::Problem { num_assignments, num_experts: routed.num_experts })
    }

    fn num_experts(&self) -> usize {
        self.routed.map_or(1, |routed| routed.num_experts)
    }

    /// The expert of every assignment; one for all where there are none.
    fn ids(&self, inputs: &mut Inputs) -> Vec<u32> {
        let num_experts = self.num_experts();
        let mut id = |_| match self.routed.map_or(Spread::One, |routed| routed.spread) {
            Spread::Random => inputs.below(num_experts) as u32,
            Spread::One => 0,
            Spread::Gaps => (inputs.below(num_experts.div_ceil(3)) * 3) as u32,
        };
        (0..self.num_rows_of_tokens()).map(&mut id).collect()
    }

    fn input_problem(&self) -> grad_input::Problem {
        let Sizes { num_tokens, rows, cols, accumulate, .. } = *self;
        grad_input::Problem { num_tokens, rows, cols, accumulate, sort: self.sort() }
    }

    fn weight_problem(&self) -> grad_weight::Problem {
        let Sizes { num_tokens, rows, cols, accumulate, .. } = *self;
        let experts = self.routed.map(|routed| Experts {
            num_experts: routed.num_experts,
            num_experts_per_tok: routed.top_k,
            by_token: routed.by_token,
            weighted: routed.weighted,
        });
        grad_weight::Problem { num_tokens, rows, cols, accumulate, experts }
    }
}

/// What `expert_sort` would leave: tiles, order, starts.
fn sorted(stage: &Stage, sizes: &Sizes, ids: &[u32]) -> Option<[Buffer; 3]> {
    let (sort, caps) = (sizes.sort()?, stage.device.caps());
    let slots: Vec<u32> = (0..sort.num_experts as u32).collect();
    let sorted = reference::expert_sort::expert_sort(ids, &slots, sort.tile_len(caps), sort.num_tiles(caps));
    let starts = reference::expert_sort::starts(ids, sort.num_experts);
    let [order, starts] = [("order", sorted.order), ("starts", starts)].map(|(name, values)| stage.input(name, &values));
    Some([stage.input("tiles", sorted.tiles.as_flattened()), order, starts])
}

/// An output of `values`, added to what it holds where the case says so. Padding becomes zero either way.
fn result(stage: &Stage, name: &'static str, sizes: &Sizes, mut values: Vec<f32>) -> Output {
    if !sizes.accumulate {
        return stage.output(name, &values, Layout::clearing(sizes.cols));
    }
    let before = Inputs::new(31).floats(values.len(), 1.0);
    values.iter_mut().zip(&before).for_each(|(value, before)| *value += before);
    stage.changed(name, &before, &values, Layout::clear(sizes.cols))
}

impl Problem for Input {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![grad_input::choose(caps, &self.0.input_problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs, sizes) = (Stage { device }, Inputs::new(21), &self.0);
        let dy = inputs.floats(sizes.num_rows_of_tokens() * sizes.rows, 1.0);
        let weight = inputs.weights(sizes.num_experts() * sizes.rows, sizes.cols);
        let (ids, matrix) = (sizes.ids(&mut inputs), sizes.rows * sizes.cols);
        let of_row = |t: usize| &weight[ids[t] as usize * matrix..][..matrix];
        let dx = reference::grad_input::grad_input(&dy, sizes.rows, sizes.cols, of_row);

        let sorted = sorted(&stage, sizes, &ids);
        let dx = result(&stage, "dx", sizes, dx);
        let (dy, weight) = (stage.padded_input("dy", &dy, sizes.rows), stage.padded_input("weight", &weight, sizes.cols));
        let mut recording = Recording::default();
        let sorted = sorted.as_ref().map(|[tiles, order, _]| [tiles, order]);
        let buffers = grad_input::Buffers { dy: &dy, weight: &weight, dx: &dx.buffer, sorted };
        grad_input::record(device, &mut recording, None, &sizes.input_problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![dx] })
    }
}

impl Problem for Weight {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![grad_weight::choose(caps, &self.0.weight_problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs, sizes) = (Stage { device }, Inputs::new(22), &self.0);
        let rows_of = |by_token: bool| if by_token { sizes.num_tokens } else { sizes.num_rows_of_tokens() };
        let by_token = sizes.routed.map(|routed| routed.by_token);
        let dy = inputs.floats(rows_of(by_token != Some(ByToken::X)) * sizes.rows, 1.0);
        let x = inputs.floats(rows_of(by_token != Some(ByToken::Dy)) * sizes.cols, 1.0);
        let weights = inputs.floats(sizes.num_rows_of_tokens(), 1.0);
        let ids = sizes.ids(&mut inputs);
        let dweight: Vec<f32> = (0..sizes.num_experts())
            .flat_map(|expert| {
                let pairs =
                    sizes.routed.map_or_else(|| all_tokens(sizes.num_tokens), |routed| pairs(&routed, &ids, &weights, expert));
                reference::grad_weight::grad_weight([&dy, &x], &pairs, sizes.rows, sizes.cols)
            })
            .collect();

        let sorted = sorted(&stage, sizes, &ids);
        let dweight = result(&stage, "dweight", sizes, dweight);
        let (dy, x) = (stage.padded_input("dy", &dy, sizes.rows), stage.padded_input("x", &x, sizes.cols));
        let weights = sizes.routed.filter(|routed| routed.weighted).map(|_| stage.input("weights", &weights));
        let mut recording = Recording::default();
        let sorted = sorted.as_ref().map(|[_, order, starts]| [starts, order]);
        let buffers = grad_weight::Buffers { dy: &dy, x: &x, dweight: &dweight.buffer, sorted, weights: weights.as_ref() };
        grad_weight::record(device, &mut recording, None, &sizes.weight_problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![dweight] })
    }
}

/// The assignments of one expert.
fn pairs(routed: &Routed, ids: &[u32], weights: &[f32], expert: usize) -> Vec<Pair> {
    let row = |assignment: usize, by_token: bool| if by_token { assignment / routed.top_k } else { assignment };
    let mine = (0..ids.len()).filter(|&assignment| ids[assignment] as usize == expert);
    mine.map(|assignment| Pair {
        dy: row(assignment, routed.by_token == ByToken::Dy),
        x: row(assignment, routed.by_token == ByToken::X),
        weight: if routed.weighted { weights[assignment] } else { 1.0 },
    })
    .collect()
}
