//! Experts and routing weights of every token, by the rule of a gating method.

use super::to_u32;
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Part, Recording, Variant};
use crate::quant::padded;
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "gate",
    source: include_str!("../../shaders/gate.wgsl"),
    summary: "training: experts and routing weights of every token, by the rule of a gating method",
    params: &[("num_tokens", offset_of!(TokenParams, num_tokens))],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "logits"),
        Binding::read_write(2, "ids"),
        Binding::read_write(3, "weights"),
        Binding::read_write(4, "scores"),
    ],
};

/// `struct Params` of the kernels of gates.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct TokenParams {
    pub num_tokens: u32,
    padding: [u32; 3],
}

impl TokenParams {
    pub fn new(num_tokens: usize) -> Self {
        TokenParams { num_tokens: to_u32(num_tokens), padding: [0; 3] }
    }
}

/// A rule in WGSL, and the flags that it knows.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub part: Part,
    pub flags: &'static [&'static str],
}

/// The best of the softmax over all experts, as they are.
pub static TOP_K_SOFTMAX: Rule = Rule { part: TOP_K, flags: &[] };
/// The same over their sum.
pub static TOP_K_RENORMALIZED: Rule = Rule { part: TOP_K, flags: &["RENORMALIZE"] };

const TOP_K: Part = Part { name: "top_k_softmax", text: include_str!("../../shaders/lib/top_k_softmax.wgsl") };

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_tokens: usize,
    pub num_experts: usize,
    /// Assignments that a token may have.
    pub width: usize,
    pub rule: Rule,
}

/// # Shapes
/// `logits [num_tokens, padded(experts)]`, `ids`, `weights [num_tokens, width]`, `scores [num_tokens, experts]`.
pub struct Buffers<'a> {
    pub logits: &'a Buffer,
    pub ids: &'a Buffer,
    pub weights: &'a Buffer,
    pub scores: &'a Buffer,
}

impl Problem {
    /// What every kernel of a gate has to know.
    pub(super) fn sizes(&self, caps: &Caps) -> Variant {
        Variant::new()
            .u32("WG", caps.plain_workgroup())
            .u32("NUM_EXPERTS", self.num_experts)
            .u32("WIDTH", self.width)
            .u32("LOGIT_STRIDE", padded(self.num_experts))
    }

    /// The same, and the rule.
    pub(super) fn variant(&self, caps: &Caps) -> Variant {
        let variant = self.sizes(caps).part("rule", self.rule.part);
        self.rule.flags.iter().fold(variant, |variant, flag| variant.flag(flag))
    }
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    problem.variant(caps)
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
            params: bytemuck::bytes_of(&TokenParams::new(problem.num_tokens)),
            buffers: &[
                ("logits", buffers.logits),
                ("ids", buffers.ids),
                ("weights", buffers.weights),
                ("scores", buffers.scores),
            ],
            grid: [problem.num_tokens.div_ceil(device.caps().plain_workgroup()), 1, 1],
        },
    )
}
