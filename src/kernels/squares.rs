//! Sums of squares of all gradients, in parts.

use super::to_u32;
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant};
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "squares",
    source: include_str!("../../shaders/squares.wgsl"),
    summary: "training: sums of the squares of all gradients, in parts",
    params: &[("num_quads", offset_of!(Params, num_quads)), ("first_part", offset_of!(Params, first_part))],
    bindings: &[Binding::uniform(0, "params"), Binding::read(1, "gradients"), Binding::read_write(2, "parts")],
};

/// Parts of one arena.
pub const NUM_PARTS: usize = 64;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    num_quads: u32,
    first_part: u32,
    padding: [u32; 2],
}

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    /// Quads of gradients.
    pub num_quads: usize,
    /// Where in `parts` those of this arena begin.
    pub first_part: usize,
}

/// # Shapes
/// `gradients [num_quads] vec4<f32>`, `parts [first_part + NUM_PARTS]`.
pub struct Buffers<'a> {
    pub gradients: &'a Buffer,
    pub parts: &'a Buffer,
}

pub fn choose(caps: &Caps) -> Variant {
    Variant::new().u32("WG", caps.plain_workgroup()).u32("NUM_PARTS", NUM_PARTS)
}

pub fn record(device: &Device, recording: &mut Recording, problem: &Problem, buffers: &Buffers) -> Result<()> {
    let params = Params { num_quads: to_u32(problem.num_quads), first_part: to_u32(problem.first_part), padding: [0; 2] };
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant: choose(device.caps()),
            layer: None,
            params: bytemuck::bytes_of(&params),
            buffers: &[("gradients", buffers.gradients), ("parts", buffers.parts)],
            grid: [NUM_PARTS, 1, 1],
        },
    )
}
