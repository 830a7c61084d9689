//! A linear recurrence with a state for each head, row after row.

use super::to_u32;
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Profile, Recording, Variant, When};
use crate::quant::padded;
use crate::reference::scan::LENGTH_EPS;
use crate::spec::{Decay, RecurrentSpec, Rule, SLOT_POSITIONS, STATE_SLOTS};
use std::mem::offset_of;

/// No step is as large, and a shader may name it: the decimal digits of the largest f32 are beyond what a compiler accepts.
const UNBOUNDED: f32 = 3.4e38;

pub static KERNEL: Kernel = Kernel {
    name: "scan",
    source: include_str!("../../shaders/scan.wgsl"),
    summary: "the recurrence of a state space or of linear attention: decay, input and output of each head's state, row after row",
    params: &[("num_tokens", offset_of!(Params, num_tokens)), ("factor", offset_of!(Params, factor))],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "rows"),
        Binding::read(2, "x"),
        Binding::read(3, "steps").only(When::Flag("STEPS")),
        Binding::read(4, "step_bias").only(When::Flag("HEAD")),
        Binding::read(5, "decay").only(When::Flag("HEAD")),
        Binding::read(6, "skip").only(When::Flag("SKIP")),
        Binding::read_write(7, "state"),
        Binding::read_write(8, "y"),
        Binding::read(9, "decays").only(When::Flag("CHANNEL")),
        Binding::read(10, "keys").only(When::Flag("PAIR")),
        Binding::read(11, "vectors").only(When::Flag("PAIR")),
        Binding::read(12, "gate").only(When::Flag("PAIR")),
    ],
};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    num_tokens: u32,
    factor: f32,
    padding: [u32; 2],
}

/// Rows of one sequence stand one after the other, in the order of their positions.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    pub num_tokens: usize,
    pub spec: &'a RecurrentSpec,
}

/// # Shapes
/// `rows [num_tokens]`, `x [num_tokens, padded(channels)]`: values, keys, queries; `steps [num_tokens, step_stride]`;
/// `state [sequences, STATE_SLOTS, value_heads, value_dim, key_dim]`; `y [num_tokens, padded(inner)]`.
pub struct Buffers<'a> {
    pub rows: &'a Buffer,
    pub x: &'a Buffer,
    /// Where there are any: steps, betas, or both.
    pub steps: Option<&'a Buffer>,
    pub state: &'a Buffer,
    pub y: &'a Buffer,
    pub decay: DecayBuffers<'a>,
}

/// What decays are made of.
pub enum DecayBuffers<'a> {
    /// `[value_heads]` each; `skip` where the rule is to add.
    Head {
        step_bias: &'a Buffer,
        decay: &'a Buffer,
        skip: Option<&'a Buffer>,
    },
    /// `[num_tokens, padded(value_heads key_dim)]`
    Channel {
        decays: &'a Buffer,
    },
    /// `keys [num_tokens, padded(2 key_dim)]`, `vectors`: decays `[value_dim, key_dim]`, skip `[value_dim]`, the norms' weights `[key_dim]` each;
    /// `gate [num_tokens, padded(projected)]`, its first columns.
    Pair {
        keys: &'a Buffer,
        vectors: &'a Buffer,
        gate: &'a Buffer,
    },
    Constant,
}

/// Quads of a column that an invocation keeps in registers on a GPU.
const QUADS: usize = 8;

/// Invocations that share a column of the state: so many that none has more than [`QUADS`] of it, where that many divide it.
fn lanes(caps: &Caps, spec: &RecurrentSpec) -> usize {
    let key_quads = spec.key_dim / 4;
    match (caps.profile, spec.decay) {
        (Profile::Cpu, _) | (_, Decay::Pair { .. }) => 1,
        (Profile::Gpu, _) => {
            let wanted = (key_quads / QUADS).max(1);
            (1..=wanted).rev().find(|lanes| lanes.is_power_of_two() && key_quads.is_multiple_of(*lanes)).unwrap_or(1)
        }
    }
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    let spec = problem.spec;
    let (key_quads, lanes) = (spec.key_dim / 4, lanes(caps, spec));
    let (wg, slice) = (caps.plain_workgroup(), key_quads / lanes);
    let variant = Variant::new()
        .u32("WG", wg)
        .u32("LANES", lanes)
        .u32("COLS", wg / lanes)
        .u32("SLICE", slice)
        .u32("UNROLL", if caps.profile == Profile::Gpu { slice } else { 1 })
        .u32("KEY_QUADS", key_quads)
        .u32("VALUE_DIM", spec.value_dim)
        .u32("VALUE_HEADS", spec.value_heads)
        .u32("X_QUADS", padded(spec.channels()) / 4)
        .u32("STEP_STRIDE", spec.step_stride())
        .u32("Y_STRIDE", padded(spec.inner()))
        .u32("SLOTS", STATE_SLOTS)
        .u32("SLOT_POSITIONS", SLOT_POSITIONS)
        .flag_if(lanes > 1, "SHARED_COLUMNS")
        .flag_if(!matches!(spec.decay, Decay::Constant { .. }), "STEPS");
    let variant = match spec.rule {
        Rule::Add => variant,
        Rule::Delta => variant.flag("DELTA").u32("BETA_FIRST", spec.first_beta()).f32("LENGTH_EPS", LENGTH_EPS),
    };
    let with_keys = |variant: Variant| {
        variant
            .u32("GROUP", spec.value_heads / spec.key_heads)
            .u32("K_FIRST", spec.inner() / 4)
            .u32("Q_FIRST", (spec.inner() + spec.key_width()) / 4)
    };
    match spec.decay {
        Decay::Head { step_range: [least, most] } => with_keys(variant)
            .flag("HEAD")
            .flag_if(spec.rule == Rule::Add, "SKIP")
            .f32("STEP_MIN", least)
            .f32("STEP_MAX", most.min(UNBOUNDED)),
        Decay::Channel { .. } => {
            let stride = padded(spec.value_heads * spec.key_dim);
            with_keys(variant).flag("CHANNEL").u32("DECAY_QUADS", stride / 4)
        }
        Decay::Constant { .. } => with_keys(variant).flag("CONSTANT"),
        Decay::Pair { eps, .. } => variant
            .flag("PAIR")
            .u32("KEY_STRIDE", padded(2 * spec.key_dim) / 4)
            .u32("GATE_STRIDE", padded(spec.projected()))
            .f32("EPS", eps),
    }
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
    let factor = if let Decay::Constant { factor } = problem.spec.decay { factor } else { 0.0 };
    let mut bound = vec![("rows", buffers.rows), ("x", buffers.x), ("state", buffers.state), ("y", buffers.y)];
    bound.extend(buffers.steps.map(|steps| ("steps", steps)));
    match buffers.decay {
        DecayBuffers::Head { step_bias, decay, skip } => {
            bound.extend([("step_bias", step_bias), ("decay", decay)]);
            bound.extend(skip.map(|skip| ("skip", skip)));
        }
        DecayBuffers::Channel { decays } => bound.push(("decays", decays)),
        DecayBuffers::Pair { keys, vectors, gate } => bound.extend([("keys", keys), ("vectors", vectors), ("gate", gate)]),
        DecayBuffers::Constant => {}
    }
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant,
            layer,
            params: bytemuck::bytes_of(&Params { num_tokens: to_u32(problem.num_tokens), factor, padding: [0; 2] }),
            buffers: &bound,
            grid: [tiles, problem.spec.value_heads, 1],
        },
    )
}
