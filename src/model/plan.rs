//! The flat list of dispatches of one pass through the model.

use super::experts::Experts;
use super::faults::Probe;
use super::gpu_decoder::GpuDecoder;
use super::state::{LayerTaps, RING};
use super::weights::{FfnWeights, LayerWeights, Matrix, Norms};
use crate::error::Result;
use crate::gpu::{Buffer, Recording};
use crate::kernels::norm::Fused;
use crate::kernels::{embed, expert_sort, matmul, norm, sample};
use crate::reference::{LayerPart, Place};
use crate::spec::{Ffn, LayerSpec, NormSpec, ParallelInputs, ParallelSpec, Residual};

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
    /// Where somebody looks for what is not finite.
    pub probe: Option<Probe>,
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

/// Where a part of a layer puts its result.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub buffer: &'a Buffer,
    /// Multiplies the result.
    pub scale: f32,
}

impl<'a> Planner<'a> {
    pub fn new(decoder: &'a GpuDecoder, key: PlanKey) -> Self {
        Planner { decoder, key, recording: Recording::default(), known_routing: None, fused_norm: None, probe: None }
    }

    pub fn record(self) -> Result<Recording> {
        Ok(self.record_probed()?.0)
    }

    /// As [`record`](Self::record), with what the probe has seen.
    pub fn record_probed(mut self) -> Result<(Recording, Option<Probe>)> {
        let GpuDecoder { device, spec, weights, state, .. } = self.decoder;
        let problem = embed::Problem {
            num_tokens: self.key.num_tokens,
            hidden_size: spec.hidden_size,
            scale: spec.embedding_scale,
            quant: weights.embedding.quant,
        };
        let buffers = embed::Buffers { rows: &state.rows, table: &weights.embedding.shards, x: &state.x };
        embed::record(device, &mut self.recording, &problem, &buffers)?;
        self.look(Place::Embedding);
        let mut taps = state.taps.iter();
        for (layer, (spec, weights)) in spec.layers.iter().zip(&weights.layers).enumerate() {
            if matches!(spec.ffn, Ffn::Parallel(ParallelSpec { inputs: ParallelInputs::LayerInput, .. })) {
                self.recording.copy(&state.x, &state.layer_input, 0, state.row_bytes(self.key.num_tokens));
            }
            let target = self.open(layer, spec, &weights.mixer.norms)?;
            self.mix(layer, spec, &weights.mixer, target)?;
            self.close(layer, spec, &weights.mixer.norms, None)?;
            self.look(Place::Layer(layer, LayerPart::Attention));

            self.feed_forward(layer, spec, weights, &mut taps)?;
            self.add_deferred(layer)?;
            self.look(Place::Layer(layer, LayerPart::FeedForward));
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
        Ok((self.recording, self.probe))
    }

    fn look(&mut self, place: Place) {
        if let Some(probe) = &mut self.probe {
            probe.look(place, &self.decoder.state.x, &mut self.recording);
        }
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
