use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem, Tolerance};
use crate::error::Result;
use crate::gating::{ExpertAt, ExpertGroups, GroupScore, Normalize, RouterMethod, RouterSpec, RoutingOverride};
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
const POWERS: Tolerance = Tolerance { max_abs: 2e-5, nmse: 1e-10, why: "powers, that WGSL allows to be off like exp2(p log2 x)" };
/// Rows of the load table, and the one that the layer of the case counts in.
const LOAD_ROWS: usize = 3;
const LOAD_ROW: usize = 1;
const SUM: Normalize = Normalize::Sum { floor: 0.0 };

pub fn cases() -> Vec<Case> {
    let mut cases = softmax_cases();
    for (name, router) in specs() {
        for (num_tokens, logits) in
            [(1, Logits::Random(2.0)), (33, Logits::Random(2.0)), (33, Logits::Ties), (3, Logits::AllEqual)]
        {
            cases.push(case(&name, Router { router: router.clone(), num_tokens, logits }));
        }
    }
    // Scores that an f32 rounds to zero or one, all of them.
    let far = Logits::Random(1e4);
    for method in [RouterMethod::Sigmoid, RouterMethod::SoftmaxOfTopK, RouterMethod::SparseMixer { jitter: 0.01 }] {
        let router = RouterSpec { method, ..RouterSpec::new(64, 2) };
        cases.push(case(&format!("{method:?}"), Router { router, num_tokens: 33, logits: far }));
    }
    let groups = Some(ExpertGroups { num_groups: 8, num_kept: 3, score: GroupScore::Max });
    let router = RouterSpec { groups, ..RouterSpec::new(64, 6) };
    cases.push(case("best groups", Router { router, num_tokens: 33, logits: far }));
    for (name, router) in changed_specs() {
        for logits in [Logits::Random(2.0), Logits::Ties, Logits::AllEqual] {
            cases.push(case(&name, Router { router: router.clone(), num_tokens: 33, logits }));
        }
    }
    cases
}

/// What a person may change about each kind of router.
fn changed_specs() -> Vec<(String, RouterSpec)> {
    let method = |method| RouterSpec { method, normalize: SUM, ..RouterSpec::new(64, 6) };
    let groups = Some(ExpertGroups { num_groups: 8, num_kept: 3, score: GroupScore::SumOfTopTwo });
    let routers = [
        ("softmax", method(RouterMethod::Softmax)),
        ("softmax, not renormalised", RouterSpec { normalize: Normalize::No, ..method(RouterMethod::Softmax) }),
        ("softmax of the chosen", RouterSpec { normalize: Normalize::No, ..method(RouterMethod::SoftmaxOfTopK) }),
        ("sigmoid with bias and groups", RouterSpec { selection_bias: true, groups, ..method(RouterMethod::Sigmoid) }),
        ("sparse mixer", RouterSpec { method: RouterMethod::SparseMixer { jitter: 0.2 }, ..RouterSpec::new(64, 2) }),
    ];
    let at = |expert| ExpertAt { expert, layer: None };
    // The groups of the last four are empty, one of the rest has one expert left.
    let many: Vec<ExpertAt> = (0..7).chain(32..64).map(at).collect();
    let changes = [
        RoutingOverride { disabled: vec![at(0), at(31), at(63)], ..RoutingOverride::default() },
        RoutingOverride { disabled: many, ..RoutingOverride::default() },
        RoutingOverride { forced: Some(at(63)), ..RoutingOverride::default() },
        RoutingOverride {
            forced: Some(at(0)),
            disabled: vec![at(1), at(33)],
            experts_per_token: Some(1),
            temperature: Some(0.25),
        },
        RoutingOverride { experts_per_token: Some(11), temperature: Some(4.0), ..RoutingOverride::default() },
        RoutingOverride { temperature: Some(0.01), ..RoutingOverride::default() },
    ];
    let mut specs = Vec::new();
    for (name, router) in routers {
        for change in &changes {
            let changed = change.apply(0, &router).expect("the changes above fit routers of 64 experts");
            let without = change.disabled.len();
            let shown = if without > 3 { format!("without {without} experts") } else { change.to_string() };
            specs.push((format!("{name}, {shown}"), changed));
        }
    }
    specs
}

