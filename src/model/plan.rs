//! The flat list of dispatches of one pass through the model.

use super::gpu_decoder::GpuDecoder;
use super::state::RING;
use super::weights::Matrix;
use crate::error::Result;
use crate::gpu::Recording;
use crate::kernels::{
    attention, embed, expert_combine, expert_down, expert_gate_up, expert_sort, matmul, qkv, rms_norm, router_topk, sample,
};
use crate::spec::{AttentionSpec, MoeSpec};
use expert_gate_up::Routing;

/// What distinguishes two recordings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PlanKey {
    pub num_tokens: usize,
    pub output: Output,
    /// Keep what every layer's router did.
    pub taps: bool,
}

/// What a pass ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Output {
    /// Only the KV cache: more of the prompt follows.
    Nothing,
    /// The next token after the last row.
    Token,
    /// The logits of every row.
    Logits,
}

/// Records one pass.
pub(super) struct Planner<'a> {
    pub decoder: &'a GpuDecoder,
    pub key: PlanKey,
    pub recording: Recording,
}

impl Planner<'_> {
    pub fn record(mut self) -> Result<Recording> {
        let GpuDecoder { device, spec, weights, state, .. } = self.decoder;
        let problem =
            embed::Problem { num_tokens: self.key.num_tokens, hidden_size: spec.hidden_size, quant: weights.embedding.quant };
        let buffers = embed::Buffers { rows: &state.rows, table: &weights.embedding.shards, x: &state.x };
        embed::record(device, &mut self.recording, &problem, &buffers)?;
        for layer in 0..spec.layers.len() {
            self.attention(layer, spec.layers[layer].mixer.attention())?;
            self.router(layer, spec.layers[layer].ffn.moe())?;
            self.experts(layer, spec.layers[layer].ffn.moe())?;
        }
        match self.key.output {
            Output::Nothing => {}
            Output::Token => {
                self.head(self.key.num_tokens - 1, 1)?;
                self.sample()?;
            }
            Output::Logits => self.head(0, self.key.num_tokens)?,
        }
        Ok(self.recording)
    }

    /// `normed = rms_norm(x)` from row `first_row` on.
    fn norm(&mut self, layer: Option<usize>, weight: &crate::gpu::Buffer, first_row: usize, num_tokens: usize) -> Result<()> {
        let GpuDecoder { device, spec, state, .. } = self.decoder;
        let problem = rms_norm::Problem { first_row, num_tokens, cols: spec.hidden_size, eps: spec.norm_eps };
        let buffers = rms_norm::Buffers { x: &state.x, weight, y: &state.normed };
        rms_norm::record(device, &mut self.recording, layer, &problem, &buffers)
    }

    /// `x += output(attention(norm(x)))`
    fn attention(&mut self, layer: usize, spec: &AttentionSpec) -> Result<()> {
        let GpuDecoder { device, spec: model, weights, state, shape, .. } = self.decoder;
        let (weights, cache) = (&weights.layers[layer], &state.layers[layer]);
        let num_tokens = self.key.num_tokens;
        self.norm(Some(layer), &weights.attention_norm, 0, num_tokens)?;
        let AttentionSpec { num_heads, num_kv_heads, head_dim, scale, mask, .. } = *spec;
        let context = shape.context;
        qkv::record(
            device,
            &mut self.recording,
            Some(layer),
            &qkv::Problem {
                num_tokens,
                hidden_size: model.hidden_size,
                num_heads,
                num_kv_heads,
                head_dim,
                context,
                quant: weights.qkv.quant,
            },
            &qkv::Buffers {
                rows: &state.rows,
                x: &state.normed,
                weight: &weights.qkv.shards,
                rope: &cache.rope,
                q: &state.q,
                k_cache: &cache.k_cache,
                v_cache: &cache.v_cache,
            },
        )?;
        attention::record(
            device,
            &mut self.recording,
            Some(layer),
            &attention::Problem { num_tokens, num_heads, num_kv_heads, head_dim, context, scale, mask },
            &attention::Buffers {
                rows: &state.rows,
                q: &state.q,
                k_cache: &cache.k_cache,
                v_cache: &cache.v_cache,
                y: &state.attended,
            },
        )?;
        let problem = matmul::Problem {
            num_tokens,
            cols: spec.output_width(),
            y_stride: crate::quant::padded(model.hidden_size),
            residual: true,
            quant: weights.attention_output.quant,
        };
        let buffers = matmul::Buffers { x: &state.attended, weight: &weights.attention_output.shards, y: &state.x };
        matmul::record(device, &mut self.recording, Some(layer), &problem, &buffers)
    }

    /// `normed = norm(x)`, then the experts of each token.
    fn router(&mut self, layer: usize, spec: &MoeSpec) -> Result<()> {
        let GpuDecoder { device, spec: model, weights, state, .. } = self.decoder;
        let weights = &weights.layers[layer];
        let num_tokens = self.key.num_tokens;
        self.norm(Some(layer), &weights.ffn_norm, 0, num_tokens)?;
        let problem = matmul::Problem {
            num_tokens,
            cols: model.hidden_size,
            y_stride: spec.router.num_experts,
            residual: false,
            quant: weights.router.quant,
        };
        let buffers = matmul::Buffers { x: &state.normed, weight: &weights.router.shards, y: &state.router_logits };
        matmul::record(device, &mut self.recording, Some(layer), &problem, &buffers)?;
        router_topk::record(
            device,
            &mut self.recording,
            Some(layer),
            &router_topk::Problem { num_tokens, router: &spec.router, load_row: layer },
            &router_topk::Buffers {
                logits: &state.router_logits,
                slot_table: &weights.slot_table,
                ids: &state.expert_ids,
                slots: &state.slots,
                weights: &state.routing_weights,
                loads: &state.loads,
            },
        )?;
        if self.key.taps {
            let taps = &state.taps[layer];
            let per_token = |values: usize| (num_tokens * values * 4) as u64;
            let RouterLens { experts, chosen } = RouterLens::of(spec);
            self.recording.copy(&state.router_logits, &taps.router_logits, 0, per_token(experts));
            self.recording.copy(&state.expert_ids, &taps.expert_ids, 0, per_token(chosen));
            self.recording.copy(&state.routing_weights, &taps.routing_weights, 0, per_token(chosen));
        }
        Ok(())
    }

    /// `x += sum of weight * expert(normed)`
    fn experts(&mut self, layer: usize, spec: &MoeSpec) -> Result<()> {
        let GpuDecoder { device, spec: model, weights, state, .. } = self.decoder;
        let weights = &weights.layers[layer];
        let num_tokens = self.key.num_tokens;
        let RouterLens { experts: num_experts, chosen: num_experts_per_tok } = RouterLens::of(spec);
        let sorted = num_tokens > 1;
        let routing = if sorted {
            let problem = expert_sort::Problem { num_assignments: num_tokens * num_experts_per_tok, num_experts };
            let buffers = expert_sort::Buffers {
                ids: &state.expert_ids,
                slot_table: &weights.slot_table,
                tiles: &state.tiles,
                order: &state.order,
            };
            expert_sort::record(device, &mut self.recording, Some(layer), &problem, &buffers)?;
            Routing::Sorted { tiles: &state.tiles, order: &state.order }
        } else {
            Routing::Direct { slots: &state.slots }
        };
        let problem = expert_gate_up::Problem {
            num_tokens,
            num_experts,
            num_experts_per_tok,
            hidden_size: model.hidden_size,
            intermediate_size: spec.expert.intermediate_size,
            quant: weights.gate_up.shape.quant,
        };
        let buffers = expert_gate_up::Buffers { x: &state.normed, routing, h: &state.h, slabs: &weights.gate_up };
        expert_gate_up::record(device, &mut self.recording, Some(layer), &problem, &buffers)?;

        let problem = expert_gate_up::Problem { quant: weights.down.shape.quant, ..problem };
        let y = if sorted { &state.expert_output } else { &state.x };
        let buffers = expert_down::Buffers { h: &state.h, routing, weights: &state.routing_weights, y, slabs: &weights.down };
        expert_down::record(device, &mut self.recording, Some(layer), &problem, &buffers)?;
        if !sorted {
            return Ok(());
        }
        let problem = expert_combine::Problem { num_tokens, num_experts_per_tok, hidden_size: model.hidden_size };
        let buffers = expert_combine::Buffers { y, weights: &state.routing_weights, x: &state.x };
        expert_combine::record(device, &mut self.recording, Some(layer), &problem, &buffers)
    }

    /// `logits = head(norm(x))` for `num_rows` rows from `first_row` on.
    fn head(&mut self, first_row: usize, num_rows: usize) -> Result<()> {
        let GpuDecoder { device, spec, weights, state, .. } = self.decoder;
        self.norm(None, &weights.final_norm, first_row, num_rows)?;
        let Matrix { shards, quant } = weights.head.as_ref().unwrap_or(&weights.embedding);
        let problem =
            matmul::Problem { num_tokens: num_rows, cols: spec.hidden_size, y_stride: spec.vocab_size, residual: false, quant };
        let buffers = matmul::Buffers { x: &state.normed, weight: shards, y: &state.logits };
        matmul::record(device, &mut self.recording, None, &problem, &buffers)
    }

    fn sample(&mut self) -> Result<()> {
        let GpuDecoder { device, spec, state, .. } = self.decoder;
        let problem =
            sample::Problem { num_sequences: 1, vocab_size: spec.vocab_size, first_row: self.key.num_tokens - 1, ring: RING };
        let buffers = sample::Buffers {
            sampling: &state.sampling,
            logits: &state.logits,
            seen: &state.seen,
            rows: &state.rows,
            sampled: &state.sampled,
        };
        sample::record(device, &mut self.recording, &problem, &buffers)
    }
}

/// Values per token in a router's buffers.
pub(super) struct RouterLens {
    pub experts: usize,
    pub chosen: usize,
}

impl RouterLens {
    pub fn of(spec: &MoeSpec) -> Self {
        RouterLens { experts: spec.router.num_experts, chosen: spec.router.num_experts_per_tok }
    }
}
