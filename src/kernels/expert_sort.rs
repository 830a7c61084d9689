//! Assignments in the order of their experts, cut into tiles.

use super::{tile::Tile, to_u32};
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Profile, Recording, Variant};
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "expert_sort",
    source: include_str!("../../shaders/expert_sort.wgsl"),
    summary: "assignments by expert, cut into tiles of one expert",
    params: &[("num_assignments", offset_of!(Params, num_assignments)), ("num_tiles", offset_of!(Params, num_tiles))],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "ids"),
        Binding::read(2, "slot_table"),
        Binding::read_write(3, "tiles"),
        Binding::read_write(4, "order"),
    ],
};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    num_assignments: u32,
    num_tiles: u32,
    padding: [u32; 2],
}

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_assignments: usize,
    pub num_experts: usize,
}

/// # Shapes
/// `ids [assignments]`, `slot_table [experts]`, `tiles [num_tiles] vec4<u32>`, `order [assignments]`.
pub struct Buffers<'a> {
    pub ids: &'a Buffer,
    pub slot_table: &'a Buffer,
    pub tiles: &'a Buffer,
    pub order: &'a Buffer,
}

/// Assignments that one tile holds: what the expert kernels of this device take.
pub fn tile_len(caps: &Caps) -> usize {
    Tile::choose(caps, usize::MAX, usize::MAX).tokens
}

/// Tiles that suffice for any routing of `num_assignments` to `num_experts`.
pub fn num_tiles(tile_len: usize, num_assignments: usize, num_experts: usize) -> usize {
    num_assignments.div_ceil(tile_len) + num_experts.min(num_assignments)
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    Variant::new()
        .u32("WG", if caps.profile == Profile::Cpu { 8 } else { 256 })
        .u32("NUM_EXPERTS", problem.num_experts)
        .u32("TOKENS", tile_len(caps))
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    let num_tiles = num_tiles(tile_len(device.caps()), problem.num_assignments, problem.num_experts);
    let params = Params { num_assignments: to_u32(problem.num_assignments), num_tiles: to_u32(num_tiles), padding: [0; 2] };
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant: choose(device.caps(), problem),
            layer,
            params: bytemuck::bytes_of(&params),
            buffers: &[
                ("ids", buffers.ids),
                ("slot_table", buffers.slot_table),
                ("tiles", buffers.tiles),
                ("order", buffers.order),
            ],
            grid: [1, 1, 1],
        },
    )
}
