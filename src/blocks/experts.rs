//! A router, the experts it chooses from, and the expert that every token uses.

use super::HostOutput;
use super::host::{HostExperts, HostPass};
use super::recorder::{Input, Normed, Projection, Recorder, Target};
use super::taps::RouterOutput;
use crate::batch::LayerRouting;
use crate::error::Result;
use crate::gating::{RouterSpec, WeightOn};
use crate::gpu::Buffer;
use crate::kernels::expert_gate_up::{Problem, Routing};
use crate::kernels::{
    expert_combine, expert_down, expert_gate_up, expert_identity, expert_sort, matmul, router, router_attention, router_topk,
};
use crate::quant::padded;
use crate::reference::expert_combine::expert_combine as combine_twin;
use crate::reference::expert_identity::expert_identity as identity_twin;
use crate::reference::matmul::{add_bias, matmul as matmul_twin};
use crate::reference::norm::norm as norm_twin;
use crate::reference::router::finish_logits;
use crate::reference::router_attention::router_attention as router_attention_twin;
use crate::reference::router_topk::{Routing as Chosen, router_topk as topk_twin};
use crate::spec::{MlpSpec, MoeSpec, NormSpec, Role, SharedSpec};

const ROLES: [Role; 2] = [Role::ExpertGateUp, Role::ExpertDown];
const SHARED_ROLES: [Role; 2] = [Role::SharedGateUp, Role::SharedDown];

/// `target += sum of weight * expert(input) + shared(input)`
pub(super) fn record(recorder: &mut Recorder, spec: &MoeSpec) -> Result<()> {
    let target = recorder.open()?;
    add_experts(recorder, spec, "x", &target)
}

/// As [`record`], where a router with a norm of its own reads `stream`.
pub(super) fn add_experts(recorder: &mut Recorder, spec: &MoeSpec, stream: &'static str, target: &Target) -> Result<()> {
    if spec.router.identity_experts > 0 || spec.shared.is_some() {
        // Experts without weights give back what is normed, and a shared expert reads it after the others have changed the stream.
        recorder.normed_input()?;
    }
    let routed = RouterBuffers::of_experts(recorder, &spec.router);
    choose(recorder, spec, stream, &routed)?;
    let RouterSpec { num_experts, num_experts_per_tok, weight_on, .. } = spec.router;
    if spec.router.identity_experts > 0 && !recorder.pass.is_decode() {
        // No slab writes what an expert without weights gives, and its weight multiplies whatever is there.
        let outputs = recorder.scratch("expert_output", num_experts_per_tok * padded(recorder.model.hidden_size));
        recorder.recording.clear(&outputs);
    }
    recorder.begin_experts(&routed.output.ids, &routed.slots);
    let sorted = match recorder.pass.is_decode() {
        true => None,
        false => Some(sort(recorder, &spec.router, Role::Router, &routed.output.ids)?),
    };
    let routing = match &sorted {
        Some([tiles, order]) => Routing::Sorted { tiles, order },
        None => Routing::Direct { slots: &routed.slots },
    };
    let weights = &routed.output.weights;
    let assigned = Assigned { num_experts, num_experts_per_tok, weight_on, weights, routing };
    compute(recorder, (&spec.expert, ROLES), &assigned, target)?;
    recorder.end_experts();
    combine(recorder, &assigned, target)?;
    add_identity(recorder, &spec.router, &routed.output, target)?;
    if let Some(shared) = &spec.shared {
        add_shared(recorder, shared, target)?;
    }
    recorder.add_bias(recorder.vector(Role::FfnBias), target)
}

/// What a router writes, and the cache slots of the experts that it chose.
pub(super) struct RouterBuffers {
    pub output: RouterOutput,
    pub slots: Buffer,
    /// The residual stream, which a router keeps that halts.
    stream: Buffer,
}

