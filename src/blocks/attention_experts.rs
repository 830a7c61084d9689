//! Attention whose query and output projections a router chooses.

use super::HostOutput;
use super::attention::{self as heads, OverCache};
use super::experts::{RouterBuffers, route, sort};
use super::host::{HostBlock, HostPass};
use super::recorder::{Placed, Recorder};
use super::taps::RouterOutput;
use crate::batch::LayerRouting;
use crate::batch::regroup::{Regroup, Strides};
use crate::error::Result;
use crate::gating::{RouterSpec, WeightOn};
use crate::gpu::Buffer;
use crate::kernels::expert_gate_up::{Problem, Routing};
use crate::kernels::{Slabs, expert_combine, expert_down};
use crate::quant::padded;
use crate::reference::attention as attention_twin;
use crate::reference::expert_combine::expert_combine as combine_twin;
use crate::reference::expert_down::expert_down as down_twin;
use crate::reference::matmul::{add_bias, matmul as matmul_twin};
use crate::reference::qk_rope as qk_rope_twin;
use crate::reference::regroup::regroup as regroup_twin;
use crate::reference::router_topk::{Routing as Chosen, router_topk as topk_twin};
use crate::spec::{Activation, AttentionExpertsSpec, AttentionSpec, Role};

/// `target += sum of weight * output(attention of the heads of an expert)`
pub(super) fn record(recorder: &mut Recorder, spec: &AttentionExpertsSpec) -> Result<()> {
    let target = recorder.open()?;
    let (hidden, width, attention) = (recorder.model.hidden_size, spec.expert_width(), &spec.heads);
    let (top_k, row) = (spec.router.num_experts_per_tok, padded(attention.qkv_rows()));
    let input = recorder.normed_input()?;
    let routed = RouterBuffers::in_scratch(recorder, &spec.router);
    let load_offset = recorder.memory.choice_loads;
    let router = (&spec.router, Role::ChoiceRouter);
    route(recorder, router, &input, (&routed, load_offset))?;
    let sorted = sort(recorder, &spec.router, Role::ChoiceRouter, &routed.output.ids)?;
    let routing = Routing::Sorted { tiles: &sorted[0], order: &sorted[1] };

    let qkv = recorder.scratch("qkv", row);
    let attended = recorder.scratch("attended", padded(attention.qkv_rows()).max(padded(attention.query_width())));
    let h = recorder.scratch("h", top_k * padded(width));
    let outputs = recorder.scratch("expert_output", top_k * padded(hidden));
    let chosen = Assigned { spec, routed: &routed.output, routing };

    // The queries: every choice reads the same row.
    let from = Strides { first: 0, token: padded(hidden), outer: 0, inner: 0 };
    let to = Strides { first: 0, token: top_k * padded(hidden), outer: padded(hidden), inner: 0 };
    let repeated = Regroup { outer: top_k, inner: 1, len: hidden, x: from, y: to, add: None };
    recorder.regroup(repeated, [&input.x, &outputs])?;
    chosen.project(recorder, Role::ChoiceQuery, [&outputs, &h])?;
    recorder.regroup(alternate_heads(attention, padded(width), row), [&h, &qkv])?;
    // Key and value, which all of them share.
    let shared = spec.shared_rows();
    recorder.project_qkv(&input, &attended, padded(shared))?;
    let first = attention.query_width();
    recorder.place(&Placed { x: &attended, x_stride: padded(shared), len: shared, y: &qkv, y_stride: row, first })?;
    let query = heads::rotate(recorder, attention, &qkv, None)?;
    let problem = heads::problem(recorder, attention);
    heads::over_cache(recorder, &problem, &OverCache { query: &query, y: &attended, norms: None, sinks: None })?;

    // Back to the heads of each choice; what lies between them is not to be read.
    recorder.recording.clear(&h);
    let turned = alternate_heads(attention, padded(width), padded(attention.query_width()));
    let back = Regroup { x: turned.y, y: turned.x, ..turned };
    recorder.regroup(back, [&attended, &h])?;
    chosen.project(recorder, Role::ChoiceOutput, [&h, &outputs])?;
    let problem = expert_combine::Problem {
        num_tokens: recorder.pass.num_tokens,
        num_experts_per_tok: top_k,
        hidden_size: hidden,
        weight_on: WeightOn::Output,
        scale: target.scale,
    };
    let buffers = expert_combine::Buffers { y: &outputs, weights: &routed.output.weights, x: &target.buffer };
    expert_combine::record(recorder.device, &mut recorder.recording, Some(recorder.layer), &problem, &buffers)?;
    recorder.add_bias(recorder.vector(Role::AttentionOutputBias), &target)
}

/// What a router has chosen, sorted by expert.
struct Assigned<'b> {
    spec: &'b AttentionExpertsSpec,
    routed: &'b RouterOutput,
    routing: Routing<'b>,
}

