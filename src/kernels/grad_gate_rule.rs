//! The gradient of the router's product, by the rule of any gating method that has one in WGSL.

use super::gate_rule::{PARAMS, Problem as Rule};
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant};

pub static KERNEL: Kernel = Kernel {
    name: "grad_gate_rule",
    source: include_str!("../../shaders/grad_gate_rule.wgsl"),
    summary: "training: the gradient of the router's product, by the rule of a gating method and by losses",
    params: PARAMS,
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "router"),
        Binding::read(2, "noise"),
        Binding::read(3, "state"),
        Binding::read(4, "rows"),
        Binding::read(5, "kept"),
        Binding::read(6, "parts"),
        Binding::read(7, "slopes"),
        Binding::read_write(8, "drouter"),
    ],
};

#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    pub rule: Rule<'a>,
    /// Parts that the gradient of a routing weight comes in.
    pub num_parts: usize,
}

/// # Shapes
/// `router`, `noise`, `state` and `rows` as in [`gate_rule`](super::gate_rule), `kept [num_tokens, width]`, `parts [num_tokens * width, num_parts]`, `slopes` as the shader
/// describes them, `drouter [num_tokens, router_stride]`.
pub struct Buffers<'a> {
    pub router: &'a Buffer,
    pub noise: &'a Buffer,
    pub state: &'a Buffer,
    pub rows: &'a Buffer,
    pub kept: &'a Buffer,
    pub parts: &'a Buffer,
    pub slopes: &'a Buffer,
    pub drouter: &'a Buffer,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    let variant = problem.rule.variant(caps).u32("NUM_PARTS", problem.num_parts);
    match problem.rule.least_sum() {
        Some(least) => variant.flag("RENORMALIZE_KEPT").f32("LEAST_SUM", least),
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
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant: choose(device.caps(), problem),
            layer,
            params: bytemuck::bytes_of(&problem.rule.params()),
            buffers: &[
                ("router", buffers.router),
                ("noise", buffers.noise),
                ("state", buffers.state),
                ("rows", buffers.rows),
                ("kept", buffers.kept),
                ("parts", buffers.parts),
                ("slopes", buffers.slopes),
                ("drouter", buffers.drouter),
            ],
            grid: problem.rule.grid(device.caps()),
        },
    )
}