impl RouterBuffers {
    /// What the next router may overwrite.
    pub fn in_scratch(recorder: &mut Recorder, router: &RouterSpec) -> Self {
        RouterBuffers {
            output: RouterOutput {
                logits: recorder.scratch("router_logits", router.num_experts),
                ids: recorder.scratch("expert_ids", router.num_experts_per_tok),
                weights: recorder.scratch("routing_weights", router.num_experts_per_tok),
            },
            slots: recorder.scratch("slots", router.num_experts_per_tok),
            stream: recorder.x(),
        }
    }

    /// What a router of a single token writes stays where it is kept.
    fn of_experts(recorder: &mut Recorder, router: &RouterSpec) -> Self {
        let buffers = Self::in_scratch(recorder, router);
        match recorder.pass.keeps_routing && recorder.pass.is_decode() {
            true => RouterBuffers { output: recorder.taps().single.clone(), ..buffers },
            false => buffers,
        }
    }
}

/// The assignments of a batch by expert: tiles and order.
pub(super) fn sort(recorder: &mut Recorder, router: &RouterSpec, role: Role, ids: &Buffer) -> Result<[Buffer; 2]> {
    let num_assignments = recorder.pass.num_tokens * router.num_experts_per_tok;
    let problem = expert_sort::Problem { num_assignments, num_experts: router.num_experts };
    let tiles = recorder.arena.whole("tiles", problem.max_tiles() * 4);
    let order = recorder.scratch("order", router.num_experts_per_tok);
    let buffers = expert_sort::Buffers { ids, slot_table: recorder.slot_table(role), tiles: &tiles, order: &order, starts: None };
    expert_sort::record(recorder.device, &mut recorder.recording, Some(recorder.layer), &problem, &buffers)?;
    Ok([tiles, order])
}

/// `target += ` what experts without weights give back.
fn add_identity(recorder: &mut Recorder, router: &RouterSpec, routed: &RouterOutput, target: &Target) -> Result<()> {
    if router.identity_experts == 0 {
        return Ok(());
    }
    let problem = expert_identity::Problem {
        num_tokens: recorder.pass.num_tokens,
        num_experts_per_tok: router.num_experts_per_tok,
        num_weighted: router.num_weighted(),
        hidden_size: recorder.model.hidden_size,
        scale: target.scale,
    };
    let input = recorder.input().x;
    let buffers = expert_identity::Buffers { input: &input, ids: &routed.ids, weights: &routed.weights, x: &target.buffer };
    expert_identity::record(recorder.device, &mut recorder.recording, Some(recorder.layer), &problem, &buffers)
}

/// Router logits, and the experts and weights of each token.
fn choose(recorder: &mut Recorder, spec: &MoeSpec, stream: &'static str, routed: &RouterBuffers) -> Result<()> {
    let num_tokens = recorder.pass.num_tokens;
    let mut input = recorder.input();
    if let (Some(eps), Some(weight)) = (spec.router.input_norm, recorder.vector(Role::RouterNorm)) {
        let (x, y, layer) = (recorder.stream(stream), recorder.stream("router_input"), Some(recorder.layer));
        let (norm, num_rows) = (NormSpec::rms(eps), num_tokens);
        recorder.norm(layer, &Normed { norm, weight, x: &x, y: &y, first_row: 0, num_rows, residual: None, rescale: None })?;
        input = Input { x: y, norm: None, ..input };
    }
    if let (Some(first), Some(width)) = (recorder.find_matrix(Role::RouterHidden), spec.router.hidden) {
        let hidden = recorder.scratch("router_hidden", padded(width));
        recorder.project(&Projection { output: matmul::Output::Tanh, ..Projection::new(first, &input, &hidden) })?;
        input = Input::plain(hidden, width);
    }
    let taps = recorder.taps();
    if spec.router.attention {
        choose_by_attention(recorder, &spec.router, &input, routed)?;
    } else {
        route(recorder, (&spec.router, Role::Router), &input, (routed, taps.load_offset))?;
    }
    // Those of a single token wait for the end of the pass: a copy between dispatches costs as much as some of them.
    if recorder.pass.keeps_routing && !recorder.pass.is_decode() {
        taps.keep(&routed.output, &recorder.memory.tap_values, num_tokens, &mut recorder.recording);
    }
    Ok(())
}

