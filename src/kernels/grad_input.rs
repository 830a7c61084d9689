//! The gradient of the input of a product with a weight matrix, or with those of experts.

use super::outer_tile::OuterTile;
use super::{expert_sort, to_u32};
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant, When};
use crate::quant::padded;
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "grad_input",
    source: include_str!("../../shaders/grad_input.wgsl"),
    summary: "training: the gradient of a product's input",
    params: &[("num_tokens", offset_of!(Params, num_tokens)), ("num_rows", offset_of!(Params, num_rows))],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "dy"),
        Binding::read(2, "weight"),
        Binding::read_write(3, "dx"),
        Binding::read(4, "tiles").only(When::Flag("SORTED")),
        Binding::read(5, "order").only(When::Flag("SORTED")),
    ],
};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    num_tokens: u32,
    num_rows: u32,
    padding: [u32; 2],
}

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_tokens: usize,
    /// Of the weight, in f32.
    pub rows: usize,
    pub cols: usize,
    /// Added to what `dx` holds.
    pub accumulate: bool,
    /// Rows of `dy` and `dx` are assignments, sorted by expert.
    pub sort: Option<expert_sort::Problem>,
}

/// # Shapes
/// `dy [num_tokens, padded(rows)]`, `weight [rows, padded(cols)]`, or one such matrix per expert, `dx [num_tokens, padded(cols)]`; where they are
/// sorted, `tiles` and `order` of `expert_sort`.
pub struct Buffers<'a> {
    pub dy: &'a Buffer,
    pub weight: &'a Buffer,
    pub dx: &'a Buffer,
    pub sorted: Option<[&'a Buffer; 2]>,
}

fn tile(caps: &Caps, problem: &Problem) -> OuterTile {
    match &problem.sort {
        Some(sort) => OuterTile::sorted(caps, sort.tile_len(caps)),
        None => OuterTile::choose(caps, problem.num_tokens, problem.cols),
    }
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    tile(caps, problem)
        .variant()
        .flag("A_ALONG_I")
        .u32("DY_QUADS", padded(problem.rows) / 4)
        .u32("ROW_QUADS", padded(problem.cols) / 4)
        .flag_if(problem.accumulate, "ACCUMULATE")
        .flag_if(problem.sort.is_some(), "SORTED")
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    let tile = tile(device.caps(), problem);
    let tiles = match &problem.sort {
        Some(sort) => sort.num_tiles(device.caps()),
        None => problem.num_tokens.div_ceil(tile.rows),
    };
    let params = Params { num_tokens: to_u32(problem.num_tokens), num_rows: to_u32(problem.rows), padding: [0; 2] };
    let mut bound = vec![("dy", buffers.dy), ("weight", buffers.weight), ("dx", buffers.dx)];
    if let Some([tiles, order]) = buffers.sorted {
        bound.extend([("tiles", tiles), ("order", order)]);
    }
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant: choose(device.caps(), problem),
            layer,
            params: bytemuck::bytes_of(&params),
            buffers: &bound,
            grid: [tile.column_groups(padded(problem.cols) / 4), tiles, 1],
        },
    )
}
