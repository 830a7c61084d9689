//! The embedding row of each token, and that of its position.

use super::{
    tile::{is_ragged, weight_consts},
    to_u32,
};
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Sharded, Variant, When};
use crate::quant::Quant;
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "embed",
    source: include_str!("../../shaders/embed.wgsl"),
    summary: "embedding row of each token, and of its position",
    params: &[("first_row", offset_of!(Params, first_row)), ("num_rows", offset_of!(Params, num_rows))],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "rows"),
        Binding::read(2, "table"),
        Binding::read_write(3, "x"),
        Binding::read(4, "positions").only(When::Flag("POSITIONS")),
    ],
};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    first_row: u32,
    num_rows: u32,
    padding: [u32; 2],
}

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_tokens: usize,
    pub hidden_size: usize,
    /// Multiplies every row.
    pub scale: f32,
    pub quant: Quant,
}

/// # Shapes
/// `rows [num_tokens]`, `table [vocab, hidden]` packed, `x [num_tokens, padded(hidden)]`.
pub struct Buffers<'a> {
    pub rows: &'a Buffer,
    pub table: &'a Sharded,
    pub x: &'a Buffer,
    /// `[context, padded(hidden)]`, where a row of its own is added at each position.
    pub positions: Option<&'a Buffer>,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    weight_consts(Variant::new(), problem.hidden_size, problem.quant)
        .u32("WG", caps.plain_workgroup())
        .f32("SCALE", problem.scale)
        .u32("COLUMNS", problem.hidden_size)
        .flag_if(is_ragged(problem.quant, problem.hidden_size), "RAGGED")
}

pub fn record(device: &Device, recording: &mut Recording, problem: &Problem, buffers: &Buffers) -> Result<()> {
    let variant = choose(device.caps(), problem).flag_if(buffers.positions.is_some(), "POSITIONS");
    let groups = variant.get("ROW_CHUNKS").div_ceil(variant.get("WG")) as usize;
    for shard in &buffers.table.shards {
        let params = Params { first_row: to_u32(shard.first_row), num_rows: to_u32(shard.num_rows), padding: [0; 2] };
        let mut bound = vec![("rows", buffers.rows), ("table", &shard.buffer), ("x", buffers.x)];
        bound.extend(buffers.positions.map(|positions| ("positions", positions)));
        recording.dispatch(
            device,
            &DispatchDescriptor {
                kernel: &KERNEL,
                variant: variant.clone(),
                layer: None,
                params: bytemuck::bytes_of(&params),
                buffers: &bound,
                grid: [groups, problem.num_tokens, 1],
            },
        )?;
    }
    Ok(())
}
