//! Weighted sum of the experts' outputs into the residual stream, after a sorted `expert_down`.

use crate::error::Result;
use crate::gating::WeightOn;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Profile, Recording, Variant};
use crate::quant::padded;

pub static KERNEL: Kernel = Kernel {
    name: "expert_combine",
    source: include_str!("../../shaders/expert_combine.wgsl"),
    summary: "weighted sum of the experts' outputs into the residual stream",
    params: &[],
    bindings: &[Binding::read(0, "y"), Binding::read(1, "weights"), Binding::read_write(2, "x")],
};

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_tokens: usize,
    pub num_experts_per_tok: usize,
    pub hidden_size: usize,
    pub weight_on: WeightOn,
    /// Multiplies the sum.
    pub scale: f32,
}

/// # Shapes
/// `y [num_tokens * top_k, padded(hidden)]`, `weights [num_tokens, top_k]`, `x [num_tokens, padded(hidden)]`.
pub struct Buffers<'a> {
    pub y: &'a Buffer,
    pub weights: &'a Buffer,
    pub x: &'a Buffer,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    let (workgroup, row_quads) = (caps.plain_workgroup(), padded(problem.hidden_size) / 4);
    // A software device starts a workgroup for every few quads no sooner than it computes them.
    let groups = if caps.profile == Profile::Cpu { 1 } else { row_quads.div_ceil(workgroup) };
    Variant::new()
        .u32("WG", workgroup)
        .u32("GROUPS", groups)
        .u32("ROW_QUADS", row_quads)
        .u32("TOP_K", problem.num_experts_per_tok)
        .f32("SCALE", problem.scale)
        .flag_if(problem.weight_on == WeightOn::Input, "WEIGHT_INPUT")
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    let variant = choose(device.caps(), problem);
    let groups = variant.get("GROUPS") as usize;
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant,
            layer,
            params: &[],
            buffers: &[("y", buffers.y), ("weights", buffers.weights), ("x", buffers.x)],
            grid: [groups, problem.num_tokens, 1],
        },
    )
}
