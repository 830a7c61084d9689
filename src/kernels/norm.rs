//! RMSNorm or LayerNorm of rows.

use super::to_u32;
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant, When};
use crate::quant::padded;
use crate::spec::{NormKind, NormSpec};
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "norm",
    source: include_str!("../../shaders/norm.wgsl"),
    summary: "RMSNorm or LayerNorm of rows, optionally added to the residual stream",
    params: &[("first_row", offset_of!(Params, first_row))],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read_write(1, "x").only(When::Flag("RESCALED")),
        Binding::read(1, "x").only(When::NotFlag("RESCALED")),
        Binding::read(2, "weight"),
        Binding::read_write(3, "y"),
        Binding::read(4, "output_scale").only(When::Flag("OUTPUT_SCALE")),
    ],
};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    first_row: u32,
    padding: [u32; 3],
}

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    /// Row of `x` that becomes row 0 of `y`.
    pub first_row: usize,
    pub num_tokens: usize,
    pub cols: usize,
    pub norm: NormSpec,
    /// Add this many times the result to `y` instead of replacing it.
    pub residual: Option<f32>,
    /// Then multiply `y` by a number in memory.
    pub output_scale: bool,
    /// `x` becomes this many times the result.
    pub rescale: Option<f32>,
}

/// An RMSNorm that a matmul kernel applies to its input itself, where it has one token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fused {
    pub eps: f32,
}

impl Fused {
    /// The spec as a fused norm, if kernels can fuse it.
    pub fn from_spec(norm: NormSpec) -> Option<Self> {
        (norm.kind == NormKind::Rms && !norm.bias).then_some(Fused { eps: norm.eps })
    }

    pub(super) fn variant(fused: Option<Self>, variant: Variant, cols: usize) -> Variant {
        match fused {
            Some(Fused { eps }) => variant.flag("NORM").u32("COLUMNS", cols).f32("NORM_EPS", eps),
            None => variant,
        }
    }
}

/// # Shapes
/// `x [first_row + num_tokens, padded(cols)]`, `weight [1, padded(cols)]`, or 2 rows with the bias, `y [num_tokens, padded(cols)]`.
pub struct Buffers<'a> {
    pub x: &'a Buffer,
    pub weight: &'a Buffer,
    pub y: &'a Buffer,
    /// `[1]`, multiplies `y` after the sum; only where the result is added to `y`.
    pub output_scale: Option<&'a Buffer>,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    let variant = Variant::new()
        .u32("WG", caps.plain_workgroup())
        .u32("LOADS", caps.loads(4))
        .u32("COLUMNS", problem.cols)
        .u32("ROW_QUADS", padded(problem.cols) / 4)
        .f32("EPS", problem.norm.eps)
        .flag_if(problem.norm.kind == NormKind::Layer, "LAYER_NORM")
        .flag_if(problem.norm.bias, "BIAS")
        .flag_if(problem.output_scale, "OUTPUT_SCALE");
    let variant = match problem.residual {
        Some(scale) => variant.flag("RESIDUAL").f32("SCALE", scale),
        None => variant,
    };
    match problem.rescale {
        Some(factor) => variant.flag("RESCALED").f32("FACTOR", factor),
        None => variant,
    }
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    let mut bound = vec![("x", buffers.x), ("weight", buffers.weight), ("y", buffers.y)];
    bound.extend(buffers.output_scale.map(|scale| ("output_scale", scale)));
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant: choose(device.caps(), problem),
            layer,
            params: bytemuck::bytes_of(&Params { first_row: to_u32(problem.first_row), padding: [0; 3] }),
            buffers: &bound,
            grid: [problem.num_tokens, 1, 1],
        },
    )
}
