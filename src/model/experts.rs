//! The dispatches of a feed-forward part: a router with its experts, a shared expert, a dense MLP.

use super::gpu_decoder::GpuDecoder;
use super::plan::{Input, Planner, Target};
use super::state::LayerTaps;
use super::weights::{Matrix, MlpWeights, MoeWeights, SharedWeights};
use crate::error::Result;
use crate::gating::{RouterSpec, WeightOn};
use crate::gpu::Buffer;
use crate::kernels::expert_gate_up::{Problem, Routing};
use crate::kernels::{
    expert_combine, expert_down, expert_gate_up, expert_identity, expert_sort, matmul, router, router_attention, router_topk,
};
use crate::quant::padded;
use crate::spec::{Ffn, MlpSpec, MoeSpec, NormSpec, SharedSpec};

/// Records the feed-forward part of one layer.
pub(super) struct Experts<'a, 'b> {
    pub planner: &'b mut Planner<'a>,
    pub layer: usize,
    pub target: Target<'a>,
}

/// Which experts the tokens go to, and with which weight.
#[derive(Clone, Copy)]
struct Routed<'a> {
    num_experts: usize,
    num_experts_per_tok: usize,
    weight_on: WeightOn,
    weights: &'a Buffer,
    routing: Routing<'a>,
}

