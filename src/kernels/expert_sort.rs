//! Assignments in the order of their experts, cut into tiles.

use super::{tile, to_u32};
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Profile, Recording, Variant, When};
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
        Binding::read_write(5, "starts").only(When::Flag("STARTS")),
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
    /// `[experts + 1]`, where somebody goes through the assignments of an expert.
    pub starts: Option<&'a Buffer>,
}

impl Problem {
    /// Assignments that one tile holds: what the expert kernels of this device take if every expert gets its share.
    pub fn tile_len(&self, caps: &Caps) -> usize {
        let share = self.num_assignments.div_ceil(self.num_experts);
        tile::tile_tokens(caps, share).max(tile::FEW_TOKENS)
    }

    /// Tiles that suffice for any routing.
    pub fn num_tiles(&self, caps: &Caps) -> usize {
        self.tiles_of(self.tile_len(caps))
    }

    /// Tiles that suffice for this many assignments, or fewer, or to fewer experts: some of them take shorter tiles.
    pub fn max_tiles(&self) -> usize {
        self.tiles_of(tile::FEW_TOKENS)
    }

    /// Every expert may leave its last tile unfilled.
    fn tiles_of(&self, tile_len: usize) -> usize {
        self.num_assignments.div_ceil(tile_len) + self.num_experts.min(self.num_assignments)
    }
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    Variant::new()
        .u32("WG", if caps.profile == Profile::Cpu { 8 } else { 256 })
        .u32("LOADS", caps.loads(8))
        .u32("NUM_EXPERTS", problem.num_experts)
        .u32("TOKENS", problem.tile_len(caps))
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    let num_tiles = to_u32(problem.num_tiles(device.caps()));
    let params = Params { num_assignments: to_u32(problem.num_assignments), num_tiles, padding: [0; 2] };
    let mut bound =
        vec![("ids", buffers.ids), ("slot_table", buffers.slot_table), ("tiles", buffers.tiles), ("order", buffers.order)];
    bound.extend(buffers.starts.map(|starts| ("starts", starts)));
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant: choose(device.caps(), problem).flag_if(buffers.starts.is_some(), "STARTS"),
            layer,
            params: bytemuck::bytes_of(&params),
            buffers: &bound,
            grid: [1, 1, 1],
        },
    )
}