fn softmax_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |num_experts, num_experts_per_tok, normalize, num_tokens, logits| {
        let router = RouterSpec { normalize, ..RouterSpec::new(num_experts, num_experts_per_tok) };
        let name = if normalize == SUM { "softmax" } else { "softmax, not renormalised" };
        cases.push(case(name, Router { router, num_tokens, logits }));
    };
    for (num_experts, top_k) in [(1, 1), (6, 2), (8, 1), (8, 2), (8, 8), (63, 6), (64, 6), (65, 6), (128, 8), (300, 4)] {
        add(num_experts, top_k, SUM, 5, Logits::Random(1.0));
    }
    add(8, 2, SUM, 1, Logits::Random(1.0));
    add(8, 2, SUM, 130, Logits::Random(1.0));
    // As many as a spec may have.
    add(1024, 1024, SUM, 1, Logits::Random(1.0));
    for normalize in [SUM, Normalize::No] {
        for size in [50.0, 1e4, 1e30] {
            add(64, 6, normalize, 7, Logits::Random(size));
        }
        add(8, 2, normalize, 33, Logits::Ties);
        add(8, 8, normalize, 3, Logits::AllEqual);
        add(300, 5, normalize, 3, Logits::AllEqual);
    }
    cases
}

/// What a spec can say besides a plain softmax, by name.
fn specs() -> Vec<(String, RouterSpec)> {
    let usual = RouterSpec::new(64, 6);
    let mut specs = vec![
        ("softmax of the chosen".to_owned(), RouterSpec { method: RouterMethod::SoftmaxOfTopK, ..RouterSpec::new(32, 4) }),
        ("softmax of the only one".to_owned(), RouterSpec { method: RouterMethod::SoftmaxOfTopK, ..RouterSpec::new(16, 1) }),
        ("sigmoid of the only one".to_owned(), RouterSpec { method: RouterMethod::Sigmoid, ..RouterSpec::new(16, 1) }),
    ];
    for jitter in [0.01, 0.2] {
        let method = RouterMethod::SparseMixer { jitter };
        specs.push((format!("sparse mixer, jitter {jitter}"), RouterSpec { method, ..RouterSpec::new(16, 2) }));
        specs.push((
            format!("sparse mixer, jitter {jitter}, times 2.5"),
            RouterSpec { method, scale: 2.5, ..RouterSpec::new(16, 2) },
        ));
    }
    let groups = Some(ExpertGroups { num_groups: 8, num_kept: 3, score: GroupScore::SumOfTopTwo });
    specs.push(("groups of one".to_owned(), RouterSpec { groups, ..RouterSpec::new(8, 3) }));
    for method in [RouterMethod::Softmax, RouterMethod::Sigmoid] {
        // The sum of the chosen is below the floor for neither, some and all of the tokens.
        for normalize in [
            Normalize::No,
            SUM,
            Normalize::Sum { floor: 1e-20 },
            Normalize::Sum { floor: 0.35 },
            Normalize::Sum { floor: 8.0 },
            Normalize::Norm { p: 1.0 },
            Normalize::Norm { p: 2.0 },
        ] {
            let router = RouterSpec { method, normalize, scale: 2.5, ..usual.clone() };
            specs.push((format!("{method:?} {normalize:?} times 2.5"), router));
        }
        let biased = RouterSpec { method, selection_bias: true, normalize: SUM, ..usual.clone() };
        specs.push((format!("{method:?}, selection bias"), biased.clone()));
        for score in [GroupScore::Max, GroupScore::SumOfTopTwo] {
            for num_kept in [1, 3, 8] {
                let groups = Some(ExpertGroups { num_groups: 8, num_kept, score });
                let name = format!("{method:?}, {num_kept} of 8 groups by {score:?}");
                specs.push((format!("{name}, selection bias"), RouterSpec { groups, ..biased.clone() }));
                specs.push((name, RouterSpec { method, groups, ..usual.clone() }));
            }
        }
    }
    let method = RouterMethod::SoftmaxOfTopK;
    for normalize in [SUM, Normalize::Sum { floor: 8.0 }, Normalize::Norm { p: 2.0 }] {
        let router = RouterSpec { method, normalize, scale: 2.5, ..usual.clone() };
        specs.push((format!("softmax of the chosen, {normalize:?} times 2.5"), router));
    }
    let scaled = RouterSpec { expert_scale: true, normalize: SUM, ..usual.clone() };
    specs.push(("factors of the experts".to_owned(), scaled.clone()));
    specs.push(("factors of the experts, selection bias".to_owned(), RouterSpec { selection_bias: true, ..scaled }));
    specs.push(("softmax of the chosen, selection bias".to_owned(), RouterSpec { method, selection_bias: true, ..usual }));
    specs
}

