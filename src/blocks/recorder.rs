//! What a block records with: the device, its weights, its scratch, what it keeps, and the recording.

use super::halt::HaltRecord;
use super::memory::{BlockMemory, Memory};
use super::scratch::Arena;
use super::taps::LayerTaps;
use super::weights::{DeviceWeights, Matrix};
use crate::error::Result;
use crate::gpu::{Buffer, Device, Recording};
use crate::kernels::norm::Fused;
use crate::kernels::regroup::{Regroup, Strides};
use crate::kernels::router_topk::Halting;
use crate::kernels::{Slabs, expert_sort, matmul, norm, regroup};
use crate::quant::padded;
use crate::spec::{BlockSpec, LayerSpec, ModelSpec, NormSpec, Residual, Role};

/// The shape of one pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pass {
    pub num_tokens: usize,
    /// Keep what every layer's router did.
    pub keeps_routing: bool,
}

impl Pass {
    /// A single token, for which other kernels are fast than for a batch.
    pub fn is_decode(self) -> bool {
        self.num_tokens == 1
    }
}

/// What a pass is recorded from.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub device: &'a Device,
    pub model: &'a ModelSpec,
    pub weights: &'a DeviceWeights,
    pub memory: &'a Memory,
}

/// A place between two commands where experts may be loaded: the router of a layer has chosen, and its experts have not run.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    pub layer: usize,
    /// Index of the first command of the block with the router.
    pub opened: usize,
    /// Index of the first command after the choice.
    pub routed: usize,
    /// Index of the first command that follows the experts. In between nothing else is done, and of a batch it may be done again for other experts.
    pub computed: usize,
    /// `[num_tokens, experts_per_token]`, what was chosen.
    pub ids: Buffer,
    /// Likewise the cache slots, which are read of a single token.
    pub slots: Buffer,
}

/// Records the blocks of a pass, one after the other.
pub(crate) struct Recorder<'a> {
    pub device: &'a Device,
    pub model: &'a ModelSpec,
    pub weights: &'a DeviceWeights,
    pub memory: &'a Memory,
    pub arena: Arena<'a>,
    pub pass: Pass,
    pub recording: Recording,
    /// One for every layer with a router of experts.
    pub cuts: Vec<Cut>,
    /// Index of the layer that is being recorded.
    pub layer: usize,
    /// Index of the block in its layer.
    block: usize,
    /// Index of its first command.
    opened: usize,
    /// The norm that the block being recorded leaves to the kernels which read its input.
    fused_norm: Option<InputNorm<'a>>,
    /// Made when first asked for.
    known_routing: Option<[Buffer; 2]>,
}

/// What a kernel reads: rows of `cols` values, which may still have to go through a norm.
#[derive(Clone)]
pub(super) struct Input<'a> {
    pub x: Buffer,
    pub cols: usize,
    pub norm: Option<InputNorm<'a>>,
    /// Where `x` has more columns.
    pub part: Option<matmul::Part>,
}

impl<'a> Input<'a> {
    /// Rows of their own, as they are.
    pub fn plain(x: Buffer, cols: usize) -> Self {
        Input { x, cols, norm: None, part: None }
    }
}

/// An RMSNorm that a kernel applies itself, and its weight.
#[derive(Clone, Copy)]
pub(super) struct InputNorm<'a> {
    pub fused: Fused,
    pub weight: &'a Buffer,
}

/// Where a block puts its result.
#[derive(Clone)]
pub(super) struct Target {
    pub buffer: Buffer,
    /// Multiplies the result.
    pub scale: f32,
}

/// `y = scale * (matrix * input + bias)`, and what `output` says.
pub(super) struct Projection<'b> {
    pub matrix: &'b Matrix,
    pub bias: Option<&'b Buffer>,
    pub input: &'b Input<'b>,
    pub output: matmul::Output,
    /// Of [`matmul::Output::Decay`].
    pub decay: Option<&'b Buffer>,
    pub y: &'b Buffer,
    /// Values from one row of `y` to the next.
    pub y_stride: usize,
    pub scale: f32,
}

impl<'b> Projection<'b> {
    /// To rows of their own, without a bias.
    pub fn new(matrix: &'b Matrix, input: &'b Input<'b>, y: &'b Buffer) -> Self {
        let y_stride = padded(matrix.num_rows());
        Projection { matrix, bias: None, input, output: matmul::Output::Replace, decay: None, y, y_stride, scale: 1.0 }
    }
}

