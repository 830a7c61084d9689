//! The flat list of dispatches of one pass through the model.

use super::experts::Experts;
use super::gpu_decoder::GpuDecoder;
use super::state::{LayerTaps, RING};
use super::weights::{AttentionWeights, FfnWeights, LatentWeights, LayerWeights, Matrix, MixerKind, MixerWeights, Norms};
use crate::error::Result;
use crate::gpu::{Buffer, Recording};
use crate::kernels::norm::Fused;
use crate::kernels::{attention, attention_merge, embed, expert_sort, head_matmul, latent, matmul, norm, qk_rope, qkv, sample};
use crate::quant::padded;
use crate::spec::{AttentionSpec, Ffn, LatentSpec, LayerSpec, Mixer, NormSpec, ParallelInputs, ParallelSpec, Residual};

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
    /// Made when first asked for.
    pub known_routing: Option<[Buffer; 2]>,
    /// The norm that the part being recorded leaves to the kernels which read its input.
    pub fused_norm: Option<InputNorm<'a>>,
}

/// What a kernel reads: rows of `cols` values, which may still have to go through a norm.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub x: &'a Buffer,
    pub cols: usize,
    pub norm: Option<InputNorm<'a>>,
}

/// An RMSNorm that a kernel applies itself, and its weight.
#[derive(Clone, Copy)]
pub(super) struct InputNorm<'a> {
    pub fused: Fused,
    pub weight: &'a Buffer,
}

/// Where queries, keys and values are after their projection.
enum Projected {
    /// Ready in `state.q` and the cache.
    Turned,
    /// In `state.qkv`, before norms and rotary embedding.
    Raw,
}

/// Where a part of a layer puts its result.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub buffer: &'a Buffer,
    /// Multiplies the result.
    pub scale: f32,
}

impl<'a> Planner<'a> {
    pub fn record(mut self) -> Result<Recording> {
        let GpuDecoder { device, spec, weights, state, .. } = self.decoder;
        let problem = embed::Problem {
            num_tokens: self.key.num_tokens,
            hidden_size: spec.hidden_size,
            scale: spec.embedding_scale,
            quant: weights.embedding.quant,
        };
        let buffers = embed::Buffers { rows: &state.rows, table: &weights.embedding.shards, x: &state.x };
        embed::record(device, &mut self.recording, &problem, &buffers)?;
        let mut taps = state.taps.iter();
        for (layer, (spec, weights)) in spec.layers.iter().zip(&weights.layers).enumerate() {
            if matches!(spec.ffn, Ffn::Parallel(ParallelSpec { inputs: ParallelInputs::LayerInput, .. })) {
                self.recording.copy(&state.x, &state.layer_input, 0, state.row_bytes(self.key.num_tokens));
            }
            let target = self.open(layer, spec, &weights.mixer.norms)?;
            self.mix(layer, spec, &weights.mixer, target)?;
            self.close(layer, spec, &weights.mixer.norms, None)?;

            self.feed_forward(layer, spec, weights, &mut taps)?;
            self.add_deferred(layer)?;
        }
        if self.key.taps && self.key.num_tokens == 1 {
            state.taps.iter().for_each(|taps| taps.keep(state, 1, &mut self.recording));
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

    /// `x += post_norm(ffn(norm(x)))`, with the norms that the spec has.
    fn feed_forward<'t>(
        &mut self,
        layer: usize,
        spec: &LayerSpec,
        weights: &'a LayerWeights,
        taps: &mut impl Iterator<Item = &'t LayerTaps>,
    ) -> Result<()> {
        let mut next_taps = || taps.next().expect("every layer with a router has taps");
        match (&spec.ffn, &weights.ffn) {
            (Ffn::Dense(mlp), FfnWeights::Dense(dense)) => {
                let target = self.open(layer, spec, &weights.norms)?;
                Experts { planner: self, layer, target }.dense(mlp, dense)?;
            }
            (Ffn::Moe(moe), FfnWeights::Moe(experts)) => {
                let target = self.open(layer, spec, &weights.norms)?;
                Experts { planner: self, layer, target }.moe(moe, experts, next_taps())?;
            }
            (Ffn::Parallel(parallel), FfnWeights::Parallel(own)) => {
                self.parallel(layer, spec, (parallel, weights), own, next_taps())?;
            }
            _ => unreachable!("weights are uploaded as the spec says"),
        }
        if let Some(bias) = &weights.ffn_bias {
            let state = &self.decoder.state;
            let target = match weights.norms.after {
                Some(_) => Target { buffer: &state.part, scale: 1.0 },
                None => Target { buffer: &state.x, scale: spec.residual_scale },
            };
            self.add_bias(layer, Some(bias), target)?;
        }
        self.close(layer, spec, &weights.norms, weights.output_scale.as_ref())
    }

    /// What every part of a layer reads: the normed residual stream, or the stream itself where the norm comes after or is left to the kernel.
    pub fn input(&self, spec: &LayerSpec) -> Input<'a> {
        let GpuDecoder { state, spec: model, .. } = self.decoder;
        let is_raw = spec.residual == Residual::Post || self.fused_norm.is_some();
        Input { x: if is_raw { &state.x } else { &state.normed }, cols: model.hidden_size, norm: self.fused_norm }
    }

