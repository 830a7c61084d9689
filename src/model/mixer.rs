//! The dispatches of attention: projections, the KV cache, and what comes of them.

use super::gpu_decoder::GpuDecoder;
use super::plan::{Input, Planner, Target};
use super::weights::{AttentionWeights, LatentWeights, MixerKind, MixerWeights};
use crate::error::Result;
use crate::gpu::Buffer;
use crate::kernels::{attention, attention_merge, head_matmul, latent, matmul, norm, qk_rope, qkv};
use crate::quant::padded;
use crate::spec::{AttentionSpec, LatentSpec, LayerSpec, Mixer, NormSpec};

/// Where queries, keys and values are after their projection.
enum Projected {
    /// Ready in `state.q` and the cache.
    Turned,
    /// In `state.qkv`, before norms and rotary embedding.
    Raw,
}

impl<'a> Planner<'a> {
    /// `target += output(attention(input))`
    pub(super) fn mix(&mut self, layer: usize, spec: &LayerSpec, weights: &MixerWeights, target: Target<'a>) -> Result<()> {
        match (&spec.mixer, &weights.kind) {
            (Mixer::Attention(attention), MixerKind::Chosen(weights)) => {
                let router = attention.choice.as_ref().expect("these weights are for a choice");
                return self.attend_by_choice(layer, (spec, attention, router), weights, target);
            }
            (Mixer::Attention(attention), MixerKind::Attention(weights)) => self.attend(layer, spec, attention, weights)?,
            (Mixer::Latent(latent), MixerKind::Latent(weights)) => self.attend_to_latents(layer, spec, latent, weights)?,
            _ => unreachable!("weights are uploaded as the spec says"),
        }
        let GpuDecoder { spec: model, state, .. } = self.decoder;
        let output = weights.output.as_ref().expect("only a choice has no output projection");
        let attended = Input { x: &state.attended, cols: spec.mixer.output_width(), norm: None };
        let y = (matmul::Output::Add, padded(model.hidden_size), target.scale);
        self.project_scaled(layer, (output, weights.output_bias.as_ref()), attended, y, target.buffer)
    }

    /// `state.attended = attention(input)`, gated where the spec says so.
    fn attend(&mut self, layer: usize, spec: &LayerSpec, attention: &AttentionSpec, weights: &AttentionWeights) -> Result<()> {
        match self.project_qkv(layer, spec, attention, weights)? {
            Projected::Turned => self.over_cache(layer, attention, weights.sinks.as_ref())?,
            Projected::Raw => {
                let state = &self.decoder.state;
                let problem = attention::Problem { raw: Some(attention), ..self.attention_problem(attention) };
                let norms = weights.qk_norms.as_ref();
                self.record_attention(layer, &problem, [&state.qkv, &state.attended], norms, weights.sinks.as_ref())?;
            }
        }
        let state = &self.decoder.state;
        match &weights.gate {
            Some(gate) => {
                let y = (matmul::Output::Gate, padded(attention.output_width()));
                self.project(layer, (gate, None), self.input(spec), y, &state.attended)
            }
            None => Ok(()),
        }
    }

    /// `state.attended = attention of state.q over the cache`
    pub(super) fn over_cache(&mut self, layer: usize, attention: &AttentionSpec, sinks: Option<&Buffer>) -> Result<()> {
        let state = &self.decoder.state;
        self.record_attention(layer, &self.attention_problem(attention), [&state.q, &state.attended], None, sinks)
    }

