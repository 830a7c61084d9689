//! From raw projections to rotated queries and the cache of latent attention.

use super::with_cache;
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant, When};
use crate::quant::{CacheFormat, padded};
use crate::spec::{LatentSpec, RopePairing};

pub static KERNEL: Kernel = Kernel {
    name: "latent",
    source: include_str!("../../shaders/latent.wgsl"),
    summary: "norm and rotary embedding of latent attention, latent cache append",
    params: &[],
    bindings: &[
        Binding::read(0, "rows"),
        Binding::read(1, "q"),
        Binding::read(2, "kv"),
        Binding::read(3, "norm"),
        Binding::read(4, "rope").only(When::Flag("ROPE")),
        Binding::read_write(5, "query"),
        Binding::read_write(6, "cache"),
    ],
};

#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    pub num_tokens: usize,
    pub context: usize,
    pub cache: CacheFormat,
    pub latent: &'a LatentSpec,
}

/// # Shapes
/// `rows [num_tokens]`, `q [num_tokens, padded(heads (nope + rope))]`, `kv [num_tokens, padded(latent + rope)]`, `norm [latent]`,
/// `rope [context, rope / 2]`, `query [num_tokens, padded(heads (latent + rope))]`, `cache [sequences, context, latent + rope]`.
pub struct Buffers<'a> {
    pub rows: &'a Buffer,
    pub q: &'a Buffer,
    pub kv: &'a Buffer,
    pub norm: &'a Buffer,
    /// Where the attention has positions.
    pub rope: Option<&'a Buffer>,
    pub query: &'a Buffer,
    pub cache: &'a Buffer,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    let spec = problem.latent;
    let variant = Variant::new()
        .u32("WG", caps.plain_workgroup())
        .u32("LATENT_DIM", spec.latent_dim)
        .u32("NOPE_DIM", spec.nope_dim)
        .u32("ROPE_DIM", spec.rope_dim)
        .u32("CONTEXT", problem.context)
        .u32("Q_STRIDE", padded(spec.query_width()))
        .u32("KV_STRIDE", padded(spec.cache_dim()))
        .u32("QUERY_STRIDE", padded(spec.num_heads * spec.cache_dim()))
        .f32("EPS", spec.norm_eps)
        .f32("LATENT_SCALE", spec.latent_scale)
        .flag_if(spec.rope.is_some(), "ROPE")
        .flag_if(spec.rope.as_ref().is_some_and(|rope| rope.pairing == RopePairing::Interleaved), "INTERLEAVED");
    with_cache(variant, problem.cache)
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    let mut bound = vec![("rows", buffers.rows), ("q", buffers.q), ("kv", buffers.kv), ("norm", buffers.norm)];
    bound.extend([("query", buffers.query), ("cache", buffers.cache)]);
    bound.extend(buffers.rope.map(|rope| ("rope", rope)));
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant: choose(device.caps(), problem),
            layer,
            params: &[],
            buffers: &bound,
            grid: [1 + problem.latent.num_heads, problem.num_tokens, 1],
        },
    )
}
