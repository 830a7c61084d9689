//! Routers of a single token where experts may be absent, in one dispatch and in two.

use super::super::inputs::Inputs;
use super::super::stage::{Layout, Output, Prepared, Stage};
use super::super::{Case, Problem, Tolerance};
use super::{fused_norm, normed};
use crate::error::Result;
use crate::gating::{ExpertAt, Normalize, RouterMethod, RouterSpec, RoutingOverride};
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::router_topk::Halting;
use crate::kernels::{router, router_topk};
use crate::quant::{F32, padded};
use crate::reference;
use crate::reference::router_topk::{ABSENT, Halt, Routing, look_up};

struct Halts {
    router: RouterSpec,
    input: Input,
    absent: Absent,
}

/// Where the logits come from.
#[derive(Clone, Copy, PartialEq)]
enum Input {
    /// Another kernel.
    Logits,
    /// A product with the residual stream, or with something else.
    Product { norm: bool },
}

/// What the slot table says of the experts.
#[derive(Clone, Copy)]
enum Absent {
    Nobody,
    /// The expert of this rank.
    Rank(usize),
    /// All that are chosen, and only they.
    Chosen,
    /// An expert that is not chosen.
    Other,
    Everybody,
    /// The best expert has no weights.
    Weightless,
    /// Nobody, but something has halted before.
    Before,
}

const TOLERANCE: Tolerance =
    Tolerance { max_abs: 2e-5, nmse: 1e-10, why: "f32 sums in another order than the twin's f64, and exponentials of them" };
/// In a slot table: an expert without weights.
const WEIGHTLESS: u32 = ABSENT - 1;
const COLS: usize = 96;
/// Values of the residual stream, without its padding.
const STREAM: usize = 150;
const NUM_LAYERS: usize = 5;
const PLACE: usize = 3;
const FAULT_PLACE: usize = 6;
/// Words of the halt record: a header and the faults, the ids of several places, the stream.
const CHOSEN: usize = 4 + NUM_LAYERS + 7;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let absents = [
        ("all present", Absent::Nobody),
        ("the best absent", Absent::Rank(0)),
        ("the last absent", Absent::Rank(usize::MAX)),
        ("all chosen absent", Absent::Chosen),
        ("another absent", Absent::Other),
        ("all absent", Absent::Everybody),
        ("one without weights", Absent::Weightless),
        ("halted before", Absent::Before),
    ];
    for (what, router) in specs() {
        for (kernel, input) in [
            ("router_topk", Input::Logits),
            ("router", Input::Product { norm: true }),
            ("router", Input::Product { norm: false }),
        ] {
            for (absent_name, absent) in absents {
                let norm = if input == (Input::Product { norm: true }) { " norm" } else { "" };
                let name = format!("{what}, {absent_name}{norm}");
                cases.push(Case::new(kernel, name, TOLERANCE, Halts { router: router.clone(), input, absent }));
            }
        }
    }
    cases
}

fn specs() -> Vec<(&'static str, RouterSpec)> {
    let sum = Normalize::Sum { floor: 0.0 };
    let of = |num_experts, top_k| RouterSpec { normalize: sum, ..RouterSpec::new(num_experts, top_k) };
    let sigmoid = RouterSpec { method: RouterMethod::Sigmoid, selection_bias: true, ..of(40, 6) };
    let scaled = RouterSpec { expert_scale: true, bias: true, ..of(16, 4) };
    let mixer = RouterSpec { method: RouterMethod::SparseMixer { jitter: 0.2 }, ..RouterSpec::new(16, 2) };
    let disabled = vec![ExpertAt { expert: 1, layer: None }];
    let change = RoutingOverride { disabled, ..RoutingOverride::default() };
    let changed = change.apply(0, &of(16, 4)).expect("the change fits 16 experts");
    vec![
        ("paged softmax", of(8, 2)),
        ("paged softmax of one", of(65, 1)),
        ("paged sigmoid, selection bias", sigmoid),
        ("paged, bias and factors", scaled),
        ("paged sparse mixer", mixer),
        ("paged, without expert 1", changed),
    ]
}