/// Rows of the residual stream that go through a norm.
pub(crate) struct Normed<'b> {
    pub norm: NormSpec,
    pub weight: &'b Buffer,
    pub x: &'b Buffer,
    pub y: &'b Buffer,
    pub first_row: usize,
    pub num_rows: usize,
    /// Added to `y` so many times, instead of replacing it.
    pub residual: Option<f32>,
    /// `x` becomes so many times the result.
    pub rescale: Option<f32>,
}

/// Rows of `len` values to column `first` of rows of another stride.
pub(super) struct Placed<'b> {
    pub x: &'b Buffer,
    pub x_stride: usize,
    pub len: usize,
    pub y: &'b Buffer,
    pub y_stride: usize,
    pub first: usize,
}

impl<'a> Recorder<'a> {
    pub fn new(parts: Parts<'a>, arena: Arena<'a>, pass: Pass) -> Self {
        let Parts { device, model, weights, memory } = parts;
        let recording = if arena.is_rehearsal() { Recording::rehearsal() } else { Recording::default() };
        let (fused_norm, known_routing, cuts) = (None, None, Vec::new());
        let (layer, block, opened) = (0, 0, 0);
        Recorder { device, model, weights, memory, arena, pass, recording, cuts, layer, block, opened, fused_norm, known_routing }
    }

