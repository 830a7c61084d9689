//! The way back through the down projection and the activation of the experts.

use super::outer_tile::OuterTile;
use super::{expert_sort, to_u32};
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant};
use crate::quant::padded;
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "grad_hidden",
    source: include_str!("../../shaders/grad_hidden.wgsl"),
    summary: "training: back through the down projection of the experts and SwiGLU, and the gradients of routing weights",
    params: &[("num_rows", offset_of!(Params, num_rows))],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "dy"),
        Binding::read(2, "down"),
        Binding::read(3, "tiles"),
        Binding::read(4, "order"),
        Binding::read(5, "gate_up"),
        Binding::read(6, "weights"),
        Binding::read_write(7, "dgate_up"),
        Binding::read_write(8, "parts"),
    ],
};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    num_rows: u32,
    padding: [u32; 3],
}

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_tokens: usize,
    pub num_experts: usize,
    pub num_experts_per_tok: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
}

/// # Shapes
/// `dy [num_tokens, padded(hidden)]`, `down [experts, hidden, padded(intermediate)]` in f32, `tiles`, `order` of `expert_sort`,
/// `gate_up`, `dgate_up [num_tokens * top_k, padded(2 intermediate)]`, `weights [num_tokens, top_k]`, `parts [num_tokens * top_k, num_parts]`.
pub struct Buffers<'a> {
    pub dy: &'a Buffer,
    pub down: &'a Buffer,
    pub tiles: &'a Buffer,
    pub order: &'a Buffer,
    pub gate_up: &'a Buffer,
    pub weights: &'a Buffer,
    pub dgate_up: &'a Buffer,
    pub parts: &'a Buffer,
}

impl Problem {
    /// Parts that the gradient of a routing weight comes in.
    pub fn num_parts(&self) -> usize {
        padded(self.intermediate_size) / 4
    }

    fn sort(&self) -> expert_sort::Problem {
        expert_sort::Problem { num_assignments: self.num_tokens * self.num_experts_per_tok, num_experts: self.num_experts }
    }

    fn tile(&self, caps: &Caps) -> OuterTile {
        OuterTile::sorted(caps, self.sort().tile_len(caps))
    }
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    problem
        .tile(caps)
        .variant()
        .flag("A_ALONG_I")
        .u32("TOP_K", problem.num_experts_per_tok)
        .u32("DY_QUADS", padded(problem.hidden_size) / 4)
        .u32("ROW_QUADS", problem.num_parts())
        .u32("GATE_UP_QUADS", padded(2 * problem.intermediate_size) / 4)
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    let groups = problem.tile(device.caps()).column_groups(problem.num_parts());
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant: choose(device.caps(), problem),
            layer,
            params: bytemuck::bytes_of(&Params { num_rows: to_u32(problem.hidden_size), padding: [0; 3] }),
            buffers: &[
                ("dy", buffers.dy),
                ("down", buffers.down),
                ("tiles", buffers.tiles),
                ("order", buffers.order),
                ("gate_up", buffers.gate_up),
                ("weights", buffers.weights),
                ("dgate_up", buffers.dgate_up),
                ("parts", buffers.parts),
            ],
            grid: [groups, problem.sort().num_tiles(device.caps()), 1],
        },
    )
}
