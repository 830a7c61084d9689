//! The flat list of dispatches of one pass through the model.

use super::faults::Probe;
use super::sampler::{RING, Sampler};
use super::scratch_taps::ScratchTaps;
use crate::batch::{LayerPart, Place};
use crate::blocks::{self, Arena, Cut, DeviceWeights, Matrix, Normed, Parts, Pass, Recorder, Sizes, keep_input};
use crate::error::Result;
use crate::gating::WeightOn;
use crate::gpu::{Buffer, Recording};
use crate::kernels::norm::Fused;
use crate::kernels::{embed, expert_combine, matmul, sample};
use crate::spec::{LayerSpec, ParallelInputs, Role};
use std::sync::Arc;

/// What distinguishes two recordings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PlanKey {
    pub num_tokens: usize,
    pub output: Output,
    /// Keep what every layer's router did.
    pub taps: bool,
}

impl PlanKey {
    pub fn pass(&self) -> Pass {
        Pass { num_tokens: self.num_tokens, keeps_routing: self.taps }
    }
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
    pub recorder: Recorder<'a>,
    /// Where somebody looks for what is not finite.
    pub probe: Option<Probe>,
    /// Where somebody keeps scratch.
    pub taps: Option<ScratchTaps>,
}

/// A recorded pass, with what looked on while it was recorded.
pub(super) struct Recorded {
    pub recording: Recording,
    pub cuts: Vec<Cut>,
    pub pass: Pass,
    /// A token is chosen at the end.
    pub samples: bool,
    pub probe: Option<Probe>,
    pub taps: Option<ScratchTaps>,
}

/// What is run for a pass.
#[derive(Debug)]
pub(super) enum Plan {
    /// All experts are there.
    Whole(Recording),
    /// Of a batch. Between its parts experts may have to be loaded.
    Cut { stages: Vec<Stage>, rest: Recording },
    /// Of a single token, whose routers may halt.
    Steps(Arc<Steps>),
}

/// What single tokens run.
#[derive(Debug)]
pub(super) struct Steps {
    /// Two for every layer with experts, one up to the block with its router and one from there on up to and with the router; and what is left.
    pieces: Vec<Recording>,
    /// One for every layer with experts.
    pub cuts: Vec<Cut>,
    /// A token is chosen at the end.
    pub samples: bool,
}

impl Steps {
    fn new(mut recording: Recording, cuts: Vec<Cut>, samples: bool) -> Self {
        let mut pieces = Vec::with_capacity(2 * cuts.len() + 1);
        for at in cuts.iter().flat_map(|cut| [cut.opened, cut.routed]).rev() {
            pieces.push(recording.split_off(at));
        }
        pieces.push(recording);
        pieces.reverse();
        Steps { pieces, cuts, samples }
    }

    /// From one piece up to another, or to the end.
    pub fn pieces(&self, first: usize, end: Option<usize>) -> &[Recording] {
        &self.pieces[first..end.unwrap_or(self.pieces.len())]
    }
}

/// A pass up to the experts of one layer.
#[derive(Debug)]
pub(super) struct Stage {
    /// Up to and with the router.
    pub before: Recording,
    pub experts: Recording,
    pub cut: Cut,
}

impl Plan {
    /// What was recorded, in parts where not all experts are there.
    pub fn new(recorded: Recorded, is_paged: bool) -> Self {
        let Recorded { mut recording, cuts, pass, samples, .. } = recorded;
        if !is_paged {
            return Plan::Whole(recording);
        }
        if pass.is_decode() {
            return Plan::Steps(Arc::new(Steps::new(recording, cuts, samples)));
        }
        let mut stages = Vec::with_capacity(cuts.len());
        for cut in cuts.into_iter().rev() {
            let rest = recording.split_off(cut.computed);
            let experts = recording.split_off(cut.routed);
            stages.push((rest, experts, cut));
        }
        // From the last cut to the first, what is left of the recording lies before each.
        let mut before = recording;
        let cut = |(rest, experts, cut)| Stage { before: std::mem::replace(&mut before, rest), experts, cut };
        let stages = stages.into_iter().rev().map(cut).collect();
        Plan::Cut { stages, rest: before }
    }