fn case(what: &str, problem: Router) -> Case {
    let RouterSpec { num_experts, num_experts_per_tok, normalize, .. } = problem.router;
    let logits = match problem.logits {
        Logits::Random(size) if size <= 2.0 => String::new(),
        Logits::Random(size) => format!(", logits up to {size:.0e}"),
        Logits::Ties => ", ties".to_owned(),
        Logits::AllEqual => ", all equal".to_owned(),
    };
    let name = format!("{what}, {} tokens, {num_experts_per_tok} of {num_experts}{logits}", problem.num_tokens);
    let tolerance = if matches!(normalize, Normalize::Norm { .. }) { POWERS } else { TOLERANCE };
    Case::new("router_topk", name, tolerance, problem)
}

impl Router {
    fn problem(&self) -> router_topk::Problem<'_> {
        let load_offset = LOAD_ROW * self.router.num_experts;
        let (num_tokens, router) = (self.num_tokens, &self.router);
        router_topk::Problem { num_tokens, router, load_offset, fault_place: 0, halting: None }
    }

    fn logits(&self, inputs: &mut Inputs) -> Vec<f32> {
        let len = self.num_tokens * self.router.num_experts;
        match self.logits {
            Logits::Random(size) => inputs.floats(len, size),
            Logits::Ties => (0..len).map(|_| [-1.0, -0.0, 0.0, 0.5][inputs.below(4)]).collect(),
            Logits::AllEqual => vec![0.25; len],
        }
    }

    /// Large enough to change most choices; few different values where ties are the point.
    fn selection_bias(&self, inputs: &mut Inputs) -> Option<Vec<f32>> {
        let one = |inputs: &mut Inputs| match self.logits {
            Logits::Random(_) => 0.5 * inputs.float(),
            Logits::Ties | Logits::AllEqual => [0.0, 0.25][inputs.below(2)],
        };
        self.router.selection_bias.then(|| (0..self.router.num_experts).map(|_| one(inputs)).collect())
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
        let bias = self.selection_bias(&mut inputs);
        let scale = self.router.expert_scale.then(|| inputs.floats(num_experts, 2.0));
        let slot_table: Vec<u32> = inputs.permutation(num_experts).into_iter().map(|slot| slot + 10).collect();
        let loads_before: Vec<u32> = (0..LOAD_ROWS * num_experts).map(|index| index as u32 * 7).collect();
        let mut loads_after = loads_before.clone();
        let loads = &mut loads_after[LOAD_ROW * num_experts..][..num_experts];
        let Routing { expert_ids, slots, routing_weights } =
            router_topk(&self.router, &logits, [bias.as_deref(), scale.as_deref()], &slot_table, loads);

        let (logits, slot_table) = (stage.input("logits", &logits), stage.input("slot_table", &slot_table));
        let bias = bias.map(|bias| stage.input("selection_bias", &bias));
        let scale = scale.map(|scale| stage.input("expert_scale", &scale));
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
            halt: None,
            selection_bias: bias.as_ref(),
            expert_scale: scale.as_ref(),
        };
        let mut recording = Recording::default();
        router_topk::record(device, &mut recording, Some(0), &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![ids, slots, weights, loads] })
    }
}