impl Assigned<'_> {
    /// `y[assignment] = projection of its expert (x[assignment])`
    fn project(&self, recorder: &mut Recorder, role: Role, [x, y]: [&Buffer; 2]) -> Result<()> {
        let slabs: &Slabs = recorder.slabs(role);
        let RouterSpec { num_experts, num_experts_per_tok, .. } = self.spec.router;
        // The second half of an expert, by itself.
        let problem = Problem {
            num_tokens: recorder.pass.num_tokens,
            num_experts,
            num_experts_per_tok,
            hidden_size: slabs.shape.rows,
            intermediate_size: slabs.shape.cols,
            activation: Activation::Silu,
            weight_on: WeightOn::Output,
            scale: 1.0,
            norm: None,
            quant: slabs.shape.quant,
        };
        let buffers = expert_down::Buffers { h: x, routing: self.routing, weights: &self.routed.weights, y, slabs };
        expert_down::record(recorder.device, &mut recorder.recording, Some(recorder.layer), &problem, &buffers)
    }
}

/// `[n, hidden]`, and what the router chose.
pub(super) fn reference(spec: &AttentionExpertsSpec, pass: &HostPass, memory: &mut HostBlock) -> HostOutput {
    let AttentionExpertsSpec { heads, router } = spec;
    let (rows, context, hidden_size, x) = (pass.rows, pass.context, pass.model.hidden_size, &*pass.normed);
    let (num_tokens, top_k) = (rows.len(), router.num_experts_per_tok);
    let logits = matmul_twin(x, pass.weight(Role::ChoiceRouter), hidden_size);
    let slot_table: Vec<u32> = (0..router.num_experts as u32).collect();
    let mut loads = vec![0; router.num_experts];
    let Chosen { expert_ids, slots, routing_weights } = topk_twin(router, &logits, [None, None], &slot_table, &mut loads);

    // Every choice reads the same row.
    let repeated: Vec<f32> = x.chunks_exact(hidden_size).flat_map(|x| x.repeat(top_k)).collect();
    let chosen = down_twin(&repeated, &slots, &pass.of_experts(Role::ChoiceQuery, router.num_experts), &[], hidden_size);
    let kv = matmul_twin(x, pass.weight(Role::Qkv), hidden_size);
    let (rows_wide, kv_wide) = (heads.qkv_rows(), spec.shared_rows());
    let mut raw = vec![0.0; num_tokens * rows_wide];
    regroup_twin(&alternate_heads(heads, spec.expert_width(), rows_wide), num_tokens, &chosen, &mut raw);
    for (raw, kv) in raw.chunks_exact_mut(rows_wide).zip(kv.chunks_exact(kv_wide)) {
        raw[rows_wide - kv_wide..].copy_from_slice(kv);
    }
    let (query_norm, key_norm, rope) = (None, None, &memory.rope[..]);
    let inputs = qk_rope_twin::Inputs { spec: heads, context, rows, qkv: &raw, query_norm, key_norm, rope };
    let q = qk_rope_twin::qk_rope(&inputs, &mut memory.cache);
    let (sinks, bias, value_dim) = (None, None, None);
    let inputs = attention_twin::Inputs { spec: heads, context, rows, q: &q, cache: &memory.cache, sinks, bias, value_dim };
    let attended = attention_twin::attention(&inputs);

    let mut grouped = vec![0.0; attended.len()];
    let there = alternate_heads(heads, spec.expert_width(), heads.query_width());
    let back = Regroup { x: there.y, y: there.x, ..there };
    regroup_twin(&back, num_tokens, &attended, &mut grouped);
    let output = pass.of_experts(Role::ChoiceOutput, router.num_experts);
    let outputs = down_twin(&grouped, &slots, &output, &[], spec.expert_width());
    let mut y = vec![0.0; num_tokens * hidden_size];
    combine_twin(&outputs, &routing_weights, top_k, &mut y);
    if let Some(bias) = pass.find(Role::AttentionOutputBias) {
        add_bias(&mut y, bias);
    }
    let choice = LayerRouting { layer: pass.layer, router_logits: logits, expert_ids, routing_weights };
    HostOutput { choice: Some(choice), ..HostOutput::plain(y) }
}

/// From the queries of each choice, `group_stride` values apart, to rows of `row_stride` in which the heads that share a key are neighbours.
fn alternate_heads(spec: &AttentionSpec, group_stride: usize, row_stride: usize) -> Regroup {
    let AttentionSpec { num_heads, num_kv_heads, head_dim, .. } = *spec;
    let choices = num_heads / num_kv_heads;
    Regroup {
        outer: choices,
        inner: num_kv_heads,
        len: head_dim,
        x: Strides { first: 0, token: choices * group_stride, outer: group_stride, inner: head_dim },
        y: Strides { first: 0, token: row_stride, outer: head_dim, inner: choices * head_dim },
        add: None,
    }
}