    /// Begins a block of the current layer.
    pub fn begin(&mut self, block: usize) -> &'a BlockSpec {
        self.block = block;
        self.opened = self.recording.commands().len();
        self.arena.begin_block();
        self.fused_norm = None;
        &self.layer_spec().blocks[block]
    }

    pub fn layer_spec(&self) -> &'a LayerSpec {
        &self.model.layers[self.layer]
    }

    fn block_spec(&self) -> &'a BlockSpec {
        &self.layer_spec().blocks[self.block]
    }

    /// Scratch of `width` values for every row of the pass.
    pub fn scratch(&mut self, name: &'static str, width: usize) -> Buffer {
        self.arena.per_token(name, width)
    }

    /// Rows as wide as the model.
    pub fn stream(&mut self, name: &'static str) -> Buffer {
        self.scratch(name, padded(self.model.hidden_size))
    }

    /// The residual stream.
    pub fn x(&mut self) -> Buffer {
        self.stream("x")
    }

    /// Bytes of the rows of a [`stream`](Self::stream) in this pass.
    pub fn stream_bytes(&self) -> u64 {
        (self.pass.num_tokens * padded(self.model.hidden_size) * 4) as u64
    }

    pub fn vector(&self, role: Role) -> Option<&'a Buffer> {
        self.weights.vector(role.of_layer(self.layer))
    }

    pub(super) fn find_matrix(&self, role: Role) -> Option<&'a Matrix> {
        self.weights.matrix(role.of_layer(self.layer))
    }

    /// # Panics
    /// If the layer has no such matrix: the spec of the block declares it.
    pub(super) fn matrix(&self, role: Role) -> &'a Matrix {
        self.find_matrix(role).unwrap_or_else(|| panic!("layer {} has no {role:?}", self.layer))
    }

    /// A matrix whose rows may be in several formats.
    pub(super) fn matrices(&self, role: Role) -> &'a [Matrix] {
        self.weights.matrices(role.of_layer(self.layer))
    }

    pub(super) fn slabs(&self, role: Role) -> &'a Slabs {
        self.weights.slabs(self.layer, role)
    }

    /// The cache slot of each expert that the router of this role chooses from.
    pub(super) fn slot_table(&self, router: Role) -> &'a Buffer {
        &self.weights.slot_tables[&router.of_layer(self.layer)]
    }

    /// What the block keeps.
    pub(super) fn own_memory(&self) -> &'a BlockMemory {
        &self.memory.layers[self.layer][self.block]
    }

    /// What the layer's router of experts leaves.
    pub(super) fn taps(&self) -> &'a LayerTaps {
        let found = self.memory.taps.iter().find(|taps| taps.layer == self.layer);
        found.expect("every layer with a router has taps")
    }

    /// Where a router of experts notes what is absent: of a single token, where not all experts have slots.
    pub(super) fn halt_record(&self, router: Role) -> Option<&'a HaltRecord> {
        self.memory.halt.as_ref().filter(|_| self.pass.is_decode() && router == Role::Router)
    }

    /// As [`halt_record`](Self::halt_record), for the current layer.
    pub(super) fn halting(&self, router: Role) -> Option<Halting> {
        let place = self.memory.taps.iter().position(|taps| taps.layer == self.layer);
        self.halt_record(router).zip(place).map(|(record, place)| record.halting(place))
    }

    /// Where a router of the current layer counts what is not finite.
    pub(super) fn fault_place(&self, router: Role) -> usize {
        self.halt_record(router).map_or(self.layer, |record| record.fault_place(self.layer))
    }

    /// The experts in `ids` have been chosen, and their `slots` looked up.
    pub(super) fn begin_experts(&mut self, ids: &Buffer, slots: &Buffer) {
        let here = self.recording.commands().len();
        let (layer, opened) = (self.layer, self.opened);
        self.cuts.push(Cut { layer, opened, routed: here, computed: here, ids: ids.clone(), slots: slots.clone() });
    }

    /// The chosen experts have run.
    pub(super) fn end_experts(&mut self) {
        let here = self.recording.commands().len();
        self.cuts.last_mut().expect("experts have begun").computed = here;
    }

    /// What every block reads: the normed residual stream, or the stream itself where the norm comes after or is left to the kernel.
    pub(super) fn input(&mut self) -> Input<'a> {
        let is_raw = self.layer_spec().residual == Residual::Post || self.fused_norm.is_some();
        let x = self.stream(if is_raw { "x" } else { "normed" });
        Input { norm: self.fused_norm, ..Input::plain(x, self.model.hidden_size) }
    }

    /// As [`input`](Self::input), for a kernel that cannot apply the norm itself.
    pub(super) fn normed_input(&mut self) -> Result<Input<'a>> {
        if let Some(InputNorm { weight, .. }) = self.fused_norm {
            self.norm_stream(weight, "x")?;
            self.fused_norm = None;
        }
        Ok(self.input())
    }

    /// Begins a block: the norm before it, and where its result goes.
    pub(super) fn open(&mut self) -> Result<Target> {
        let spec = self.layer_spec();
        let [before, _] = self.block_spec().norm_roles();
        let (rescale, _) = spec.factors(self.block_spec());
        if let (Some(weight), Some(_)) = (self.vector(before), rescale) {
            let (norm, num_rows, x, y) = (spec.norm, self.pass.num_tokens, self.x(), self.stream("normed"));
            let normed = Normed { norm, weight, x: &x, y: &y, first_row: 0, num_rows, residual: None, rescale };
            self.norm(Some(self.layer), &normed)?;
        } else if let Some(weight) = self.vector(before) {
            match Fused::from_spec(spec.norm) {
                // One token: every kernel norms its input faster than a kernel of its own would be started.
                Some(fused) if self.pass.is_decode() => self.fused_norm = Some(InputNorm { fused, weight }),
                _ => self.norm_stream(weight, "x")?,
            }
        }
        Ok(self.target())
    }

    /// Where the result of the block goes: to the residual stream, or to a norm that stands before it.
    pub(super) fn target(&mut self) -> Target {
        let [_, after] = self.block_spec().norm_roles();
        if self.vector(after).is_none() {
            return Target { buffer: self.x(), scale: self.layer_spec().factors(self.block_spec()).1 };
        }
        let part = self.stream("part");
        self.recording.clear(&part);
        Target { buffer: part, scale: 1.0 }
    }

    /// Ends a block: its result goes through the norm that stands after it, and after the last block of a layer the stream is scaled.
    pub(super) fn close(&mut self) -> Result<()> {
        let spec = self.layer_spec();
        let [_, after] = self.block_spec().norm_roles();
        let Some(weight) = self.vector(after) else { return Ok(()) };
        let is_last = self.block + 1 == spec.blocks.len();
        let output_scale = self.vector(Role::OutputScale).filter(|_| is_last);
        let problem = norm::Problem {
            first_row: 0,
            num_tokens: self.pass.num_tokens,
            cols: self.model.hidden_size,
            norm: spec.norm,
            residual: Some(spec.residual_scale),
            output_scale: output_scale.is_some(),
            rescale: None,
        };
        let (x, y) = (self.stream("part"), self.x());
        let buffers = norm::Buffers { x: &x, weight, y: &y, output_scale };
        norm::record(self.device, &mut self.recording, Some(self.layer), &problem, &buffers)
    }

    /// `normed = norm(from)`, with the layer's norm.
    pub(super) fn norm_stream(&mut self, weight: &Buffer, from: &'static str) -> Result<()> {
        let (norm, num_rows) = (self.layer_spec().norm, self.pass.num_tokens);
        let (x, y) = (self.stream(from), self.stream("normed"));
        self.norm(Some(self.layer), &Normed { norm, weight, x: &x, y: &y, first_row: 0, num_rows, residual: None, rescale: None })
    }

    pub fn norm(&mut self, layer: Option<usize>, normed: &Normed) -> Result<()> {
        let Normed { norm, weight, x, y, first_row, num_rows: num_tokens, residual, rescale } = *normed;
        let cols = self.model.hidden_size;
        let problem = norm::Problem { first_row, num_tokens, cols, norm, residual, output_scale: false, rescale };
        norm::record(self.device, &mut self.recording, layer, &problem, &norm::Buffers { x, weight, y, output_scale: None })
    }

    pub(super) fn project(&mut self, projection: &Projection) -> Result<()> {
        let Projection { matrix, bias, input, output, decay, y, y_stride, scale } = *projection;
        let problem = matmul::Problem {
            num_tokens: self.pass.num_tokens,
            rows: matrix.num_rows(),
            cols: input.cols,
            y_stride,
            bias: bias.is_some(),
            scale,
            output,
            norm: input.norm.map(|norm| norm.fused),
            part: input.part,
            quant: matrix.quant,
        };
        let norm = input.norm.map(|norm| norm.weight);
        let buffers = matmul::Buffers { x: &input.x, weight: &matrix.shards, bias, norm, decay, y };
        matmul::record(self.device, &mut self.recording, Some(self.layer), &problem, &buffers)
    }

    /// Query, key and value to rows of `y_stride` of `y`, where each may be in a format of its own.
    pub(super) fn project_qkv(&mut self, input: &Input, y: &Buffer, y_stride: usize) -> Result<()> {
        let bias = self.vector(Role::QkvBias);
        for matrix in self.matrices(Role::Qkv) {
            self.project(&Projection { bias, y_stride, ..Projection::new(matrix, input, y) })?;
        }
        Ok(())
    }

    /// `target += bias`, for every token, where there is one.
    pub(super) fn add_bias(&mut self, bias: Option<&Buffer>, target: &Target) -> Result<()> {
        let Some(bias) = bias else { return Ok(()) };
        let hidden = self.model.hidden_size;
        let row = |token: usize| Strides { first: 0, token, outer: 0, inner: 0 };
        let y = row(padded(hidden));
        let shape = Regroup { outer: 1, inner: 1, len: hidden, x: row(0), y, add: Some(target.scale) };
        self.regroup(shape, [bias, &target.buffer])
    }

    pub(super) fn place(&mut self, placed: &Placed) -> Result<()> {
        let Placed { x, x_stride, len, y, y_stride, first } = *placed;
        let from = Strides { first: 0, token: x_stride, outer: 0, inner: 0 };
        let to = Strides { first, token: y_stride, outer: 0, inner: 0 };
        self.regroup(Regroup { outer: 1, inner: 1, len, x: from, y: to, add: None }, [x, y])
    }

    pub(super) fn regroup(&mut self, shape: Regroup, [x, y]: [&Buffer; 2]) -> Result<()> {
        let problem = regroup::Problem { num_tokens: self.pass.num_tokens, shape };
        regroup::record(self.device, &mut self.recording, Some(self.layer), &problem, &regroup::Buffers { x, y })
    }

    /// The tiles and the order of a batch whose tokens all go to slot 0, made once; `None` for a single token, which needs neither.
    pub(super) fn known_routing(&mut self) -> Option<[Buffer; 2]> {
        let num_tokens = self.pass.num_tokens;
        if !self.pass.is_decode() && self.known_routing.is_none() {
            let device = self.device;
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
}
