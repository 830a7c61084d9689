use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem, Tolerance};
use super::{SELDOM, THOROUGH, fused_norm, normed};
use crate::error::Result;
use crate::gating::{ExpertAt, ExpertGroups, GroupScore, Normalize, RouterMethod, RouterSpec, RoutingOverride};
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::router::{self, Buffers};
use crate::kernels::router_topk;
use crate::quant::{F32, Quant};
use crate::reference;
use crate::reference::router_topk::Routing;

struct Router {
    router: RouterSpec,
    num_tokens: usize,
    cols: usize,
    norm: bool,
    quant: Quant,
}

const TOLERANCE: Tolerance =
    Tolerance { max_abs: 2e-5, nmse: 1e-10, why: "f32 sums in another order than the twin's f64, and exponentials of them" };

pub fn cases() -> Vec<Case> {
    let sum = Normalize::Sum { floor: 0.0 };
    let of = |num_experts, top_k| RouterSpec { normalize: sum, ..RouterSpec::new(num_experts, top_k) };
    let mut cases = Vec::new();
    let mut add = |what: &str, router: &RouterSpec, num_tokens: usize, cols: usize, norm: bool, quant: Quant| {
        let problem = Router { router: router.clone(), num_tokens, cols, norm, quant };
        let norm = if norm { " norm" } else { "" };
        let RouterSpec { num_experts, num_experts_per_tok, .. } = problem.router;
        let name = format!("{what}, {num_tokens}x{cols} {num_experts_per_tok} of {num_experts} {}{norm}", problem.quant.name);
        cases.push(Case::new("router", name, TOLERANCE, problem));
    };
    // Rows that fill a workgroup, and not; with one more expert than 128 a GPU takes two dispatches, as with several tokens.
    for (num_experts, top_k) in
        [(1, 1), (2, 1), (6, 2), (8, 2), (8, 8), (40, 8), (63, 6), (64, 8), (65, 6), (128, 8), (129, 8), (300, 4)]
    {
        add("softmax", &of(num_experts, top_k), 1, 96, true, &F32);
    }
    for cols in [1, 33, 256, 1120, 2048] {
        add("softmax", &of(16, 2), 1, cols, true, &F32);
        add("softmax", &of(16, 2), 1, cols, false, &F32);
    }
    for quant in THOROUGH[1..].iter().chain(SELDOM) {
        add("softmax", &of(10, 2), 1, 160, true, quant);
    }
    for num_tokens in [2, 9] {
        add("softmax", &of(16, 2), num_tokens, 96, false, &F32);
    }
    for (what, router) in specs(&of) {
        add(&what, &router, 1, 96, true, &F32);
    }
    cases
}

fn specs(of: &dyn Fn(usize, usize) -> RouterSpec) -> Vec<(String, RouterSpec)> {
    let groups = Some(ExpertGroups { num_groups: 4, num_kept: 2, score: GroupScore::SumOfTopTwo });
    let at = |expert| ExpertAt { expert, layer: None };
    let change = RoutingOverride {
        disabled: vec![at(1), at(15)],
        forced: Some(at(3)),
        temperature: Some(0.5),
        ..RoutingOverride::default()
    };
    vec![
        ("bias".to_owned(), RouterSpec { bias: true, ..of(32, 4) }),
        ("bias, times 0.25, capped".to_owned(), RouterSpec { bias: true, logit_scale: 0.25, softcap: Some(2.0), ..of(16, 4) }),
        ("softmax of the chosen".to_owned(), RouterSpec { method: RouterMethod::SoftmaxOfTopK, ..of(16, 4) }),
        ("sparse mixer".to_owned(), RouterSpec { method: RouterMethod::SparseMixer { jitter: 0.01 }, ..of(16, 2) }),
        (
            "sigmoid, groups, selection bias, factors".to_owned(),
            RouterSpec { method: RouterMethod::Sigmoid, groups, selection_bias: true, expert_scale: true, ..of(32, 4) },
        ),
        (change.to_string(), change.apply(0, &of(16, 4)).expect("the change fits 16 experts")),
    ]
}

impl Router {
    fn problem(&self) -> router::Problem<'_> {
        let Router { ref router, num_tokens, cols, norm, quant } = *self;
        router::Problem {
            num_tokens,
            router,
            cols,
            norm: fused_norm(norm),
            quant,
            load_offset: router.num_experts,
            fault_place: 0,
            halting: None,
        }
    }
}

impl Problem for Router {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        router::choose(caps, &self.problem()).into_iter().collect()
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(11));
        let Router { ref router, num_tokens, cols, quant, .. } = *self;
        let num_experts = router.num_experts;
        let x = inputs.floats(num_tokens * cols, 1.0);
        let weight = inputs.weights(num_experts, cols);
        let (weight, stored) = stage.weights(&weight, cols, quant, super::ONE_SHARD);
        let norm = self.norm.then(|| inputs.floats(cols, 1.0));
        let mut vector = |wanted: bool, size: f32| wanted.then(|| inputs.floats(num_experts, size));
        let [bias, selection_bias, expert_scale] =
            [vector(router.bias, 1.0), vector(router.selection_bias, 0.5), vector(router.expert_scale, 2.0)];
        let slot_table: Vec<u32> = inputs.permutation(num_experts).into_iter().map(|slot| slot + 10).collect();
        let loads_before: Vec<u32> = (0..2 * num_experts).map(|index| index as u32 * 7).collect();
        let mut loads_after = loads_before.clone();
        let (logits, Routing { expert_ids, slots, routing_weights }) = reference::router::router(
            router,
            [&normed(&x, norm.as_deref()), &stored],
            bias.as_deref(),
            [selection_bias.as_deref(), expert_scale.as_deref()],
            &slot_table,
            &mut loads_after[num_experts..],
        );

        let x = stage.padded_input("x", &x, cols);
        let norm = norm.map(|norm| stage.padded_input("norm", &norm, cols));
        let slot_table = stage.input("slot_table", &slot_table);
        let [bias, selection_bias, expert_scale] =
            [("logit_bias", bias), ("selection_bias", selection_bias), ("expert_scale", expert_scale)]
                .map(|(name, values)| values.map(|values| stage.input(name, &values)));
        let logits = stage.output("logits", &logits, Layout::dense(num_experts));
        let ids = stage.integers("ids", &expert_ids);
        let slots = stage.integers("slots", &slots);
        let weights = stage.output("weights", &routing_weights, Layout::dense(router.num_experts_per_tok));
        let loads = stage.changed_integers("loads", &loads_before, &loads_after);
        let choice = router_topk::Buffers {
            logits: &logits.buffer,
            slot_table: &slot_table,
            ids: &ids.buffer,
            slots: &slots.buffer,
            weights: &weights.buffer,
            loads: &loads.buffer,
            halt: None,
            selection_bias: selection_bias.as_ref(),
            expert_scale: expert_scale.as_ref(),
        };
        let buffers = Buffers { x: &x, weight: &weight, norm: norm.as_ref(), bias: bias.as_ref(), choice };
        let mut recording = Recording::default();
        router::record(device, &mut recording, Some(0), &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![logits, ids, slots, weights, loads] })
    }
}
