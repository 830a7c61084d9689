//! Softmax attention over the KV cache.

use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Profile, Recording, Variant, When};
use crate::quant::padded;
use crate::spec::Mask;

pub static KERNEL: Kernel = Kernel {
    name: "attention",
    source: include_str!("../../shaders/attention.wgsl"),
    summary: "grouped-query attention over the KV cache, causal or sliding window",
    params: &[],
    bindings: &[
        Binding::read(0, "rows"),
        Binding::read(1, "q"),
        Binding::read(2, "k_cache"),
        Binding::read(3, "v_cache"),
        Binding::read_write(4, "y"),
        Binding::read(5, "sinks").only(When::Flag("SINKS")),
    ],
};

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_tokens: usize,
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    /// Values of a head, the first of each row of the value cache.
    pub value_dim: usize,
    /// Length of a row of the value cache.
    pub value_stride: usize,
    pub context: usize,
    pub scale: f32,
    pub mask: Mask,
    pub sinks: bool,
    pub softcap: Option<f32>,
}

/// # Shapes
/// `rows [num_tokens]`, `q` and `y [num_tokens, padded(heads head_dim)]`, caches `[sequences, kv_heads, context, head_dim]`.
pub struct Buffers<'a> {
    pub rows: &'a Buffer,
    pub q: &'a Buffer,
    pub k_cache: &'a Buffer,
    pub v_cache: &'a Buffer,
    pub y: &'a Buffer,
    /// `[heads]`
    pub sinks: Option<&'a Buffer>,
}

/// Workgroup memory for the queries of one group, in bytes; the scores take as much again at most.
const QUERY_BYTES: usize = 8 << 10;

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    let (workgroup, tile) = match caps.profile {
        Profile::Gpu => (64, 64),
        Profile::Cpu => (8, 32),
    };
    // As many query heads of one key/value head as fit: each key is then read once for all of them.
    let shared = problem.num_heads / problem.num_kv_heads;
    let fits = |group: &usize| shared.is_multiple_of(*group) && group * problem.head_dim * 4 <= QUERY_BYTES;
    let group = (1..=shared.min(workgroup)).rev().find(fits).unwrap_or(1);
    let variant = Variant::new()
        .u32("WG", workgroup)
        .u32("TILE", tile)
        .u32("GROUP", group)
        .u32("NUM_HEADS", problem.num_heads)
        .u32("NUM_KV_HEADS", problem.num_kv_heads)
        .u32("HEAD_DIM", problem.head_dim)
        .u32("VALUE_DIM", problem.value_dim)
        .u32("V_STRIDE", problem.value_stride / 4)
        .u32("Y_QUADS", padded(problem.num_heads * problem.value_dim) / 4)
        .u32("CONTEXT", problem.context)
        .u32("Q_QUADS", padded(problem.num_heads * problem.head_dim) / 4)
        .f32("SCALE", problem.scale)
        .flag_if(problem.sinks, "SINKS")
        .flag_if(caps.profile == Profile::Cpu, "ROLLED");
    let variant = match problem.mask {
        Mask::Causal => variant,
        Mask::Window(window) => variant.flag("WINDOWED").u32("WINDOW", window),
        Mask::Chunk(chunk) => variant.flag("CHUNKED").u32("CHUNK", chunk),
    };
    match problem.softcap {
        Some(cap) => variant.flag("SOFTCAP").f32("CAP", cap),
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
    let variant = choose(device.caps(), problem);
    let mut bound = vec![
        ("rows", buffers.rows),
        ("q", buffers.q),
        ("k_cache", buffers.k_cache),
        ("v_cache", buffers.v_cache),
        ("y", buffers.y),
    ];
    bound.extend(buffers.sinks.map(|sinks| ("sinks", sinks)));
    let groups = problem.num_heads / variant.get("GROUP") as usize;
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant,
            layer,
            params: &[],
            buffers: &bound,
            grid: [groups, problem.num_tokens, 1],
        },
    )
}
