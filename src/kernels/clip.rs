//! The norm of all gradients, and what bounds it.

use super::to_u32;
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Device, DispatchDescriptor, Kernel, Recording, Variant};
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "clip",
    source: include_str!("../../shaders/clip.wgsl"),
    summary: "training: the norm of all gradients, and what bounds it",
    params: &[("num_parts", offset_of!(Params, num_parts))],
    bindings: &[Binding::uniform(0, "params"), Binding::read(1, "parts"), Binding::read_write(2, "control")],
};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    num_parts: u32,
    padding: [u32; 3],
}

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_parts: usize,
    /// The largest norm that is let through.
    pub clip_norm: f32,
}

/// # Shapes
/// `parts [num_parts]`, `control [4]`: norm, factor, 1 where the norm is a number, 0.
pub struct Buffers<'a> {
    pub parts: &'a Buffer,
    pub control: &'a Buffer,
}

pub fn choose(problem: &Problem) -> Variant {
    Variant::new().u32("WG", 1).f32("CLIP_NORM", problem.clip_norm)
}

pub fn record(device: &Device, recording: &mut Recording, problem: &Problem, buffers: &Buffers) -> Result<()> {
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant: choose(problem),
            layer: None,
            params: bytemuck::bytes_of(&Params { num_parts: to_u32(problem.num_parts), padding: [0; 3] }),
            buffers: &[("parts", buffers.parts), ("control", buffers.control)],
            grid: [1, 1, 1],
        },
    )
}