    /// All of its commands, in order.
    pub fn recordings(&self) -> Vec<&Recording> {
        match self {
            Plan::Whole(recording) => vec![recording],
            Plan::Cut { stages, rest } => stages.iter().flat_map(|stage| [&stage.before, &stage.experts]).chain([rest]).collect(),
            Plan::Steps(steps) => steps.pieces.iter().collect(),
        }
    }

    /// # Panics
    /// If it is not that of a single token of a paged decoder.
    pub fn steps(&self) -> Arc<Steps> {
        match self {
            Plan::Steps(steps) => steps.clone(),
            Plan::Whole(_) | Plan::Cut { .. } => unreachable!("a paged decoder walks through plans of single tokens"),
        }
    }
}

/// The scratch that a pass of this shape asks for, beside what `sizes` knows already.
///
/// # Errors
/// As recording.
pub(super) fn rehearse(parts: Parts, num_tokens: usize, sizes: Sizes) -> Result<Sizes> {
    let stand_in = parts.device.storage("stand_in", 0);
    let pass = Pass { num_tokens, keeps_routing: false };
    let mut planner = Planner::new(parts, Arena::Rehearsal { sizes, stand_in }, pass);
    planner.layers()?;
    planner.head_input(0, 1)?;
    match planner.recorder.arena {
        Arena::Rehearsal { sizes, .. } => Ok(sizes),
        Arena::Real { .. } => unreachable!("it was made as a rehearsal"),
    }
}

impl<'a> Planner<'a> {
    pub fn new(parts: Parts<'a>, arena: Arena<'a>, pass: Pass) -> Self {
        Planner { recorder: Recorder::new(parts, arena, pass), probe: None, taps: None }
    }

    /// A pass that ends with `output`.
    ///
    /// # Errors
    /// [`Error::DeviceLimit`](crate::Error::DeviceLimit) where a kernel does not fit the device.
    pub fn record(mut self, sampler: &Sampler, output: Output) -> Result<Recorded> {
        self.layers()?;
        let Pass { num_tokens, keeps_routing } = self.recorder.pass;
        let memory = self.recorder.memory;
        if keeps_routing && self.recorder.pass.is_decode() {
            for taps in &memory.taps {
                taps.keep(&taps.single, &memory.tap_values, num_tokens, &mut self.recorder.recording);
            }
        }
        match output {
            Output::Nothing => {}
            Output::Token => {
                self.head(sampler, num_tokens - 1, 1)?;
                self.sample(sampler)?;
            }
            Output::Logits => self.head(sampler, 0, num_tokens)?,
        }
        let Recorder { recording, cuts, pass, .. } = self.recorder;
        Ok(Recorded { recording, cuts, pass, samples: output == Output::Token, probe: self.probe, taps: self.taps })
    }

    /// From the rows of the pass to the residual stream after the last layer.
    fn layers(&mut self) -> Result<()> {
        self.embed()?;
        self.look(Place::Embedding);
        let model = self.recorder.model;
        for (layer, spec) in model.layers.iter().enumerate() {
            self.recorder.layer = layer;
            if spec.parallel().is_some_and(|parallel| parallel.inputs == ParallelInputs::LayerInput) {
                keep_input(&mut self.recorder);
            }
            for (index, block) in spec.blocks.iter().enumerate() {
                blocks::record(&mut self.recorder, index)?;
                if index + 1 == spec.blocks.len() {
                    self.add_deferred(layer)?;
                }
                if let Some(taps) = &mut self.taps {
                    taps.keep(&mut self.recorder, index);
                }
                let part = if block.is_mixer() { LayerPart::Attention } else { LayerPart::FeedForward };
                self.look(Place::Layer(layer, part));
            }
        }
        Ok(())
    }

    fn embed(&mut self) -> Result<()> {
        let Recorder { device, model, weights, memory, .. } = self.recorder;
        let table = embedding(weights);
        let problem = embed::Problem {
            num_tokens: self.recorder.pass.num_tokens,
            hidden_size: model.hidden_size,
            scale: model.embedding_scale,
            quant: table.quant,
        };
        let x = self.recorder.x();
        let buffers = embed::Buffers { rows: &memory.rows, table: &table.shards, x: &x, positions: None };
        embed::record(device, &mut self.recorder.recording, &problem, &buffers)
    }

