//! Logits of the experts by attention of the experts to each other.

use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant};
use crate::quant::padded;

pub static KERNEL: Kernel = Kernel {
    name: "router_attention",
    source: include_str!("../../shaders/router_attention.wgsl"),
    summary: "router logits from a query, a key and a value of each expert",
    params: &[],
    bindings: &[Binding::read(0, "qkv"), Binding::read_write(1, "logits")],
};

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_tokens: usize,
    pub num_experts: usize,
}

/// # Shapes
/// `qkv [num_tokens, padded(3 experts)]`, `logits [num_tokens, experts]`.
pub struct Buffers<'a> {
    pub qkv: &'a Buffer,
    pub logits: &'a Buffer,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    Variant::new()
        .u32("WG", caps.plain_workgroup())
        .u32("NUM_EXPERTS", problem.num_experts)
        .u32("STRIDE", padded(3 * problem.num_experts))
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
            params: &[],
            buffers: &[("qkv", buffers.qkv), ("logits", buffers.logits)],
            grid: [problem.num_tokens, 1, 1],
        },
    )
}