    fn attention_problem(&self, attention: &AttentionSpec) -> attention::Problem<'static> {
        let shape = &self.decoder.shape;
        attention::Problem::of_spec(attention, self.key.num_tokens, (shape.context, shape.cache))
    }

    /// `y = attention of query over the cache`; `norms` are those of query and key, of a raw problem.
    fn record_attention(
        &mut self,
        layer: usize,
        problem: &attention::Problem,
        [query, y]: [&Buffer; 2],
        norms: Option<&[Buffer; 2]>,
        sinks: Option<&Buffer>,
    ) -> Result<()> {
        let GpuDecoder { device, state, .. } = self.decoder;
        let cache = &state.layers[layer];
        let merge = attention::merge(device.caps(), problem);
        let buffers = attention::Buffers {
            rows: &state.rows,
            query,
            rope: problem.raw.and(cache.rope.as_ref()),
            norms: norms.map(|[query, key]| [query, key]),
            k_cache: &cache.k_cache,
            v_cache: &cache.v_cache,
            y: if merge.is_some() { &state.partials } else { y },
            sinks: sinks.filter(|_| merge.is_none()),
        };
        attention::record(device, &mut self.recording, Some(layer), problem, &buffers)?;
        let Some(merge) = merge else { return Ok(()) };
        let buffers = attention_merge::Buffers { partials: &state.partials, y, sinks };
        attention_merge::record(device, &mut self.recording, Some(layer), &merge, &buffers)
    }

    /// `state.attended = value_up(attention over the cache of latents)`, in absorbed form.
    fn attend_to_latents(&mut self, layer: usize, spec: &LayerSpec, latent: &LatentSpec, weights: &LatentWeights) -> Result<()> {
        let GpuDecoder { device, state, shape, .. } = self.decoder;
        let num_tokens = self.key.num_tokens;
        let over_cache = latent.over_cache();
        self.project_latents(layer, spec, latent, weights)?;

        let key_up = head_matmul::Problem {
            num_tokens,
            rows: latent.latent_dim,
            cols: latent.nope_dim,
            x: head_matmul::Layout { token_stride: padded(latent.query_width()), head_stride: latent.key_dim() },
            y: head_matmul::Layout { token_stride: padded(over_cache.query_width()), head_stride: latent.cache_dim() },
            quant: weights.key_up.quant,
        };
        let buffers = head_matmul::Buffers { x: &state.qkv, weight: &weights.key_up.shards, y: &state.q };
        head_matmul::record(device, &mut self.recording, Some(layer), &key_up, &buffers)?;

        let problem = attention::Problem::of_latent(latent, num_tokens, (shape.context, shape.cache));
        self.record_attention(layer, &problem, [&state.q, &state.latent_values], None, None)?;

        let values = padded(latent.num_heads * latent.latent_dim);
        let value_up = head_matmul::Problem {
            num_tokens,
            rows: latent.value_dim,
            cols: latent.latent_dim,
            x: head_matmul::Layout { token_stride: values, head_stride: latent.latent_dim },
            y: head_matmul::Layout { token_stride: padded(latent.output_width()), head_stride: latent.value_dim },
            quant: weights.value_up.quant,
        };
        let buffers = head_matmul::Buffers { x: &state.latent_values, weight: &weights.value_up.shards, y: &state.attended };
        head_matmul::record(device, &mut self.recording, Some(layer), &value_up, &buffers)
    }

    /// Raw queries to `state.qkv`, their rotated parts to `state.q`, and the latent to the cache.
    fn project_latents(&mut self, layer: usize, spec: &LayerSpec, latent: &LatentSpec, weights: &LatentWeights) -> Result<()> {
        let GpuDecoder { device, state, shape, .. } = self.decoder;
        let (cache, num_tokens) = (&state.layers[layer], self.key.num_tokens);
        let input = self.input(spec);
        let replace = |width: usize| (matmul::Output::Replace, padded(width));
        let query = match (&weights.query_down, latent.query_rank) {
            (Some((down, weight)), Some(rank)) => {
                self.project(layer, (down, None), input, replace(rank), &state.latent_query)?;
                let norm = NormSpec::rms(latent.norm_eps);
                let problem = norm::Problem { first_row: 0, num_tokens, cols: rank, norm, residual: None, output_scale: false };
                let buffers = norm::Buffers { x: &state.latent_query, weight, y: &state.latent_query_normed, output_scale: None };
                norm::record(device, &mut self.recording, Some(layer), &problem, &buffers)?;
                Input { x: &state.latent_query_normed, cols: rank, norm: None }
            }
            _ => input,
        };
        self.project(layer, (&weights.query_up, None), query, replace(latent.query_width()), &state.qkv)?;
        self.project(layer, (&weights.down, None), input, replace(latent.cache_dim()), &state.latent)?;
        let problem = latent::Problem { num_tokens, context: shape.context, cache: shape.cache, latent };
        let buffers = latent::Buffers {
            rows: &state.rows,
            q: &state.qkv,
            kv: &state.latent,
            norm: &weights.norm,
            rope: cache.rope.as_ref().expect("latent attention has a rotary table"),
            query: &state.q,
            cache: &cache.k_cache,
        };
        latent::record(device, &mut self.recording, Some(layer), &problem, &buffers)
    }

    /// Queries to `state.q`, keys and values to the cache: in one kernel where it can, in two otherwise. Of a single token the second one
    /// may be left to the attention.
    fn project_qkv(
        &mut self,
        layer: usize,
        spec: &LayerSpec,
        attention: &AttentionSpec,
        weights: &AttentionWeights,
    ) -> Result<Projected> {
        let GpuDecoder { device, spec: model, state, shape, .. } = self.decoder;
        let cache = &state.layers[layer];
        let num_tokens = self.key.num_tokens;
        let bias = weights.qkv_bias.as_ref();
        if let (false, Some(rope)) = (qk_rope::is_needed(attention), &cache.rope) {
            // With a bias no binding is left for the weight of the norm.
            let input = if bias.is_some() { self.normed_input(layer, spec)? } else { self.input(spec) };
            let problem = qkv::Problem {
                num_tokens,
                hidden_size: model.hidden_size,
                num_heads: attention.num_heads,
                num_kv_heads: attention.num_kv_heads,
                head_dim: attention.head_dim,
                context: shape.context,
                cache: shape.cache,
                bias: attention.qkv_bias,
                clip: attention.clip,
                norm: input.norm.map(|norm| norm.fused),
                quant: weights.qkv.quant,
            };
            let buffers = qkv::Buffers {
                rows: &state.rows,
                x: input.x,
                weight: &weights.qkv.shards,
                bias,
                norm: input.norm.map(|norm| norm.weight),
                rope,
                q: &state.q,
                k_cache: &cache.k_cache,
                v_cache: &cache.v_cache,
            };
            qkv::record(device, &mut self.recording, Some(layer), &problem, &buffers)?;
            return Ok(Projected::Turned);
        }
        if let (Some(filter), Some(own)) = (&attention.filter, &weights.filter) {
            self.project_filtered(layer, spec, (attention, filter), weights, own)?;
        } else {
            let y = (matmul::Output::Replace, padded(attention.qkv_rows()));
            self.project(layer, (&weights.qkv, bias), self.input(spec), y, &state.qkv)?;
        }
        let raw = attention::Problem { raw: Some(attention), ..self.attention_problem(attention) };
        if attention::turns(device.caps(), &raw) {
            return Ok(Projected::Raw);
        }
        self.turn(layer, attention, weights.qk_norms.as_ref())?;
        Ok(Projected::Turned)
    }

    /// From `state.qkv` to rotated queries in `state.q` and to the cache.
    pub(super) fn turn(&mut self, layer: usize, attention: &AttentionSpec, norms: Option<&[Buffer; 2]>) -> Result<()> {
        let GpuDecoder { device, state, shape, .. } = self.decoder;
        let cache = &state.layers[layer];
        let num_tokens = self.key.num_tokens;
        let problem = qk_rope::Problem { num_tokens, context: shape.context, cache: shape.cache, attention };
        let buffers = qk_rope::Buffers {
            rows: &state.rows,
            qkv: &state.qkv,
            rope: cache.rope.as_ref(),
            norms: norms.map(|[query, key]| [query, key]),
            q: &state.q,
            k_cache: &cache.k_cache,
            v_cache: &cache.v_cache,
        };
        qk_rope::record(device, &mut self.recording, Some(layer), &problem, &buffers)
    }
}
