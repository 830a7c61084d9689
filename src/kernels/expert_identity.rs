//! What experts without weights add to the residual stream.

use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant};
use crate::quant::padded;

pub static KERNEL: Kernel = Kernel {
    name: "expert_identity",
    source: include_str!("../../shaders/expert_identity.wgsl"),
    summary: "what experts without weights give back, into the residual stream",
    params: &[],
    bindings: &[Binding::read(0, "input"), Binding::read(1, "ids"), Binding::read(2, "weights"), Binding::read_write(3, "x")],
};

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_tokens: usize,
    pub num_experts_per_tok: usize,
    /// Experts with weights; the ids from here on are those without.
    pub num_weighted: usize,
    pub hidden_size: usize,
    /// Multiplies the sum.
    pub scale: f32,
}

/// # Shapes
/// `input` and `x [num_tokens, padded(hidden)]`, `ids` and `weights [num_tokens, top_k]`.
pub struct Buffers<'a> {
    pub input: &'a Buffer,
    pub ids: &'a Buffer,
    pub weights: &'a Buffer,
    pub x: &'a Buffer,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    Variant::new()
        .u32("WG", caps.plain_workgroup())
        .u32("ROW_QUADS", padded(problem.hidden_size) / 4)
        .u32("TOP_K", problem.num_experts_per_tok)
        .u32("NUM_WEIGHTED", problem.num_weighted)
        .f32("SCALE", problem.scale)
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    let variant = choose(device.caps(), problem);
    let groups = variant.get("ROW_QUADS").div_ceil(variant.get("WG")) as usize;
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant,
            layer,
            params: &[],
            buffers: &[("input", buffers.input), ("ids", buffers.ids), ("weights", buffers.weights), ("x", buffers.x)],
            grid: [groups, problem.num_tokens, 1],
        },
    )
}