impl Absent {
    /// `table`, changed for a token that has chosen `ids`.
    fn apply(self, table: &mut [u32], ids: &[u32]) {
        match self {
            Absent::Nobody | Absent::Before => {}
            Absent::Rank(rank) => table[ids[rank.min(ids.len() - 1)] as usize] = ABSENT,
            Absent::Chosen => ids.iter().for_each(|&id| table[id as usize] = ABSENT),
            Absent::Other => {
                let other = (0..table.len()).find(|&expert| !ids.contains(&(expert as u32)));
                table[other.expect("not all experts are chosen")] = ABSENT;
            }
            Absent::Everybody => table.fill(ABSENT),
            Absent::Weightless => table[ids[0] as usize] = WEIGHTLESS,
        }
    }
}

/// The halt record as words.
fn words(halt: &Halt, top_k: usize, canaries: &[u32]) -> Vec<u32> {
    let mut words = canaries.to_vec();
    let header = [u32::from(halt.is_halted), halt.place];
    words[..2].copy_from_slice(&header);
    words[4..4 + NUM_LAYERS].fill(0);
    words[CHOSEN..][..halt.chosen.len()].copy_from_slice(&halt.chosen);
    for (word, value) in words[stream_at(top_k)..].iter_mut().zip(&halt.stream) {
        *word = value.to_bits();
    }
    words
}

fn stream_at(top_k: usize) -> usize {
    (CHOSEN + top_k + 3).next_multiple_of(4)
}

/// What a case runs with, beside the buffers of its input.
struct Bound<'b> {
    choice: router_topk::Buffers<'b>,
    x: &'b [f32],
    norm: Option<&'b [f32]>,
    bias: Option<&'b [f32]>,
}

impl Halts {
    fn top_k(&self) -> usize {
        self.router.num_experts_per_tok
    }

    /// Values of the residual stream: where it is what is normed, it is as wide as that.
    fn stream_len(&self) -> usize {
        if self.input == (Input::Product { norm: true }) { COLS } else { STREAM }
    }

    fn halting(&self) -> Halting {
        let stream_quads = padded(self.stream_len()) / 4;
        Halting { place: PLACE, chosen: CHOSEN, stream: stream_at(self.top_k()), stream_quads }
    }

    fn topk_problem(&self) -> router_topk::Problem<'_> {
        let halting = Some(self.halting());
        router_topk::Problem { num_tokens: 1, router: &self.router, load_offset: 0, fault_place: FAULT_PLACE, halting }
    }

    fn router_problem(&self) -> router::Problem<'_> {
        let norm = fused_norm(self.input == (Input::Product { norm: true }));
        let (halting, quant) = (Some(self.halting()), &F32);
        let (num_tokens, router) = (1, &self.router);
        router::Problem { num_tokens, router, cols: COLS, norm, quant, load_offset: 0, fault_place: FAULT_PLACE, halting }
    }

    /// The record before and after, and whether the kernel chose anything.
    fn outputs(&self, stage: Stage, routing: &Routing, halts: [&Halt; 2]) -> Vec<Output> {
        let is_before = matches!(self.absent, Absent::Before);
        let top_k = self.top_k();
        let canaries: Vec<u32> =
            (0..stream_at(top_k) + padded(self.stream_len())).map(|index| 0x7fc0_0000 + index as u32).collect();
        let [before, after] = halts.map(|halt| words(halt, top_k, &canaries));
        let old_ids: Vec<u32> = (0..top_k as u32).map(|rank| rank + 500).collect();
        let old_weights: Vec<f32> = (0..top_k).map(|rank| rank as f32 + 0.5).collect();
        let ids = if is_before { &old_ids } else { &routing.expert_ids };
        let weights = if is_before { &old_weights } else { &routing.routing_weights };
        vec![
            stage.changed_integers("ids", &old_ids, ids),
            stage.integers("slots", &routing.slots),
            stage.changed("weights", &old_weights, weights, Layout::dense(top_k)),
            stage.changed_integers("halt", &before, &after),
        ]
    }

    fn record(&self, stage: Stage, inputs: &mut Inputs, bound: Bound) -> Result<Recording> {
        let mut recording = Recording::default();
        let Bound { choice, x, norm, bias } = bound;
        if self.input == Input::Logits {
            router_topk::record(stage.device, &mut recording, Some(0), &self.topk_problem(), &choice)?;
            return Ok(recording);
        }
        let weight = inputs.weights(self.router.num_experts, COLS);
        let (weight, _) = stage.weights(&weight, COLS, &F32, super::ONE_SHARD);
        let x = stage.padded_input("x", x, COLS);
        let norm = norm.map(|norm| stage.padded_input("norm", norm, COLS));
        let bias = bias.map(|bias| stage.input("logit_bias", bias));
        let buffers = router::Buffers { x: &x, weight: &weight, norm: norm.as_ref(), bias: bias.as_ref(), choice };
        router::record(stage.device, &mut recording, Some(0), &self.router_problem(), &buffers)?;
        Ok(recording)
    }
}

