//! A matrix of its own for each head.

use super::{
    tile::{Tile, is_ragged},
    to_u32,
};
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Sharded, Variant};
use crate::quant::Quant;
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "head_matmul",
    source: include_str!("../../shaders/head_matmul.wgsl"),
    summary: "a matrix of its own for each head: the two halves of absorbed latent attention",
    params: &[("num_tokens", offset_of!(Params, num_tokens)), ("first_head", offset_of!(Params, first_head))],
    bindings: &[Binding::uniform(0, "params"), Binding::read(1, "x"), Binding::read(2, "weight"), Binding::read_write(3, "y")],
};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    num_tokens: u32,
    first_head: u32,
    padding: [u32; 2],
}

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_tokens: usize,
    /// Per head.
    pub rows: usize,
    pub cols: usize,
    pub x: Layout,
    pub y: Layout,
    pub quant: Quant,
}

/// Where the heads of a token lie, in values. Both are multiples of 4 for `x`.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    pub token_stride: usize,
    pub head_stride: usize,
}

/// # Shapes
/// `x [num_tokens, x.token_stride]` and `y [num_tokens, y.token_stride]`, `weight [heads * rows, cols]` packed, cut at heads. `x` is
/// readable up to `padded(cols)` values after the beginning of its last head.
pub struct Buffers<'a> {
    pub x: &'a Buffer,
    pub weight: &'a Sharded,
    pub y: &'a Buffer,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    Tile::choose(caps, problem.num_tokens, problem.rows)
        .variant(problem.cols, problem.quant)
        .u32("NUM_ROWS", problem.rows)
        .u32("COLUMNS", problem.cols)
        .flag_if(is_ragged(problem.quant, problem.cols), "RAGGED")
        .u32("X_STRIDE", problem.x.token_stride / 4)
        .u32("X_HEAD", problem.x.head_stride / 4)
        .u32("Y_STRIDE", problem.y.token_stride)
        .u32("Y_HEAD", problem.y.head_stride)
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    let tile = Tile::choose(device.caps(), problem.num_tokens, problem.rows);
    for shard in &buffers.weight.shards {
        let params = Params {
            num_tokens: to_u32(problem.num_tokens),
            first_head: to_u32(shard.first_row / problem.rows),
            padding: [0; 2],
        };
        let num_heads = shard.num_rows / problem.rows;
        recording.dispatch(
            device,
            &DispatchDescriptor {
                kernel: &KERNEL,
                variant: choose(device.caps(), problem),
                layer,
                params: bytemuck::bytes_of(&params),
                buffers: &[("x", buffers.x), ("weight", &shard.buffer), ("y", buffers.y)],
                grid: [tile.row_groups(problem.rows), problem.num_tokens.div_ceil(tile.tokens), num_heads],
            },
        )?;
    }
    Ok(())
}