/// A router whose logits are the attention of each expert to all of them.
fn choose_by_attention(recorder: &mut Recorder, router: &RouterSpec, input: &Input, routed: &RouterBuffers) -> Result<()> {
    let (num_tokens, layer, device) = (recorder.pass.num_tokens, Some(recorder.layer), recorder.device);
    let qkv = recorder.scratch("router_hidden", padded(router.rows()));
    recorder.project(&Projection::new(recorder.matrix(Role::Router), input, &qkv))?;
    let problem = router_attention::Problem { num_tokens, num_experts: router.num_experts };
    let buffers = router_attention::Buffers { qkv: &qkv, logits: &routed.output.logits };
    router_attention::record(device, &mut recorder.recording, layer, &problem, &buffers)?;
    let (load_offset, halting) = (recorder.taps().load_offset, recorder.halting(Role::Router));
    let fault_place = recorder.fault_place(Role::Router);
    let problem = router_topk::Problem { num_tokens, router, load_offset, fault_place, halting };
    let buffers = topk_buffers(recorder, Role::Router, routed);
    router_topk::record(device, &mut recorder.recording, layer, &problem, &buffers)
}

/// What a router makes of its input: logits, the best experts of each token and their weights. Experts are counted from `load_offset` on.
pub(super) fn route(
    recorder: &mut Recorder,
    (router, role): (&RouterSpec, Role),
    input: &Input,
    (routed, load_offset): (&RouterBuffers, usize),
) -> Result<()> {
    let matrix = recorder.matrix(role);
    let problem = router::Problem {
        num_tokens: recorder.pass.num_tokens,
        router,
        cols: input.cols,
        norm: input.norm.map(|norm| norm.fused),
        quant: matrix.quant,
        load_offset,
        fault_place: recorder.fault_place(role),
        halting: recorder.halting(role),
    };
    let bias = recorder.vector(Role::RouterBias).filter(|_| role == Role::Router);
    let norm = input.norm.map(|norm| norm.weight);
    let choice = topk_buffers(recorder, role, routed);
    let buffers = router::Buffers { x: &input.x, weight: &matrix.shards, norm, bias, choice };
    router::record(recorder.device, &mut recorder.recording, Some(recorder.layer), &problem, &buffers)
}

fn topk_buffers<'b>(recorder: &Recorder<'b>, role: Role, routed: &'b RouterBuffers) -> router_topk::Buffers<'b> {
    let vector = |own: Role| recorder.vector(own).filter(|_| role == Role::Router);
    router_topk::Buffers {
        logits: &routed.output.logits,
        slot_table: recorder.slot_table(role),
        ids: &routed.output.ids,
        slots: &routed.slots,
        weights: &routed.output.weights,
        loads: &recorder.memory.loads,
        halt: recorder.halt_record(role).map(|record| [&record.buffer, &routed.stream]),
        selection_bias: vector(Role::SelectionBias),
        expert_scale: vector(Role::ExpertScale),
    }
}

fn add_shared(recorder: &mut Recorder, spec: &SharedSpec, target: &Target) -> Result<()> {
    let own = |weights| Everyone { spec: &spec.mlp, roles: SHARED_ROLES, weights, target };
    let Some(gate) = recorder.find_matrix(Role::SharedGate) else {
        let ones = &recorder.memory.ones;
        return everyone(recorder, &own(ones));
    };
    let (input, weights) = (recorder.input(), recorder.scratch("shared_weights", 1));
    let output = matmul::Output::Sigmoid;
    recorder.project(&Projection { output, y_stride: 1, ..Projection::new(gate, &input, &weights) })?;
    everyone(recorder, &own(&weights))
}

