//! The gradient of the weight of an RMSNorm.

use super::to_u32;
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant};
use crate::quant::padded;
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "grad_norm_weight",
    source: include_str!("../../shaders/grad_norm_weight.wgsl"),
    summary: "training: the gradient of the weight of an RMSNorm",
    params: &[("num_tokens", offset_of!(Params, num_tokens))],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "x"),
        Binding::read(2, "dy"),
        Binding::read(3, "scales"),
        Binding::read_write(4, "dweight"),
    ],
};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    num_tokens: u32,
    padding: [u32; 3],
}

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_tokens: usize,
    pub cols: usize,
    /// Added to what `dweight` holds.
    pub accumulate: bool,
}

/// # Shapes
/// `x`, `dy [num_tokens, padded(cols)]`, `scales [num_tokens]`, `dweight [padded(cols)]`.
pub struct Buffers<'a> {
    pub x: &'a Buffer,
    pub dy: &'a Buffer,
    pub scales: &'a Buffer,
    pub dweight: &'a Buffer,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    Variant::new()
        .u32("WG", caps.plain_workgroup())
        .u32("ROW_QUADS", padded(problem.cols) / 4)
        .flag_if(problem.accumulate, "ACCUMULATE")
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
            params: bytemuck::bytes_of(&Params { num_tokens: to_u32(problem.num_tokens), padding: [0; 3] }),
            buffers: &[("x", buffers.x), ("dy", buffers.dy), ("scales", buffers.scales), ("dweight", buffers.dweight)],
            grid: [padded(problem.cols) / 4, 1, 1],
        },
    )
}