impl<'a> Experts<'a, '_> {
    /// `target += down(act(gate_up(input)))`: an expert that every token uses, in slot 0 with weight 1.
    pub fn dense(&mut self, spec: &MlpSpec, weights: &MlpWeights) -> Result<()> {
        let state = &self.planner.decoder.state;
        self.everyone(spec, weights, &state.ones)
    }

    /// `target += sum of weight * expert(input) + shared(input)`
    pub fn moe(&mut self, spec: &MoeSpec, weights: &MoeWeights, taps: &LayerTaps) -> Result<()> {
        if spec.router.identity_experts > 0 || spec.shared.is_some() {
            // Experts without weights give back what is normed, and a shared expert reads it after the others have changed the stream.
            self.planner.normed_input(self.layer, &self.planner.decoder.spec.layers[self.layer])?;
        }
        self.route(spec, weights, taps)?;
        let GpuDecoder { device, state, .. } = self.planner.decoder;
        let router = &spec.router;
        let num_tokens = self.planner.key.num_tokens;
        let routed = taps.output(state, num_tokens, self.planner.key.taps);
        let routing = if num_tokens > 1 {
            let problem = expert_sort::Problem {
                num_assignments: num_tokens * router.num_experts_per_tok,
                num_experts: router.num_experts,
            };
            let buffers = expert_sort::Buffers {
                ids: &routed.ids,
                slot_table: &weights.slot_table,
                tiles: &state.tiles,
                order: &state.order,
            };
            expert_sort::record(device, &mut self.planner.recording, Some(self.layer), &problem, &buffers)?;
            Routing::Sorted { tiles: &state.tiles, order: &state.order }
        } else {
            Routing::Direct { slots: &state.slots }
        };
        let routed = Routed {
            num_experts: router.num_experts,
            num_experts_per_tok: router.num_experts_per_tok,
            weight_on: router.weight_on,
            weights: &routed.weights,
            routing,
        };
        if router.identity_experts > 0 && routing.is_sorted() {
            // No slab writes what an expert without weights gives, and its weight multiplies whatever is there.
            self.planner.recording.clear(&state.expert_output);
        }
        self.run(&spec.expert, &weights.experts, &routed)?;
        self.identity(spec, taps)?;
        match (&spec.shared, &weights.shared) {
            (Some(shared), Some(weights)) => self.shared(shared, weights),
            _ => Ok(()),
        }
    }

    /// `target += ` what experts without weights give back.
    fn identity(&mut self, spec: &MoeSpec, taps: &LayerTaps) -> Result<()> {
        if spec.router.identity_experts == 0 {
            return Ok(());
        }
        let GpuDecoder { device, spec: model, state, .. } = self.planner.decoder;
        let routed = taps.output(state, self.planner.key.num_tokens, self.planner.key.taps);
        let problem = expert_identity::Problem {
            num_tokens: self.planner.key.num_tokens,
            num_experts_per_tok: spec.router.num_experts_per_tok,
            num_weighted: spec.router.num_weighted(),
            hidden_size: model.hidden_size,
            scale: self.target.scale,
        };
        let buffers =
            expert_identity::Buffers { input: self.input().x, ids: &routed.ids, weights: &routed.weights, x: self.target.buffer };
        expert_identity::record(device, &mut self.planner.recording, Some(self.layer), &problem, &buffers)
    }

    fn input(&self) -> Input<'a> {
        self.planner.input(&self.planner.decoder.spec.layers[self.layer])
    }

    /// Router logits, and the experts and weights of each token.
    fn route(&mut self, spec: &MoeSpec, weights: &MoeWeights, taps: &LayerTaps) -> Result<()> {
        let GpuDecoder { device, state, .. } = self.planner.decoder;
        let num_tokens = self.planner.key.num_tokens;
        let routed = taps.output(state, num_tokens, self.planner.key.taps);
        let mut x = self.input();
        if let (Some(eps), Some(weight)) = (spec.router.input_norm, &weights.router_norm) {
            let beside_dense = matches!(self.planner.decoder.spec.layers[self.layer].ffn, Ffn::Parallel(_));
            let stream = if beside_dense { &state.layer_input } else { &state.x };
            let buffers = [stream, &state.router_input];
            self.planner.norm(Some(self.layer), NormSpec::rms(eps), weight, buffers, (0, num_tokens), None)?;
            x = Input { x: &state.router_input, norm: None, ..x };
        }
        if let (Some(first), Some(width)) = (&weights.router_hidden, spec.router.hidden) {
            self.planner.project(self.layer, (first, None), x, (matmul::Output::Tanh, padded(width)), &state.router_hidden)?;
            x = Input { x: &state.router_hidden, cols: width, norm: None };
        }
        let choice = router_topk::Buffers {
            logits: &routed.logits,
            slot_table: &weights.slot_table,
            ids: &routed.ids,
            slots: &state.slots,
            weights: &routed.weights,
            loads: &state.loads,
            selection_bias: weights.selection_bias.as_ref(),
            expert_scale: weights.expert_scale.as_ref(),
        };
        let (router, load_offset) = (&spec.router, taps.load_offset);
        if router.attention {
            let layer = Some(self.layer);
            let y = (matmul::Output::Replace, padded(router.rows()));
            self.planner.project(self.layer, (&weights.router, None), x, y, &state.router_hidden)?;
            let (fault_place, recording) = (self.layer, &mut self.planner.recording);
            let problem = router_attention::Problem { num_tokens, num_experts: router.num_experts };
            let buffers = router_attention::Buffers { qkv: &state.router_hidden, logits: &routed.logits };
            router_attention::record(device, recording, layer, &problem, &buffers)?;
            let problem = router_topk::Problem { num_tokens, router, load_offset, fault_place };
            router_topk::record(device, recording, layer, &problem, &choice)?;
        } else {
            let weights = (&weights.router, weights.router_bias.as_ref());
            self.planner.route(self.layer, (router, load_offset), x, weights, choice)?;
        }
        // Those of a single token wait for the end of the pass: a copy between dispatches costs as much as some of them.
        if self.planner.key.taps && num_tokens > 1 {
            taps.keep(state, num_tokens, &mut self.planner.recording);
        }
        Ok(())
    }

    fn shared(&mut self, spec: &SharedSpec, weights: &SharedWeights) -> Result<()> {
        let state = &self.planner.decoder.state;
        let Some(gate) = &weights.gate else { return self.everyone(&spec.mlp, &weights.mlp, &state.ones) };
        self.planner.project(self.layer, (gate, None), self.input(), (matmul::Output::Sigmoid, 1), &state.shared_weights)?;
        self.everyone(&spec.mlp, &weights.mlp, &state.shared_weights)
    }

    /// One MLP for all tokens, each with its weight.
    fn everyone(&mut self, spec: &MlpSpec, weights: &MlpWeights, token_weights: &Buffer) -> Result<()> {
        let state = &self.planner.decoder.state;
        let known = self.planner.known_routing();
        let routing = match &known {
            Some([tiles, order]) => Routing::Sorted { tiles, order },
            None => Routing::Direct { slots: &state.zeros },
        };
        let weight_on = WeightOn::Output;
        let routed = Routed { num_experts: 1, num_experts_per_tok: 1, weight_on, weights: token_weights, routing };
        self.run(spec, weights, &routed)
    }

    fn run(&mut self, spec: &MlpSpec, weights: &MlpWeights, routed: &Routed) -> Result<()> {
        let GpuDecoder { device, spec: model, state, .. } = self.planner.decoder;
        let (input, target, layer) = (self.input(), self.target, Some(self.layer));
        let recording = &mut self.planner.recording;
        let Routed { num_experts, num_experts_per_tok, weight_on, weights: token_weights, routing } = *routed;
        let problem = Problem {
            num_tokens: self.planner.key.num_tokens,
            num_experts,
            num_experts_per_tok,
            hidden_size: model.hidden_size,
            intermediate_size: spec.intermediate_size,
            activation: spec.activation,
            weight_on,
            scale: target.scale,
            norm: input.norm.map(|norm| norm.fused),
            quant: weights.gate_up.shape.quant,
        };
        let buffers = expert_gate_up::Buffers {
            x: input.x,
            routing,
            weights: token_weights,
            norm: input.norm.map(|norm| norm.weight),
            h: &state.h,
            slabs: &weights.gate_up,
        };
        expert_gate_up::record(device, recording, layer, &problem, &buffers)?;

        let problem = Problem { quant: weights.down.shape.quant, ..problem };
        let y = if routing.is_sorted() { &state.expert_output } else { target.buffer };
        let buffers = expert_down::Buffers { h: &state.h, routing, weights: token_weights, y, slabs: &weights.down };
        expert_down::record(device, recording, layer, &problem, &buffers)?;
        if !routing.is_sorted() {
            return Ok(());
        }
        let problem = expert_combine::Problem {
            num_tokens: problem.num_tokens,
            num_experts_per_tok,
            hidden_size: model.hidden_size,
            weight_on,
            scale: target.scale,
        };
        let buffers = expert_combine::Buffers { y, weights: token_weights, x: target.buffer };
        expert_combine::record(device, recording, layer, &problem, &buffers)
    }
}

impl Planner<'_> {
    /// What a router makes of its input: logits, the best experts of each token and their weights.
    pub(super) fn route(
        &mut self,
        layer: usize,
        (router, load_offset): (&RouterSpec, usize),
        input: Input,
        (matrix, bias): (&Matrix, Option<&Buffer>),
        choice: router_topk::Buffers,
    ) -> Result<()> {
        let problem = router::Problem {
            num_tokens: self.key.num_tokens,
            router,
            cols: input.cols,
            norm: input.norm.map(|norm| norm.fused),
            quant: matrix.quant,
            load_offset,
            fault_place: layer,
        };
        let norm = input.norm.map(|norm| norm.weight);
        let buffers = router::Buffers { x: input.x, weight: &matrix.shards, norm, bias, choice };
        router::record(&self.decoder.device, &mut self.recording, Some(layer), &problem, &buffers)
    }
}