/// An MLP for all tokens.
pub(super) struct Everyone<'b> {
    pub spec: &'b MlpSpec,
    /// Of gate and up together, and of down.
    pub roles: [Role; 2],
    /// `[num_tokens]`, what multiplies its output.
    pub weights: &'b Buffer,
    pub target: &'b Target,
}

/// `target += weight * mlp(input)`
pub(super) fn everyone(recorder: &mut Recorder, own: &Everyone) -> Result<()> {
    let known = recorder.known_routing();
    let routing = match &known {
        Some([tiles, order]) => Routing::Sorted { tiles, order },
        None => Routing::Direct { slots: &recorder.memory.zeros },
    };
    let weight_on = WeightOn::Output;
    let assigned = Assigned { num_experts: 1, num_experts_per_tok: 1, weight_on, weights: own.weights, routing };
    compute(recorder, (own.spec, own.roles), &assigned, own.target)?;
    combine(recorder, &assigned, own.target)
}

/// Which experts the tokens go to, and with which weight.
struct Assigned<'b> {
    num_experts: usize,
    num_experts_per_tok: usize,
    weight_on: WeightOn,
    weights: &'b Buffer,
    routing: Routing<'b>,
}

/// What the experts of each assignment give: of a single token added to the target, of a batch kept for [`combine`].
fn compute(
    recorder: &mut Recorder,
    (spec, [gate_up, down]): (&MlpSpec, [Role; 2]),
    assigned: &Assigned,
    target: &Target,
) -> Result<()> {
    let Assigned { num_experts, num_experts_per_tok, weight_on, weights, routing } = *assigned;
    let (device, layer, hidden_size) = (recorder.device, Some(recorder.layer), recorder.model.hidden_size);
    let (gate_up, down) = (recorder.slabs(gate_up), recorder.slabs(down));
    let input = recorder.input();
    let h = recorder.scratch("h", num_experts_per_tok * padded(spec.intermediate_size));
    let problem = Problem {
        num_tokens: recorder.pass.num_tokens,
        num_experts,
        num_experts_per_tok,
        hidden_size,
        intermediate_size: spec.intermediate_size,
        activation: spec.activation,
        weight_on,
        scale: target.scale,
        norm: input.norm.map(|norm| norm.fused),
        quant: gate_up.shape.quant,
    };
    let norm = input.norm.map(|norm| norm.weight);
    let buffers = expert_gate_up::Buffers { x: &input.x, routing, weights, norm, h: &h, gate_up: None, slabs: gate_up };
    expert_gate_up::record(device, &mut recorder.recording, layer, &problem, &buffers)?;

    let problem = Problem { quant: down.shape.quant, ..problem };
    if !routing.is_sorted() {
        let buffers = expert_down::Buffers { h: &h, routing, weights, y: &target.buffer, slabs: down };
        return expert_down::record(device, &mut recorder.recording, layer, &problem, &buffers);
    }
    let outputs = recorder.scratch("expert_output", num_experts_per_tok * padded(hidden_size));
    let buffers = expert_down::Buffers { h: &h, routing, weights, y: &outputs, slabs: down };
    expert_down::record(device, &mut recorder.recording, layer, &problem, &buffers)
}

/// `target += ` what [`compute`] kept.
fn combine(recorder: &mut Recorder, assigned: &Assigned, target: &Target) -> Result<()> {
    let Assigned { num_experts_per_tok, weight_on, weights, routing, .. } = *assigned;
    if !routing.is_sorted() {
        return Ok(());
    }
    let (device, layer, hidden_size) = (recorder.device, Some(recorder.layer), recorder.model.hidden_size);
    let outputs = recorder.scratch("expert_output", num_experts_per_tok * padded(hidden_size));
    let (num_tokens, scale) = (recorder.pass.num_tokens, target.scale);
    let problem = expert_combine::Problem { num_tokens, num_experts_per_tok, hidden_size, weight_on, scale };
    let buffers = expert_combine::Buffers { y: &outputs, weights, x: &target.buffer };
    expert_combine::record(device, &mut recorder.recording, layer, &problem, &buffers)
}

