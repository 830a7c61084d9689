//! The best experts of each token.

use super::to_u32;
use crate::error::Result;
use crate::gating::{RouterSpec, ScoreFunction};
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Profile, Recording, Variant};
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "router_topk",
    source: include_str!("../../shaders/router_topk.wgsl"),
    summary: "softmax over the experts, the best of each token, renormalised",
    params: &[("layer", offset_of!(Params, layer))],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "logits"),
        Binding::read(2, "slot_table"),
        Binding::read_write(3, "ids"),
        Binding::read_write(4, "slots"),
        Binding::read_write(5, "weights"),
        Binding::read_write(6, "loads"),
    ],
};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    layer: u32,
    padding: [u32; 3],
}

#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    pub num_tokens: usize,
    pub router: &'a RouterSpec,
    /// Row of `loads` to count in.
    pub load_row: usize,
}

/// # Shapes
/// `logits [num_tokens, experts]`, `slot_table [experts]`, `ids`, `slots`, `weights [num_tokens, top_k]`, `loads [rows, experts]`.
pub struct Buffers<'a> {
    pub logits: &'a Buffer,
    pub slot_table: &'a Buffer,
    pub ids: &'a Buffer,
    pub slots: &'a Buffer,
    pub weights: &'a Buffer,
    pub loads: &'a Buffer,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    let ScoreFunction::Softmax = problem.router.scores;
    Variant::new()
        .u32("WG", if caps.profile == Profile::Cpu { 8 } else { 64 })
        .u32("NUM_EXPERTS", problem.router.num_experts)
        .u32("TOP_K", problem.router.num_experts_per_tok)
        .flag_if(problem.router.renormalize, "RENORMALIZE")
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
            params: bytemuck::bytes_of(&Params { layer: to_u32(problem.load_row), padding: [0; 3] }),
            buffers: &[
                ("logits", buffers.logits),
                ("slot_table", buffers.slot_table),
                ("ids", buffers.ids),
                ("slots", buffers.slots),
                ("weights", buffers.weights),
                ("loads", buffers.loads),
            ],
            grid: [problem.num_tokens, 1, 1],
        },
    )
}
