//! A causal convolution of each channel by itself over a few positions.

use super::to_u32;
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant, When};
use crate::quant::padded;
use crate::spec::{SLOT_POSITIONS, STATE_SLOTS};
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "short_conv",
    source: include_str!("../../shaders/short_conv.wgsl"),
    summary: "a causal convolution over a few positions, channel by channel, gated or with SiLU, and what it keeps",
    params: &[("num_tokens", offset_of!(Params, num_tokens))],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "rows"),
        Binding::read(2, "x"),
        Binding::read_write(3, "state").only(When::Flag("WRITES")),
        Binding::read(3, "state").only(When::NotFlag("WRITES")),
        Binding::read(4, "weight").only(When::NotFlag("APPEND")),
        Binding::read_write(5, "y").only(When::NotFlag("APPEND")),
        Binding::read(6, "bias").only(When::Flag("BIAS")),
    ],
};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    num_tokens: u32,
    padding: [u32; 3],
}

/// Rows of one sequence stand one after the other, in the order of their positions.
#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_tokens: usize,
    pub channels: usize,
    /// Positions that the convolution sees, its own included.
    pub len: usize,
    /// Values from one row of `x` to the next, and the first that is read.
    pub x_stride: usize,
    pub x_first: usize,
    pub bias: bool,
    pub silu: bool,
    /// Of three times as many values the input is the first third times the last, and the second multiplies the result.
    pub gated: bool,
}

/// # Shapes
/// `rows [num_tokens]`, `x [num_tokens, x_stride]`, `weight [len, padded(channels)]`, `bias [channels]`,
/// `state [sequences, STATE_SLOTS, len, channels]`, `y [num_tokens, padded(channels)]`.
pub struct Buffers<'a> {
    pub rows: &'a Buffer,
    pub x: &'a Buffer,
    pub weight: &'a Buffer,
    pub bias: Option<&'a Buffer>,
    pub state: &'a Buffer,
    pub y: &'a Buffer,
}

/// What a dispatch does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Of a single token everything.
    Whole,
    Compute,
    /// Keeps the inputs that later passes read.
    Append,
}

impl Step {
    /// Those of a pass, in their order.
    pub fn of(num_tokens: usize) -> &'static [Step] {
        if num_tokens == 1 { &[Step::Whole] } else { &[Step::Compute, Step::Append] }
    }
}

pub fn choose(caps: &Caps, problem: &Problem, step: Step) -> Variant {
    let computes = step != Step::Append;
    let variant = Variant::new()
        .u32("WG", caps.plain_workgroup())
        .u32("CHANNELS", problem.channels)
        .u32("K", problem.len)
        .u32("SLOTS", STATE_SLOTS)
        .u32("SLOT_POSITIONS", SLOT_POSITIONS)
        .u32("X_STRIDE", problem.x_stride)
        .u32("X_FIRST", problem.x_first)
        .flag_if(problem.gated, "GATED")
        .flag_if(step != Step::Compute, "WRITES");
    if !computes {
        return variant.flag("APPEND");
    }
    variant
        .u32("W_STRIDE", padded(problem.channels))
        .u32("Y_STRIDE", padded(problem.channels))
        .flag_if(problem.bias, "BIAS")
        .flag_if(problem.silu, "SILU")
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    for step in Step::of(problem.num_tokens) {
        let variant = choose(device.caps(), problem, *step);
        let groups = problem.channels.div_ceil(variant.get("WG") as usize);
        let mut bound = vec![("rows", buffers.rows), ("x", buffers.x), ("state", buffers.state)];
        if *step != Step::Append {
            bound.extend([("weight", buffers.weight), ("y", buffers.y)]);
            bound.extend(buffers.bias.map(|bias| ("bias", bias)));
        }
        recording.dispatch(
            device,
            &DispatchDescriptor {
                kernel: &KERNEL,
                variant,
                layer,
                params: bytemuck::bytes_of(&Params { num_tokens: to_u32(problem.num_tokens), padding: [0; 3] }),
                buffers: &bound,
                grid: [groups, problem.num_tokens, 1],
            },
        )?;
    }
    Ok(())
}
