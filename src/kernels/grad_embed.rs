//! The gradient of the embedding.

use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant};
use crate::quant::padded;

pub static KERNEL: Kernel = Kernel {
    name: "grad_embed",
    source: include_str!("../../shaders/grad_embed.wgsl"),
    summary: "training: the gradient of the embedding, token by token",
    params: &[],
    bindings: &[Binding::read(0, "spans"), Binding::read(1, "order"), Binding::read(2, "dx"), Binding::read_write(3, "dtable")],
};

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_tokens: usize,
    pub hidden_size: usize,
    /// What embeddings are multiplied by.
    pub scale: f32,
}

/// # Shapes
/// `spans [num_tokens] vec4<u32>`, `order [num_tokens]`, `dx [num_tokens, padded(hidden)]`, `dtable [vocab, padded(hidden)]`.
pub struct Buffers<'a> {
    pub spans: &'a Buffer,
    pub order: &'a Buffer,
    pub dx: &'a Buffer,
    pub dtable: &'a Buffer,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    Variant::new().u32("WG", caps.plain_workgroup()).u32("ROW_QUADS", padded(problem.hidden_size) / 4).f32("SCALE", problem.scale)
}

pub fn record(device: &Device, recording: &mut Recording, problem: &Problem, buffers: &Buffers) -> Result<()> {
    let groups = (padded(problem.hidden_size) / 4).div_ceil(device.caps().plain_workgroup());
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant: choose(device.caps(), problem),
            layer: None,
            params: &[],
            buffers: &[("spans", buffers.spans), ("order", buffers.order), ("dx", buffers.dx), ("dtable", buffers.dtable)],
            grid: [groups, problem.num_tokens, 1],
        },
    )
}
