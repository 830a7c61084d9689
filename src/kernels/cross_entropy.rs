//! The loss of every token, and the gradient of its logits.

use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant, When};
use crate::quant::padded;

pub static KERNEL: Kernel = Kernel {
    name: "cross_entropy",
    source: include_str!("../../shaders/cross_entropy.wgsl"),
    summary: "training: the loss of every token, and the gradient of its logits in their place",
    params: &[],
    bindings: &[
        Binding::read_write(0, "logits").only(When::NotFlag("LOSS_ONLY")),
        Binding::read(0, "logits").only(When::Flag("LOSS_ONLY")),
        Binding::read(1, "targets"),
        Binding::read_write(2, "losses"),
    ],
};

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_tokens: usize,
    pub vocab_size: usize,
    /// What the gradient is multiplied by; `None`: the logits stay as they are.
    pub factor: Option<f32>,
}

/// # Shapes
/// `logits [num_tokens, padded(vocab)]`, `targets [num_tokens]`, `losses [num_tokens]`.
pub struct Buffers<'a> {
    pub logits: &'a Buffer,
    pub targets: &'a Buffer,
    pub losses: &'a Buffer,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    let variant = Variant::new()
        .u32("WG", caps.plain_workgroup())
        .u32("VOCAB", problem.vocab_size)
        .u32("ROW_QUADS", padded(problem.vocab_size) / 4);
    match problem.factor {
        Some(factor) => variant.f32("FACTOR", factor),
        None => variant.flag("LOSS_ONLY"),
    }
}

pub fn record(device: &Device, recording: &mut Recording, problem: &Problem, buffers: &Buffers) -> Result<()> {
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant: choose(device.caps(), problem),
            layer: None,
            params: &[],
            buffers: &[("logits", buffers.logits), ("targets", buffers.targets), ("losses", buffers.losses)],
            grid: [problem.num_tokens, 1, 1],
        },
    )
}
