//! The gradient of the input of an RMSNorm.

use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant};
use crate::quant::padded;

pub static KERNEL: Kernel = Kernel {
    name: "grad_norm",
    source: include_str!("../../shaders/grad_norm.wgsl"),
    summary: "training: the gradient of the input of an RMSNorm",
    params: &[],
    bindings: &[
        Binding::read(0, "x"),
        Binding::read(1, "weight"),
        Binding::read(2, "dy"),
        Binding::read_write(3, "dx"),
        Binding::read_write(4, "scales"),
    ],
};

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_tokens: usize,
    pub cols: usize,
    pub eps: f32,
    /// `dx` is replaced instead of added to.
    pub replace: bool,
}

/// # Shapes
/// `x`, `dy`, `dx [num_tokens, padded(cols)]`, `weight [padded(cols)]`, `scales [num_tokens]`.
pub struct Buffers<'a> {
    pub x: &'a Buffer,
    pub weight: &'a Buffer,
    pub dy: &'a Buffer,
    pub dx: &'a Buffer,
    pub scales: &'a Buffer,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    Variant::new()
        .u32("WG", caps.plain_workgroup())
        .u32("COLUMNS", problem.cols)
        .u32("ROW_QUADS", padded(problem.cols) / 4)
        .f32("EPS", problem.eps)
        .flag_if(problem.replace, "REPLACE")
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
            buffers: &[
                ("x", buffers.x),
                ("weight", buffers.weight),
                ("dy", buffers.dy),
                ("dx", buffers.dx),
                ("scales", buffers.scales),
            ],
            grid: [problem.num_tokens, 1, 1],
        },
    )
}
