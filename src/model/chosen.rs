//! The dispatches of attention whose query and output projections a router chooses.

use super::gpu_decoder::GpuDecoder;
use super::plan::{Input, Planner, Target};
use super::weights::ChoiceWeights;
use crate::error::Result;
use crate::gating::{RouterSpec, WeightOn};
use crate::gpu::Buffer;
use crate::kernels::expert_gate_up::{Problem, Routing};
use crate::kernels::regroup::{self, Regroup, Strides};
use crate::kernels::{Slabs, expert_combine, expert_down, expert_sort, matmul, router_topk};
use crate::quant::padded;
use crate::reference::chosen::heads_in_turns;
use crate::spec::{Activation, AttentionSpec, LayerSpec};

impl<'a> Planner<'a> {
    /// `target += sum of weight * output(attention of the heads of a choice)`
    pub(super) fn attend_by_choice(
        &mut self,
        layer: usize,
        (spec, attention, router): (&LayerSpec, &AttentionSpec, &RouterSpec),
        weights: &ChoiceWeights,
        target: Target<'a>,
    ) -> Result<()> {
        let GpuDecoder { spec: model, state, .. } = self.decoder;
        let (hidden, width) = (model.hidden_size, attention.choice_width());
        let (top_k, row) = (router.num_experts_per_tok, padded(attention.qkv_rows()));
        let input = self.normed_input(layer, spec)?;
        let x = input.x;
        self.choose(layer, input, router, weights)?;

        // The queries: every choice reads the same row.
        let from = Strides { first: 0, token: padded(hidden), outer: 0, inner: 0 };
        let to = Strides { first: 0, token: top_k * padded(hidden), outer: padded(hidden), inner: 0 };
        let repeated = Regroup { outer: top_k, inner: 1, len: hidden, x: from, y: to, add: None };
        self.regroup(layer, repeated, [x, &state.expert_output])?;
        self.chosen_projection(layer, router, [hidden, width], &weights.query, [&state.expert_output, &state.h])?;
        self.regroup(layer, heads_in_turns(attention, padded(width), row), [&state.h, &state.qkv])?;
        // Key and value, which all of them share.
        let kv = attention.projected_rows();
        let replace = (matmul::Output::Replace, padded(kv));
        self.project(layer, (&weights.kv, None), input, replace, &state.attended)?;
        self.place(layer, kv, attention.query_width(), [&state.attended, &state.qkv], [padded(kv), row])?;
        self.turn(layer, attention, None)?;
        self.over_cache(layer, attention, None)?;

        // Back to the heads of each choice; what lies between them is not to be read.
        self.recording.clear(&state.h);
        let turned = heads_in_turns(attention, padded(width), padded(attention.query_width()));
        let back = Regroup { x: turned.y, y: turned.x, ..turned };
        self.regroup(layer, back, [&state.attended, &state.h])?;
        self.chosen_projection(layer, router, [width, hidden], &weights.output, [&state.h, &state.expert_output])?;
        let problem = expert_combine::Problem {
            num_tokens: self.key.num_tokens,
            num_experts_per_tok: top_k,
            hidden_size: hidden,
            weight_on: WeightOn::Output,
            scale: target.scale,
        };
        let buffers = expert_combine::Buffers { y: &state.expert_output, weights: &state.routed.weights, x: target.buffer };
        expert_combine::record(&self.decoder.device, &mut self.recording, Some(layer), &problem, &buffers)?;
        self.add_bias(layer, weights.output_bias.as_ref(), target)
    }

    /// Experts and weights of each token, and the assignments by expert.
    fn choose(&mut self, layer: usize, x: Input, router: &RouterSpec, weights: &ChoiceWeights) -> Result<()> {
        let GpuDecoder { device, state, .. } = self.decoder;
        let num_tokens = self.key.num_tokens;
        let choice = router_topk::Buffers {
            logits: &state.routed.logits,
            slot_table: &weights.slot_table,
            ids: &state.routed.ids,
            slots: &state.slots,
            weights: &state.routed.weights,
            loads: &state.loads,
            selection_bias: None,
            expert_scale: None,
        };
        self.route(layer, (router, state.choice_loads), x, (&weights.router, None), choice)?;
        let num_assignments = num_tokens * router.num_experts_per_tok;
        let problem = expert_sort::Problem { num_assignments, num_experts: router.num_experts };
        let buffers = expert_sort::Buffers {
            ids: &state.routed.ids,
            slot_table: &weights.slot_table,
            tiles: &state.tiles,
            order: &state.order,
        };
        expert_sort::record(device, &mut self.recording, Some(layer), &problem, &buffers)
    }

    /// `y[assignment] = projection of its expert (x[assignment])`
    fn chosen_projection(
        &mut self,
        layer: usize,
        router: &RouterSpec,
        [cols, rows]: [usize; 2],
        slabs: &Slabs,
        [x, y]: [&Buffer; 2],
    ) -> Result<()> {
        let GpuDecoder { device, state, .. } = self.decoder;
        // The second half of an expert, by itself.
        let problem = Problem {
            num_tokens: self.key.num_tokens,
            num_experts: router.num_experts,
            num_experts_per_tok: router.num_experts_per_tok,
            hidden_size: rows,
            intermediate_size: cols,
            activation: Activation::Silu,
            weight_on: WeightOn::Output,
            scale: 1.0,
            norm: None,
            quant: slabs.shape.quant,
        };
        let routing = Routing::Sorted { tiles: &state.tiles, order: &state.order };
        let buffers = expert_down::Buffers { h: x, routing, weights: &state.routed.weights, y, slabs };
        expert_down::record(device, &mut self.recording, Some(layer), &problem, &buffers)
    }

    /// `target += bias`, for every token, where there is one.
    pub(super) fn add_bias(&mut self, layer: usize, bias: Option<&Buffer>, target: Target) -> Result<()> {
        let Some(bias) = bias else { return Ok(()) };
        let hidden = self.decoder.spec.hidden_size;
        let row = |token: usize| Strides { first: 0, token, outer: 0, inner: 0 };
        let y = row(padded(hidden));
        let shape = Regroup { outer: 1, inner: 1, len: hidden, x: row(0), y, add: Some(target.scale) };
        self.regroup(layer, shape, [bias, target.buffer])
    }

    /// Rows of `len` values to column `first` of rows of another stride.
    pub(super) fn place(
        &mut self,
        layer: usize,
        len: usize,
        first: usize,
        buffers: [&Buffer; 2],
        [from, to]: [usize; 2],
    ) -> Result<()> {
        let x = Strides { first: 0, token: from, outer: 0, inner: 0 };
        let y = Strides { first, token: to, outer: 0, inner: 0 };
        self.regroup(layer, Regroup { outer: 1, inner: 1, len, x, y, add: None }, buffers)
    }

    fn regroup(&mut self, layer: usize, shape: Regroup, [x, y]: [&Buffer; 2]) -> Result<()> {
        let problem = regroup::Problem { num_tokens: self.key.num_tokens, shape };
        regroup::record(&self.decoder.device, &mut self.recording, Some(layer), &problem, &regroup::Buffers { x, y })
    }
}
