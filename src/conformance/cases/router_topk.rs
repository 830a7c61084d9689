use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem, Tolerance};
use crate::error::Result;
use crate::gating::{RouterSpec, ScoreFunction};
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::router_topk::{self, Buffers};
use crate::reference::router_topk::{Routing, router_topk};

struct Router {
    router: RouterSpec,
    num_tokens: usize,
    logits: Logits,
}

#[derive(Clone, Copy)]
enum Logits {
    Random(f32),
    /// Few different values, minus zero among them.
    Ties,
    AllEqual,
}

const TOLERANCE: Tolerance = Tolerance { max_abs: 5e-6, nmse: 1e-11, why: "an exp of f32, and a sum over the experts" };
/// Rows of the load table, and the one that the layer of the case counts in.
const LOAD_ROWS: usize = 3;
const LOAD_ROW: usize = 1;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |num_experts, num_experts_per_tok, renormalize, num_tokens, logits| {
        let router = RouterSpec { num_experts, num_experts_per_tok, scores: ScoreFunction::Softmax, renormalize };
        let what = match logits {
            Logits::Random(1.0) => String::new(),
            Logits::Random(size) => format!(" logits up to {size:.0e}"),
            Logits::Ties => " ties".to_owned(),
            Logits::AllEqual => " all equal".to_owned(),
        };
        let raw = if renormalize { "" } else { " not renormalised" };
        let name = format!("{num_tokens} tokens, {num_experts_per_tok} of {num_experts}{raw}{what}");
        cases.push(Case::new("router_topk", name, TOLERANCE, Router { router, num_tokens, logits }));
    };
    for (num_experts, top_k) in [(1, 1), (6, 2), (8, 1), (8, 2), (8, 8), (63, 6), (64, 6), (65, 6), (128, 8), (300, 4)] {
        add(num_experts, top_k, true, 5, Logits::Random(1.0));
    }
    add(8, 2, true, 1, Logits::Random(1.0));
    add(8, 2, true, 130, Logits::Random(1.0));
    for renormalize in [true, false] {
        for size in [50.0, 1e4, 1e30] {
            add(64, 6, renormalize, 7, Logits::Random(size));
        }
        add(8, 2, renormalize, 33, Logits::Ties);
        add(8, 8, renormalize, 3, Logits::AllEqual);
        add(300, 5, renormalize, 3, Logits::AllEqual);
    }
    cases
}

impl Router {
    fn problem(&self) -> router_topk::Problem<'_> {
        router_topk::Problem { num_tokens: self.num_tokens, router: &self.router, load_row: LOAD_ROW }
    }

    fn logits(&self, inputs: &mut Inputs) -> Vec<f32> {
        let len = self.num_tokens * self.router.num_experts;
        match self.logits {
            Logits::Random(size) => inputs.floats(len, size),
            Logits::Ties => (0..len).map(|_| [-1.0, -0.0, 0.0, 0.5][inputs.below(4)]).collect(),
            Logits::AllEqual => vec![0.25; len],
        }
    }
}

impl Problem for Router {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![router_topk::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(6));
        let num_experts = self.router.num_experts;
        let logits = self.logits(&mut inputs);
        let slot_table: Vec<u32> = inputs.permutation(num_experts).into_iter().map(|slot| slot + 10).collect();
        let loads_before: Vec<u32> = (0..LOAD_ROWS * num_experts).map(|index| index as u32 * 7).collect();
        let mut loads_after = loads_before.clone();
        let loads = &mut loads_after[LOAD_ROW * num_experts..][..num_experts];
        let Routing { expert_ids, slots, routing_weights } = router_topk(&self.router, &logits, &slot_table, loads);

        let (logits, slot_table) = (stage.input("logits", &logits), stage.input("slot_table", &slot_table));
        let ids = stage.integers("ids", &expert_ids);
        let slots = stage.integers("slots", &slots);
        let weights = stage.output("weights", &routing_weights, Layout::dense(self.router.num_experts_per_tok));
        let loads = stage.changed_integers("loads", &loads_before, &loads_after);
        let buffers = Buffers {
            logits: &logits,
            slot_table: &slot_table,
            ids: &ids.buffer,
            slots: &slots.buffer,
            weights: &weights.buffer,
            loads: &loads.buffer,
        };
        let mut recording = Recording::default();
        router_topk::record(device, &mut recording, Some(0), &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![ids, slots, weights, loads] })
    }
}
