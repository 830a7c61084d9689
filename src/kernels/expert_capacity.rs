//! Which assignments are dropped, because their expert has no place left.

use super::to_u32;
use crate::error::Result;
use crate::gating::CallCapacity;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant};
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "expert_capacity",
    source: include_str!("../../shaders/expert_capacity.wgsl"),
    summary: "which assignments are dropped, where experts take only so many tokens of a call",
    params: &[
        ("num_tokens", offset_of!(Params, num_tokens)),
        ("capacity", offset_of!(Params, capacity)),
        ("load_offset", offset_of!(Params, load_offset)),
    ],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "ids"),
        Binding::read_write(2, "weights"),
        Binding::read_write(3, "kept"),
        Binding::read_write(4, "loads"),
    ],
};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    num_tokens: u32,
    capacity: u32,
    load_offset: u32,
    padding: u32,
}

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    /// Of the call, all of which are in this pass.
    pub num_tokens: usize,
    pub num_experts_per_tok: usize,
    pub capacity: CallCapacity,
    /// Where in `loads` this layer's experts are counted.
    pub load_offset: usize,
}

/// # Shapes
/// `ids`, `weights`, `kept [num_tokens, top_k]`, `loads [load_offset + experts]`.
pub struct Buffers<'a> {
    pub ids: &'a Buffer,
    pub weights: &'a Buffer,
    pub kept: &'a Buffer,
    pub loads: &'a Buffer,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    let variant = Variant::new().u32("WG", caps.plain_workgroup()).u32("TOP_K", problem.num_experts_per_tok);
    match problem.capacity.renormalize {
        Some(floor) => variant.flag("RENORMALIZE").f32("FLOOR", floor),
        None => variant,
    }
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    let variant = choose(device.caps(), problem);
    let groups = problem.num_tokens.div_ceil(variant.get("WG") as usize);
    // A limit beyond the tokens drops nothing, however large it is.
    let capacity = problem.capacity.limit(problem.num_tokens).min(problem.num_tokens * problem.num_experts_per_tok);
    let params = Params {
        num_tokens: to_u32(problem.num_tokens),
        capacity: to_u32(capacity),
        load_offset: to_u32(problem.load_offset),
        padding: 0,
    };
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant,
            layer,
            params: bytemuck::bytes_of(&params),
            buffers: &[("ids", buffers.ids), ("weights", buffers.weights), ("kept", buffers.kept), ("loads", buffers.loads)],
            grid: [groups, 1, 1],
        },
    )
}