    fn look(&mut self, place: Place) {
        let x = self.recorder.x();
        if let Some(probe) = &mut self.probe {
            probe.look(place, &x, &mut self.recorder.recording);
        }
    }

    /// `x += ` what the experts of the layer before gave, where it had to wait.
    fn add_deferred(&mut self, layer: usize) -> Result<()> {
        let is_deferred = |spec: &LayerSpec| spec.parallel().is_some_and(|parallel| parallel.deferred);
        let before = layer.checked_sub(1).map(|before| &self.recorder.model.layers[before]);
        if !before.is_some_and(is_deferred) {
            return Ok(());
        }
        let Recorder { device, model, memory, .. } = self.recorder;
        let (deferred, x) = (self.recorder.stream("deferred"), self.recorder.x());
        // A sum over one assignment of weight one.
        let problem = expert_combine::Problem {
            num_tokens: self.recorder.pass.num_tokens,
            num_experts_per_tok: 1,
            hidden_size: model.hidden_size,
            weight_on: WeightOn::Output,
            scale: 1.0,
        };
        let buffers = expert_combine::Buffers { y: &deferred, weights: &memory.ones, x: &x };
        expert_combine::record(device, &mut self.recorder.recording, Some(layer), &problem, &buffers)
    }

    /// What the head reads for `num_rows` rows from `first_row` on, and the norm that is left to it.
    fn head_input(&mut self, first_row: usize, num_rows: usize) -> Result<(Buffer, Option<Fused>)> {
        let (norm, x, y) = (self.recorder.model.final_norm, self.recorder.x(), self.recorder.stream("normed"));
        let fused = Fused::from_spec(norm).filter(|_| self.recorder.pass.is_decode());
        if fused.is_some() {
            return Ok((x, fused));
        }
        let weight = self.final_norm();
        self.recorder.norm(None, &Normed { norm, weight, x: &x, y: &y, first_row, num_rows, residual: None, rescale: None })?;
        Ok((y, None))
    }

    fn final_norm(&self) -> &'a Buffer {
        let weight = self.recorder.weights.vector(Role::FinalNorm.of_model());
        weight.expect("every model has a final norm")
    }

    /// `logits = head(norm(x))` for `num_rows` rows from `first_row` on.
    fn head(&mut self, sampler: &Sampler, first_row: usize, num_rows: usize) -> Result<()> {
        let (x, norm) = self.head_input(first_row, num_rows)?;
        let Recorder { device, model, weights, .. } = self.recorder;
        let head = weights.matrix(Role::Head.of_model()).unwrap_or_else(|| embedding(weights));
        let problem = matmul::Problem {
            num_tokens: num_rows,
            rows: model.vocab_size,
            cols: model.hidden_size,
            y_stride: model.vocab_size,
            bias: model.head_bias,
            scale: model.logit_scale,
            output: model.logit_softcap.map_or(matmul::Output::Replace, matmul::Output::Capped),
            norm,
            part: None,
            quant: head.quant,
        };
        let bias = weights.vector(Role::HeadBias.of_model());
        let norm = norm.map(|_| self.final_norm());
        let buffers = matmul::Buffers { x: &x, weight: &head.shards, bias, norm, decay: None, y: &sampler.logits };
        matmul::record(device, &mut self.recorder.recording, None, &problem, &buffers)
    }

    fn sample(&mut self, sampler: &Sampler) -> Result<()> {
        let Recorder { device, model, memory, .. } = self.recorder;
        let first_row = self.recorder.pass.num_tokens - 1;
        let halt = memory.halt.as_ref().filter(|_| self.recorder.pass.is_decode()).map(|record| &record.buffer);
        let (vocab_size, halts) = (model.vocab_size, halt.is_some());
        let problem = sample::Problem { num_sequences: 1, vocab_size, first_row, ring: RING, halts };
        let buffers = sample::Buffers {
            sampling: &sampler.sampling,
            logits: &sampler.logits,
            seen: &sampler.seen,
            rows: &memory.rows,
            sampled: &sampler.sampled,
            halt,
        };
        sample::record(device, &mut self.recorder.recording, &problem, &buffers)
    }
}

fn embedding(weights: &DeviceWeights) -> &Matrix {
    weights.matrix(Role::Embedding.of_model()).expect("every model has an embedding")
}
