//! Rows of tokens times a weight matrix: every projection that is not an expert's.

use super::norm::Fused;
use super::{tile::Tile, to_u32};
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Sharded, Variant, When};
use crate::quant::Quant;
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "matmul",
    source: include_str!("../../shaders/matmul.wgsl"),
    summary: "tokens times a weight matrix: attention output with residual, router, head",
    params: &[
        ("num_tokens", offset_of!(Params, num_tokens)),
        ("num_rows", offset_of!(Params, num_rows)),
        ("first_row", offset_of!(Params, first_row)),
    ],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "x"),
        Binding::read(2, "weight"),
        Binding::read_write(3, "y"),
        Binding::read(4, "bias").only(When::Flag("BIAS")),
        Binding::read(5, "norm").only(When::Flag("NORM")),
        Binding::read(6, "decay").only(When::Flag("DECAY")),
    ],
};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    num_tokens: u32,
    num_rows: u32,
    first_row: u32,
    padding: u32,
}

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_tokens: usize,
    pub rows: usize,
    pub cols: usize,
    /// Elements from one row of `y` to the next.
    pub y_stride: usize,
    pub bias: bool,
    /// Multiplies the product and its bias.
    pub scale: f32,
    pub output: Output,
    /// Goes before the product; one token only.
    pub norm: Option<Fused>,
    /// Where `x` has more columns than the product reads.
    pub part: Option<Part>,
    pub quant: Quant,
}

/// Columns of longer rows. Quads are read up to the padded end, which has to be within the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Values from one row to the next, and the first that is read: multiples of 4.
    pub stride: usize,
    pub first: usize,
}

/// What happens to `y`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Output {
    Replace,
    Add,
    /// Replaced by the sigmoid of the result.
    Sigmoid,
    /// Replaced by the tanh of the result.
    Tanh,
    /// Multiplied by the sigmoid of the result.
    Gate,
    /// Replaced by `cap * tanh(result / cap)`.
    Capped(f32),
    /// Replaced by `exp(decay * softplus(result))`; so many rows have one decay.
    Decay {
        rows: usize,
    },
}

/// # Shapes
/// `x [num_tokens, padded(cols)]`, `weight [rows, cols]` packed, `bias [rows]`, `norm [padded(cols)]`, `decay [rows / rows of one]`,
/// `y [num_tokens, y_stride]`. Of a [`Part`] `x [num_tokens, stride]`.
pub struct Buffers<'a> {
    pub x: &'a Buffer,
    pub weight: &'a Sharded,
    pub bias: Option<&'a Buffer>,
    pub norm: Option<&'a Buffer>,
    pub decay: Option<&'a Buffer>,
    pub y: &'a Buffer,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    let variant = Tile::choose(caps, problem.num_tokens, problem.rows)
        .variant(problem.cols, problem.quant)
        .u32("Y_STRIDE", problem.y_stride)
        .f32("SCALE", problem.scale)
        .flag_if(problem.bias, "BIAS")
        .flag_if(problem.output == Output::Add, "RESIDUAL")
        .flag_if(problem.output == Output::Sigmoid, "SIGMOID")
        .flag_if(problem.output == Output::Tanh, "TANH")
        .flag_if(problem.output == Output::Gate, "GATE");
    let variant = match problem.output {
        Output::Capped(cap) => variant.flag("CAPPED").f32("CAP", cap),
        Output::Decay { rows } => variant.flag("DECAY").u32("DECAY_ROWS", rows),
        _ => variant,
    };
    let variant = match problem.part {
        Some(Part { stride, first }) => variant.flag("PART_OF_X").u32("X_QUADS", stride / 4).u32("X_FIRST", first / 4),
        None => variant,
    };
    Fused::variant(problem.norm, variant, problem.cols)
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
            num_rows: to_u32(shard.num_rows),
            first_row: to_u32(shard.first_row),
            padding: 0,
        };
        let mut bound = vec![("x", buffers.x), ("weight", &shard.buffer), ("y", buffers.y)];
        bound.extend(buffers.bias.map(|bias| ("bias", bias)));
        bound.extend(buffers.norm.map(|norm| ("norm", norm)));
        bound.extend(buffers.decay.map(|decay| ("decay", decay)));
        recording.dispatch(
            device,
            &DispatchDescriptor {
                kernel: &KERNEL,
                variant: choose(device.caps(), problem),
                layer,
                params: bytemuck::bytes_of(&params),
                buffers: &bound,
                grid: [tile.row_groups(shard.num_rows), problem.num_tokens.div_ceil(tile.tokens), 1],
            },
        )?;
    }
    Ok(())
}