/// `[n, hidden]`, and what the router did.
pub(super) fn reference(spec: &MoeSpec, pass: &HostPass) -> HostOutput {
    let (mut y, routing) = route_and_run(spec, pass, [&pass.normed, pass.x]);
    if let Some(bias) = pass.find(Role::FfnBias) {
        add_bias(&mut y, bias);
    }
    HostOutput { routing: Some(routing), ..HostOutput::plain(y) }
}

/// `experts(x)`, where a router with a norm of its own reads the `stream`, and what the router did.
pub(super) fn route_and_run(spec: &MoeSpec, pass: &HostPass, [x, stream]: [&[f32]; 2]) -> (Vec<f32>, LayerRouting) {
    let (num_experts, top_k) = (spec.router.num_experts, spec.router.num_experts_per_tok);
    let router_logits = router_logits(spec, pass, [x, stream]);
    // Every expert is resident in the slot of its own number.
    let slot_table: Vec<u32> = (0..num_experts as u32).collect();
    let mut loads = vec![0; num_experts];
    let vectors = [Role::SelectionBias, Role::ExpertScale].map(|role| pass.find(role));
    let Chosen { expert_ids, slots, routing_weights } = topk_twin(&spec.router, &router_logits, vectors, &slot_table, &mut loads);

    let of = |role: Role| pass.of_experts(role, spec.router.num_weighted());
    let experts = HostExperts {
        spec: &spec.expert,
        gate_up: of(Role::ExpertGateUp),
        gate_up_bias: of(Role::ExpertGateUpBias),
        down: of(Role::ExpertDown),
        down_bias: of(Role::ExpertDownBias),
        hidden_size: pass.model.hidden_size,
    };
    let mut y = vec![0.0; x.len()];
    if spec.router.weight_on == WeightOn::Input {
        let outputs = experts.run(x, &slots, top_k, Some(&routing_weights));
        combine_twin(&outputs, &vec![1.0; slots.len()], top_k, &mut y);
    } else {
        combine_twin(&experts.run(x, &slots, top_k, None), &routing_weights, top_k, &mut y);
    }
    identity_twin(x, (&expert_ids, &routing_weights), spec.router.num_weighted(), top_k, &mut y);
    if let Some(shared) = &spec.shared {
        pass.run_for_all(&shared.mlp, SHARED_ROLES, x, &mut y);
    }
    (y, LayerRouting { layer: pass.layer, router_logits, expert_ids, routing_weights })
}

/// `[num_tokens, num_experts]`, as the router chooses by them. A router with a norm of its own reads the `stream`.
fn router_logits(spec: &MoeSpec, pass: &HostPass, [x, stream]: [&[f32]; 2]) -> Vec<f32> {
    let hidden_size = pass.model.hidden_size;
    let last = pass.weight(Role::Router);
    let own = spec.router.input_norm.map(|eps| norm_twin(&NormSpec::rms(eps), stream, pass.weight(Role::RouterNorm)));
    let x = own.as_deref().unwrap_or(x);
    let mut logits = match (spec.router.hidden, pass.find(Role::RouterHidden)) {
        (Some(width), Some(first)) => {
            let hidden: Vec<f32> = matmul_twin(x, first, hidden_size).iter().map(|x| f64::from(*x).tanh() as f32).collect();
            matmul_twin(&hidden, last, width)
        }
        _ => matmul_twin(x, last, hidden_size),
    };
    if spec.router.attention {
        logits = router_attention_twin(&logits, spec.router.num_experts);
    }
    finish_logits(&spec.router, &mut logits, pass.find(Role::RouterBias));
    logits
}
