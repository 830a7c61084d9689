//! A linear recurrence with a state for each head, row after row.

use super::to_u32;
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Profile, Recording, Variant};
use crate::spec::{RecurrentSpec, SLOT_POSITIONS, STATE_SLOTS};
use std::mem::offset_of;

/// No step is as large, and a shader may name it: the decimal digits of the largest f32 are beyond what a compiler accepts.
const UNBOUNDED: f32 = 3.4e38;

pub static KERNEL: Kernel = Kernel {
    name: "scan",
    source: include_str!("../../shaders/scan.wgsl"),
    summary: "the recurrence of a state space: decay, input and output of each head's state, row after row",
    params: &[("num_tokens", offset_of!(Params, num_tokens))],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "rows"),
        Binding::read(2, "x"),
        Binding::read(3, "steps"),
        Binding::read(4, "step_bias"),
        Binding::read(5, "decay"),
        Binding::read(6, "skip"),
        Binding::read_write(7, "state"),
        Binding::read_write(8, "y"),
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
pub struct Problem<'a> {
    pub num_tokens: usize,
    pub spec: &'a RecurrentSpec,
    /// Values from one row to the next of `x`, of `steps` and of `y`.
    pub x_stride: usize,
    pub step_stride: usize,
    pub y_stride: usize,
}

/// # Shapes
/// `rows [num_tokens]`, `x [num_tokens, x_stride]`: values, keys, queries; `steps [num_tokens, step_stride]`; `step_bias`, `decay` and `skip
/// [value_heads]`; `state [sequences, STATE_SLOTS, value_heads, value_dim, key_dim]`; `y [num_tokens, y_stride]`.
pub struct Buffers<'a> {
    pub rows: &'a Buffer,
    pub x: &'a Buffer,
    pub steps: &'a Buffer,
    pub step_bias: &'a Buffer,
    pub decay: &'a Buffer,
    pub skip: &'a Buffer,
    pub state: &'a Buffer,
    pub y: &'a Buffer,
}

/// Quads of a column that an invocation keeps in registers on a GPU.
const QUADS: usize = 8;

/// Invocations that share a column of the state: so many that none has more than [`QUADS`] of it, where that many divide it.
fn lanes(caps: &Caps, key_quads: usize) -> usize {
    match caps.profile {
        Profile::Cpu => 1,
        Profile::Gpu => {
            let wanted = (key_quads / QUADS).max(1);
            (1..=wanted).rev().find(|lanes| lanes.is_power_of_two() && key_quads.is_multiple_of(*lanes)).unwrap_or(1)
        }
    }
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    let spec = problem.spec;
    let key_quads = spec.key_dim / 4;
    let lanes = lanes(caps, key_quads);
    let (wg, slice) = (caps.plain_workgroup(), key_quads / lanes);
    Variant::new()
        .u32("WG", wg)
        .u32("LANES", lanes)
        .u32("COLS", wg / lanes)
        .u32("SLICE", slice)
        .u32("UNROLL", if caps.profile == Profile::Gpu { slice } else { 1 })
        .u32("KEY_QUADS", key_quads)
        .u32("VALUE_DIM", spec.value_dim)
        .u32("VALUE_HEADS", spec.value_heads)
        .u32("GROUP", spec.value_heads / spec.key_heads)
        .u32("X_QUADS", problem.x_stride / 4)
        .u32("V_FIRST", 0)
        .u32("K_FIRST", spec.inner() / 4)
        .u32("Q_FIRST", (spec.inner() + spec.key_width()) / 4)
        .u32("STEP_STRIDE", problem.step_stride)
        .u32("Y_STRIDE", problem.y_stride)
        .u32("SLOTS", STATE_SLOTS)
        .u32("SLOT_POSITIONS", SLOT_POSITIONS)
        .f32("STEP_MIN", spec.step_range[0])
        .f32("STEP_MAX", spec.step_range[1].min(UNBOUNDED))
        .flag_if(lanes > 1, "SHARED_COLUMNS")
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    let variant = choose(device.caps(), problem);
    let tiles = problem.spec.value_dim.div_ceil(variant.get("COLS") as usize);
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant,
            layer,
            params: bytemuck::bytes_of(&Params { num_tokens: to_u32(problem.num_tokens), padding: [0; 3] }),
            buffers: &[
                ("rows", buffers.rows),
                ("x", buffers.x),
                ("steps", buffers.steps),
                ("step_bias", buffers.step_bias),
                ("decay", buffers.decay),
                ("skip", buffers.skip),
                ("state", buffers.state),
                ("y", buffers.y),
            ],
            grid: [tiles, problem.spec.value_heads, 1],
        },
    )
}
