//! What the losses of a router need.

use super::gate::{Problem, TokenParams};
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant};
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "gate_stats",
    source: include_str!("../../shaders/gate_stats.wgsl"),
    summary: "training: assignments and scores of every expert, for the losses of the router",
    params: &[("num_tokens", offset_of!(TokenParams, num_tokens))],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "logits"),
        Binding::read(2, "ids"),
        Binding::read(3, "scores"),
        Binding::read_write(4, "stats"),
    ],
};

/// # Shapes
/// `logits [num_tokens, padded(experts)]`, `ids [num_tokens, width]`, `scores [num_tokens, experts]`, `stats [experts + 1] vec4<f32>`.
pub struct Buffers<'a> {
    pub logits: &'a Buffer,
    pub ids: &'a Buffer,
    pub scores: &'a Buffer,
    pub stats: &'a Buffer,
}

/// The rule of the problem does not matter here.
pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    problem.sizes(caps)
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant: choose(device.caps(), problem),
            layer,
            params: bytemuck::bytes_of(&TokenParams::new(problem.num_tokens)),
            buffers: &[("logits", buffers.logits), ("ids", buffers.ids), ("scores", buffers.scores), ("stats", buffers.stats)],
            grid: [problem.num_experts + 1, 1, 1],
        },
    )
}