    /// As [`input`](Self::input), for a kernel that cannot apply the norm itself.
    pub fn normed_input(&mut self, layer: usize, spec: &LayerSpec) -> Result<Input<'a>> {
        if let Some(InputNorm { weight, .. }) = self.fused_norm {
            let state = &self.decoder.state;
            self.norm(Some(layer), spec.norm, weight, [&state.x, &state.normed], (0, self.key.num_tokens), None)?;
            self.fused_norm = None;
        }
        Ok(self.input(spec))
    }

    /// Begins a part of a layer: its norm, and where its result goes.
    fn open(&mut self, layer: usize, spec: &LayerSpec, norms: &'a Norms) -> Result<Target<'a>> {
        let GpuDecoder { state, .. } = self.decoder;
        self.fused_norm = None;
        if let Some(weight) = &norms.before {
            let num_tokens = self.key.num_tokens;
            match Fused::from_spec(spec.norm) {
                // One token: every kernel norms its input faster than a kernel of its own would be started.
                Some(fused) if num_tokens == 1 => self.fused_norm = Some(InputNorm { fused, weight }),
                _ => self.norm(Some(layer), spec.norm, weight, [&state.x, &state.normed], (0, num_tokens), None)?,
            }
        }
        if norms.after.is_none() {
            return Ok(Target { buffer: &state.x, scale: spec.residual_scale });
        }
        self.recording.clear(&state.part);
        Ok(Target { buffer: &state.part, scale: 1.0 })
    }

    /// Ends a part of a layer: its result goes through the norm that stands after it, and then the stream is scaled.
    fn close(&mut self, layer: usize, spec: &LayerSpec, norms: &Norms, output_scale: Option<&Buffer>) -> Result<()> {
        let GpuDecoder { device, spec: model, state, .. } = self.decoder;
        let Some(weight) = &norms.after else { return Ok(()) };
        let problem = norm::Problem {
            first_row: 0,
            num_tokens: self.key.num_tokens,
            cols: model.hidden_size,
            norm: spec.norm,
            residual: Some(spec.residual_scale),
            output_scale: output_scale.is_some(),
        };
        let buffers = norm::Buffers { x: &state.part, weight, y: &state.x, output_scale };
        norm::record(device, &mut self.recording, Some(layer), &problem, &buffers)
    }

    /// `rows` are the first one and how many.
    pub fn norm(
        &mut self,
        layer: Option<usize>,
        norm: NormSpec,
        weight: &Buffer,
        [x, y]: [&Buffer; 2],
        (first_row, num_tokens): (usize, usize),
        residual: Option<f32>,
    ) -> Result<()> {
        let GpuDecoder { device, spec, .. } = self.decoder;
        let problem = norm::Problem { first_row, num_tokens, cols: spec.hidden_size, norm, residual, output_scale: false };
        norm::record(device, &mut self.recording, layer, &problem, &norm::Buffers { x, weight, y, output_scale: None })
    }

    /// `target += output(attention(input))`
    fn mix(&mut self, layer: usize, spec: &LayerSpec, weights: &MixerWeights, target: Target<'a>) -> Result<()> {
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
    pub fn over_cache(&mut self, layer: usize, attention: &AttentionSpec, sinks: Option<&Buffer>) -> Result<()> {
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

    /// The tiles and the order of a batch whose tokens all go to slot 0, made once; `None` for a single token, which needs neither.
    pub fn known_routing(&mut self) -> Option<[Buffer; 2]> {
        let num_tokens = self.key.num_tokens;
        if num_tokens > 1 && self.known_routing.is_none() {
            let device = &self.decoder.device;
            let everyone = expert_sort::Problem { num_assignments: num_tokens, num_experts: 1 };
            let tile_len = everyone.tile_len(device.caps());
            let tile = |first: usize| [0, first as u32, tile_len.min(num_tokens - first) as u32, 0];
            let mut tiles: Vec<[u32; 4]> = (0..num_tokens).step_by(tile_len).map(tile).collect();
            tiles.resize(everyone.num_tiles(device.caps()), [0; 4]);
            let order: Vec<u32> = (0..num_tokens as u32).collect();
            let upload = |bytes: &[u8]| {
                let buffer = device.storage("known_routing", bytes.len() as u64);
                device.write(&buffer, 0, bytes);
                buffer
            };
            self.known_routing = Some([upload(bytemuck::cast_slice(&tiles)), upload(bytemuck::cast_slice(&order))]);
        }
        self.known_routing.clone()
    }

    /// `y = matrix * input + bias`, where `y` comes with what happens to it and its stride.
    pub fn project(
        &mut self,
        layer: usize,
        (matrix, bias): (&Matrix, Option<&Buffer>),
        input: Input,
        (output, y_stride): (matmul::Output, usize),
        y: &Buffer,
    ) -> Result<()> {
        self.project_scaled(layer, (matrix, bias), input, (output, y_stride, 1.0), y)
    }

    /// As [`project`](Self::project), where the sum is also multiplied by a factor.
    pub fn project_scaled(
        &mut self,
        layer: usize,
        (matrix, bias): (&Matrix, Option<&Buffer>),
        input: Input,
        (output, y_stride, scale): (matmul::Output, usize, f32),
        y: &Buffer,
    ) -> Result<()> {
        let problem = matmul::Problem {
            num_tokens: self.key.num_tokens,
            rows: matrix.num_rows(),
            cols: input.cols,
            y_stride,
            bias: bias.is_some(),
            scale,
            output,
            norm: input.norm.map(|norm| norm.fused),
            quant: matrix.quant,
        };
        let norm = input.norm.map(|norm| norm.weight);
        let buffers = matmul::Buffers { x: input.x, weight: &matrix.shards, bias, norm, y };
        matmul::record(&self.decoder.device, &mut self.recording, Some(layer), &problem, &buffers)
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
    pub fn turn(&mut self, layer: usize, attention: &AttentionSpec, norms: Option<&[Buffer; 2]>) -> Result<()> {
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

    /// `logits = head(norm(x))` for `num_rows` rows from `first_row` on.
    fn head(&mut self, first_row: usize, num_rows: usize) -> Result<()> {
        let GpuDecoder { device, spec, weights, state, .. } = self.decoder;
        let norm = Fused::from_spec(spec.final_norm).filter(|_| self.key.num_tokens == 1);
        let weight = &weights.final_norm;
        let (x, norm_weight) = match norm {
            Some(_) => (&state.x, Some(weight)),
            None => {
                self.norm(None, spec.final_norm, weight, [&state.x, &state.normed], (first_row, num_rows), None)?;
                (&state.normed, None)
            }
        };
        let Matrix { shards, quant } = weights.head.as_ref().unwrap_or(&weights.embedding);
        let problem = matmul::Problem {
            num_tokens: num_rows,
            rows: spec.vocab_size,
            cols: spec.hidden_size,
            y_stride: spec.vocab_size,
            bias: spec.head_bias,
            scale: spec.logit_scale,
            output: spec.logit_softcap.map_or(matmul::Output::Replace, matmul::Output::Capped),
            norm,
            quant,
        };
        let buffers =
            matmul::Buffers { x, weight: shards, bias: weights.head_bias.as_ref(), norm: norm_weight, y: &state.logits };
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
