//! The gradient of the router logits.

use super::gate::{Problem as Gate, TokenParams};
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant};
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "grad_gate",
    source: include_str!("../../shaders/grad_gate.wgsl"),
    summary: "training: the gradient of the router logits, by the rule of a gating method and by the losses",
    params: &[("num_tokens", offset_of!(TokenParams, num_tokens))],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "parts"),
        Binding::read(2, "logits"),
        Binding::read(3, "ids"),
        Binding::read(4, "weights"),
        Binding::read(5, "scores"),
        Binding::read(6, "stats"),
        Binding::read(7, "live"),
        Binding::read_write(8, "dlogits"),
    ],
};

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub gate: Gate,
    /// Parts that the gradient of a routing weight comes in.
    pub num_parts: usize,
}

/// # Shapes
/// `parts [num_tokens * width, num_parts]`, `logits`, `dlogits [num_tokens, padded(experts)]`, `ids`, `weights [num_tokens, width]`, `scores [num_tokens, experts]`,
/// `stats [experts + 1] vec4<f32>` of `gate_stats`, `live [5]`, of which the last two are the coefficients of the losses.
pub struct Buffers<'a> {
    pub parts: &'a Buffer,
    pub logits: &'a Buffer,
    pub ids: &'a Buffer,
    pub weights: &'a Buffer,
    pub scores: &'a Buffer,
    pub stats: &'a Buffer,
    pub live: &'a Buffer,
    pub dlogits: &'a Buffer,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    problem.gate.variant(caps).u32("NUM_PARTS", problem.num_parts)
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
            params: bytemuck::bytes_of(&TokenParams::new(problem.gate.num_tokens)),
            buffers: &[
                ("parts", buffers.parts),
                ("logits", buffers.logits),
                ("ids", buffers.ids),
                ("weights", buffers.weights),
                ("scores", buffers.scores),
                ("stats", buffers.stats),
                ("live", buffers.live),
                ("dlogits", buffers.dlogits),
            ],
            grid: [problem.gate.num_tokens.div_ceil(device.caps().plain_workgroup()), 1, 1],
        },
    )
}
