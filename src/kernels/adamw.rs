//! A step of AdamW over an arena of weights.

use super::to_u32;
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant};
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "adamw",
    source: include_str!("../../shaders/adamw.wgsl"),
    summary: "training: a step of AdamW over all weights",
    params: &[
        ("num_quads", offset_of!(Params, num_quads)),
        ("num_decayed", offset_of!(Params, num_decayed)),
        ("num_groups", offset_of!(Params, num_groups)),
    ],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "gradients"),
        Binding::read(2, "control"),
        Binding::read(3, "live"),
        Binding::read_write(4, "weights"),
        Binding::read_write(5, "first"),
        Binding::read_write(6, "second"),
    ],
};

/// Workgroups, at most.
const MOST_GROUPS: usize = 1024;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    num_quads: u32,
    num_decayed: u32,
    num_groups: u32,
    padding: u32,
}

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_quads: usize,
    /// Quads that decay, from the first on.
    pub num_decayed: usize,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub weight_decay: f32,
}

/// # Shapes
/// `gradients`, `weights`, `first`, `second [num_quads] vec4<f32>`, `control [4]` of `clip`, `live [3]`: learning rate and both corrections.
pub struct Buffers<'a> {
    pub gradients: &'a Buffer,
    pub control: &'a Buffer,
    pub live: &'a Buffer,
    pub weights: &'a Buffer,
    pub first: &'a Buffer,
    pub second: &'a Buffer,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    Variant::new()
        .u32("WG", caps.plain_workgroup())
        .f32("BETA1", problem.beta1)
        .f32("BETA2", problem.beta2)
        .f32("ADAM_EPS", problem.eps)
        .f32("DECAY", problem.weight_decay)
}

pub fn record(device: &Device, recording: &mut Recording, problem: &Problem, buffers: &Buffers) -> Result<()> {
    let groups = problem.num_quads.div_ceil(device.caps().plain_workgroup()).clamp(1, MOST_GROUPS);
    let params = Params {
        num_quads: to_u32(problem.num_quads),
        num_decayed: to_u32(problem.num_decayed),
        num_groups: to_u32(groups),
        padding: 0,
    };
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant: choose(device.caps(), problem),
            layer: None,
            params: bytemuck::bytes_of(&params),
            buffers: &[
                ("gradients", buffers.gradients),
                ("control", buffers.control),
                ("live", buffers.live),
                ("weights", buffers.weights),
                ("first", buffers.first),
                ("second", buffers.second),
            ],
            grid: [groups, 1, 1],
        },
    )
}
