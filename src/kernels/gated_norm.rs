//! An RMSNorm of groups of columns with a gate.

use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant};
use crate::spec::{GateActivation, GatedNormSpec};

pub static KERNEL: Kernel = Kernel {
    name: "gated_norm",
    source: include_str!("../../shaders/gated_norm.wgsl"),
    summary: "RMSNorm of groups of columns, with a gate before or after it",
    params: &[],
    bindings: &[Binding::read(0, "x"), Binding::read(1, "gate"), Binding::read(2, "weight"), Binding::read_write(3, "y")],
};

#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    pub num_tokens: usize,
    /// Columns of all groups together. Each group has a multiple of 4.
    pub cols: usize,
    pub norm: &'a GatedNormSpec,
    /// Values from one row to the next of `x` and `y`, and of `gate`, whose first is at `gate_first`. Multiples of 4.
    pub stride: usize,
    pub gate_stride: usize,
    pub gate_first: usize,
}

/// # Shapes
/// `x [num_tokens, stride]`, `gate [num_tokens, gate_stride]`, `weight [cols]` or of one group, `y [num_tokens, stride]`.
pub struct Buffers<'a> {
    pub x: &'a Buffer,
    pub gate: &'a Buffer,
    pub weight: &'a Buffer,
    pub y: &'a Buffer,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    Variant::new()
        .u32("WG", caps.plain_workgroup())
        .u32("LOADS", caps.loads(4))
        .u32("GROUP_QUADS", problem.cols / problem.norm.groups / 4)
        .u32("ROW_QUADS", problem.stride / 4)
        .u32("GATE_QUADS", problem.gate_stride / 4)
        .u32("GATE_FROM", problem.gate_first / 4)
        .f32("EPS", problem.norm.eps)
        .flag_if(problem.norm.gate_first, "GATE_FIRST")
        .flag_if(problem.norm.activation == GateActivation::Sigmoid, "SIGMOID")
        .flag_if(problem.norm.shared_weight, "SHARED_WEIGHT")
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
            params: &[],
            buffers: &[("x", buffers.x), ("gate", buffers.gate), ("weight", buffers.weight), ("y", buffers.y)],
            grid: [problem.norm.groups, problem.num_tokens, 1],
        },
    )
}
