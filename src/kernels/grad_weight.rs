//! The gradient of a weight matrix, or of those of experts.

use super::outer_tile::OuterTile;
use super::to_u32;
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant, When};
use crate::quant::padded;
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "grad_weight",
    source: include_str!("../../shaders/grad_weight.wgsl"),
    summary: "training: the gradient of a weight, or of those of all experts",
    params: &[("num_tokens", offset_of!(Params, num_tokens)), ("num_rows", offset_of!(Params, num_rows))],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "dy"),
        Binding::read(2, "x"),
        Binding::read_write(3, "dweight"),
        Binding::read(4, "starts").only(When::Flag("SORTED")),
        Binding::read(5, "order").only(When::Flag("SORTED")),
        Binding::read(6, "weights").only(When::Flag("WEIGHTED")),
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
    /// Of the weight.
    pub rows: usize,
    pub cols: usize,
    /// Added to what `dweight` holds.
    pub accumulate: bool,
    pub experts: Option<Experts>,
}

/// How the assignments of experts are found.
#[derive(Debug, Clone, Copy)]
pub struct Experts {
    pub num_experts: usize,
    pub num_experts_per_tok: usize,
    /// What has a row per token; the other has one per assignment.
    pub by_token: ByToken,
    /// `dy` is multiplied by the routing weight.
    pub weighted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByToken {
    Dy,
    X,
}

/// # Shapes
/// `dy [num_tokens, padded(rows)]`, `x [num_tokens, padded(cols)]`, `dweight [rows, padded(cols)]`, or one such matrix per expert; where there are experts,
/// `starts` and `order` of `expert_sort`, and `weights [assignments]` where they count.
pub struct Buffers<'a> {
    pub dy: &'a Buffer,
    pub x: &'a Buffer,
    pub dweight: &'a Buffer,
    pub sorted: Option<[&'a Buffer; 2]>,
    pub weights: Option<&'a Buffer>,
}

fn tile(caps: &Caps, problem: &Problem) -> OuterTile {
    OuterTile::choose(caps, problem.rows, problem.cols)
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    let variant = tile(caps, problem)
        .variant()
        .u32("DY_QUADS", padded(problem.rows) / 4)
        .u32("ROW_QUADS", padded(problem.cols) / 4)
        .flag_if(problem.accumulate, "ACCUMULATE");
    match problem.experts {
        None => variant,
        Some(experts) => variant
            .flag("SORTED")
            .u32("TOP_K", experts.num_experts_per_tok)
            .flag(if experts.by_token == ByToken::Dy { "DY_BY_TOKEN" } else { "X_BY_TOKEN" })
            .flag_if(experts.weighted, "WEIGHTED"),
    }
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    let tile = tile(device.caps(), problem);
    let params = Params { num_tokens: to_u32(problem.num_tokens), num_rows: to_u32(problem.rows), padding: [0; 2] };
    let mut bound = vec![("dy", buffers.dy), ("x", buffers.x), ("dweight", buffers.dweight)];
    if let Some([starts, order]) = buffers.sorted {
        bound.extend([("starts", starts), ("order", order)]);
    }
    bound.extend(buffers.weights.map(|weights| ("weights", weights)));
    let num_experts = problem.experts.map_or(1, |experts| experts.num_experts);
    let grid = [tile.column_groups(padded(problem.cols) / 4), problem.rows.div_ceil(tile.rows), num_experts];
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant: choose(device.caps(), problem),
            layer,
            params: bytemuck::bytes_of(&params),
            buffers: &bound,
            grid,
        },
    )
}
