//! The gradient of the queries of causal attention.

use super::to_u32;
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant, When};
use crate::quant::padded;
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "grad_query",
    source: include_str!("../../shaders/grad_query.wgsl"),
    summary: "training: the gradient of the queries of attention",
    params: &[("num_tokens", offset_of!(Params, num_tokens))],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "rows"),
        Binding::read(2, "q"),
        Binding::read(3, "k_cache"),
        Binding::read(4, "v_cache"),
        Binding::read(5, "dy"),
        Binding::read(6, "rope").only(When::Flag("ROPE")),
        Binding::read_write(7, "dqkv"),
        Binding::read_write(8, "stats"),
    ],
};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Params {
    pub num_tokens: u32,
    padding: [u32; 3],
}

impl Params {
    pub fn new(num_tokens: usize) -> Self {
        Params { num_tokens: to_u32(num_tokens), padding: [0; 3] }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_tokens: usize,
    pub num_heads: usize,
    pub num_kv_heads: usize,
    /// A multiple of four.
    pub head_dim: usize,
    pub context: usize,
    /// Multiplies the scores.
    pub scale: f32,
    /// Pairs that the rotary embedding turns, in two halves.
    pub rope_pairs: Option<usize>,
}

/// # Shapes
/// `rows [num_tokens]`, those of a sequence one after the other from position 0 on, `q`, `dy [num_tokens, padded(heads head_dim)]`, caches
/// `[sequences, kv_heads, context, head_dim]` in f32, `rope [context, pairs]` of (cosine, sine), `dqkv [num_tokens, padded((heads + 2 kv_heads) head_dim)]`,
/// `stats [num_tokens, heads] vec2<f32>`, which `grad_query` writes and `grad_key_value` reads.
pub struct Buffers<'a> {
    pub rows: &'a Buffer,
    pub q: &'a Buffer,
    pub k_cache: &'a Buffer,
    pub v_cache: &'a Buffer,
    pub dy: &'a Buffer,
    pub rope: Option<&'a Buffer>,
    pub dqkv: &'a Buffer,
    pub stats: &'a Buffer,
}

impl<'a> Buffers<'a> {
    /// By the names that both kernels have for them.
    pub(super) fn bound(&self) -> Vec<(&'static str, &'a Buffer)> {
        let mut bound = vec![
            ("rows", self.rows),
            ("q", self.q),
            ("k_cache", self.k_cache),
            ("v_cache", self.v_cache),
            ("dy", self.dy),
            ("dqkv", self.dqkv),
            ("stats", self.stats),
        ];
        bound.extend(self.rope.map(|rope| ("rope", rope)));
        bound
    }
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    let Problem { num_heads, num_kv_heads, head_dim, .. } = *problem;
    let variant = Variant::new()
        .u32("WG", caps.plain_workgroup())
        .u32("NUM_HEADS", num_heads)
        .u32("NUM_KV_HEADS", num_kv_heads)
        .u32("HEAD_QUADS", head_dim / 4)
        .u32("CONTEXT", problem.context)
        .u32("Q_QUADS", padded(num_heads * head_dim) / 4)
        .u32("QKV_STRIDE", padded((num_heads + 2 * num_kv_heads) * head_dim))
        .f32("SCALE", problem.scale);
    match problem.rope_pairs {
        Some(pairs) => variant.flag("ROPE").u32("ROPE_PAIRS", pairs),
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
            params: bytemuck::bytes_of(&Params::new(problem.num_tokens)),
            buffers: &buffers.bound(),
            grid: [problem.num_tokens.div_ceil(device.caps().plain_workgroup()), problem.num_heads, 1],
        },
    )
}