impl Problem for Halts {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        match self.input {
            Input::Logits => vec![router_topk::choose(caps, &self.topk_problem())],
            Input::Product { .. } => router::choose(caps, &self.router_problem()).into_iter().collect(),
        }
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(23));
        let router = &self.router;
        let num_experts = router.num_experts;
        let x = inputs.floats(COLS, 1.0);
        let norm = (self.input == Input::Product { norm: true }).then(|| inputs.floats(COLS, 1.0));
        let other = inputs.floats(STREAM, 1.0);
        let stream = if norm.is_some() { &x } else { &other };
        let mut vector = |wanted: bool, size: f32| wanted.then(|| inputs.floats(num_experts, size));
        let [bias, selection, scale] =
            [(router.bias, 1.0), (router.selection_bias, 0.5), (router.expert_scale, 2.0)].map(|(is, size)| vector(is, size));
        let mut slot_table: Vec<u32> = inputs.permutation(num_experts).into_iter().map(|slot| slot + 10).collect();
        // The weights are drawn once more where they are uploaded.
        let mut weights_of = Inputs::new(24);
        let weight = weights_of.weights(num_experts, COLS);
        let vectors = [selection.as_deref(), scale.as_deref()];
        let choose = |table: &[u32]| {
            let normed = normed(&x, norm.as_deref());
            reference::router::router(router, [&normed, &weight], bias.as_deref(), vectors, table, &mut vec![0; num_experts])
        };
        let chosen = choose(&slot_table).1.expert_ids;
        self.absent.apply(&mut slot_table, &chosen);
        let (logits, mut routing) = choose(&slot_table);
        let is_halted = matches!(self.absent, Absent::Before);
        let before = Halt { is_halted, place: 1, ..Halt::default() };
        let mut after = before.clone();
        let mut padded_stream = stream.clone();
        padded_stream.resize(padded(stream.len()), 0.0);
        look_up(&mut routing, PLACE as u32, &padded_stream, &mut after);

        let mut outputs = self.outputs(stage, &routing, [&before, &after]);
        let shown =
            (self.input != Input::Logits && !is_halted).then(|| stage.output("logits", &logits, Layout::dense(num_experts)));
        let own_logits = stage.input("logits", &logits);
        let [slot_table, stream] = [stage.input("slot_table", &slot_table), stage.input("stream", &padded_stream)];
        let [selection, scale] = [("selection_bias", selection), ("expert_scale", scale)]
            .map(|(name, values)| values.map(|values| stage.input(name, &values)));
        let [ids, slots, weights, halt] = [0, 1, 2, 3].map(|index| outputs[index].buffer.clone());
        let unused = stage.input("loads", &[0u32; 4]);
        let choice = router_topk::Buffers {
            logits: shown.as_ref().map_or(&own_logits, |shown| &shown.buffer),
            slot_table: &slot_table,
            ids: &ids,
            slots: &slots,
            weights: &weights,
            loads: &unused,
            halt: Some([&halt, &stream]),
            selection_bias: selection.as_ref(),
            expert_scale: scale.as_ref(),
        };
        let bound = Bound { choice, x: &x, norm: norm.as_deref(), bias: bias.as_deref() };
        let recording = self.record(stage, &mut Inputs::new(24), bound)?;
        outputs.extend(shown);
        Ok(Prepared { recording, outputs })
    }
}
