//! From a raw query, key and value projection to rotated queries and the KV cache.

use super::with_cache;
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Profile, Recording, Variant, When};
use crate::quant::{CacheFormat, padded};
use crate::spec::{AttentionSpec, QkNormOver, RopePairing};

pub static KERNEL: Kernel = Kernel {
    name: "qk_rope",
    source: include_str!("../../shaders/qk_rope.wgsl"),
    summary: "norms of query and key, any rotary embedding, query temperature, KV cache append",
    params: &[],
    bindings: &[
        Binding::read(0, "rows"),
        Binding::read(1, "qkv"),
        Binding::read(2, "rope").only(When::Flag("ROPE")),
        Binding::read(3, "q_norm").only(When::Flag("NORM_WEIGHT")),
        Binding::read(4, "k_norm").only(When::Flag("NORM_WEIGHT")),
        Binding::read_write(5, "q"),
        Binding::read_write(6, "k_cache"),
        Binding::read_write(7, "v_cache"),
    ],
};

#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    pub num_tokens: usize,
    pub context: usize,
    pub cache: CacheFormat,
    pub attention: &'a AttentionSpec,
}

/// # Shapes
/// `rows [num_tokens]`, `qkv [num_tokens, padded(qkv_rows)]`, `rope [context, dims / 2]`, norms `[head_dim]` or `[heads * head_dim]`,
/// `q [num_tokens, padded(heads head_dim)]`, caches `[sequences, kv_heads, context, head_dim]`.
pub struct Buffers<'a> {
    pub rows: &'a Buffer,
    pub qkv: &'a Buffer,
    pub rope: Option<&'a Buffer>,
    pub norms: Option<[&'a Buffer; 2]>,
    pub q: &'a Buffer,
    pub k_cache: &'a Buffer,
    pub v_cache: &'a Buffer,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    let spec = problem.attention;
    let variant = Variant::new()
        .u32("WG", if caps.profile == Profile::Cpu { 8 } else { 32 })
        .u32("CONTEXT", problem.context)
        .u32("Q_STRIDE", padded(spec.query_width()));
    heads(caps, with_cache(variant, problem.cache), spec)
}

/// What `shaders/lib/heads.wgsl` has to know.
pub(super) fn heads(caps: &Caps, variant: Variant, spec: &AttentionSpec) -> Variant {
    let mut variant = variant
        .u32("LOADS", caps.loads(4))
        .u32("NUM_HEADS", spec.num_heads)
        .u32("NUM_KV_HEADS", spec.num_kv_heads)
        .u32("HEAD_DIM", spec.head_dim)
        .u32("QKV_STRIDE", padded(spec.qkv_rows()))
        .u32("VALUE_DIM", spec.value_dim)
        .f32("VALUE_SCALE", spec.value_scale);
    if let Some(limit) = spec.clip {
        variant = variant.flag(if spec.clip_after_norm { "CLIP_AFTER" } else { "CLIP" }).f32("CLIP_TO", limit);
    }
    if let Some(eps) = spec.value_norm {
        variant = variant.flag("VALUE_NORM").flag("ANY_NORM").f32("VALUE_EPS", eps);
    }
    variant = variant.flag_if(spec.values_are_keys, "VALUES_ARE_KEYS");
    if let Some(norm) = spec.qk_norm {
        variant = variant
            .flag("NORM")
            .flag("ANY_NORM")
            .f32("EPS", norm.eps)
            .flag_if(norm.over == QkNormOver::AllHeads, "NORM_ALL")
            .flag_if(norm.after_rope, "NORM_AFTER")
            .flag_if(norm.weight, "NORM_WEIGHT");
    }
    if let Some(rope) = &spec.rope {
        variant =
            variant.flag("ROPE").u32("ROPE_DIMS", rope.dims).flag_if(rope.pairing == RopePairing::Interleaved, "INTERLEAVED");
    }
    match spec.temperature {
        Some(tuning) => variant.flag("TEMPERATURE").f32("TEMPERATURE_SCALE", tuning.scale).f32("TEMPERATURE_FLOOR", tuning.floor),
        None => variant,
    }
}

/// Whether the fused `qkv` kernel cannot do this attention by itself.
pub fn is_needed(spec: &AttentionSpec) -> bool {
    let plain_rope = spec.rope.as_ref().is_some_and(|rope| rope.dims == spec.head_dim && rope.pairing == RopePairing::Half);
    let plain_values =
        spec.value_dim == spec.head_dim && spec.value_scale == 1.0 && spec.value_norm.is_none() && !spec.values_are_keys;
    let parted = spec.filter.is_some();
    parted || spec.qk_norm.is_some() || spec.temperature.is_some() || !plain_rope || !plain_values
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    let spec = problem.attention;
    let mut bound = vec![
        ("rows", buffers.rows),
        ("qkv", buffers.qkv),
        ("q", buffers.q),
        ("k_cache", buffers.k_cache),
        ("v_cache", buffers.v_cache),
    ];
    bound.extend(buffers.rope.map(|rope| ("rope", rope)));
    if let Some([q_norm, k_norm]) = buffers.norms {
        bound.extend([("q_norm", q_norm), ("k_norm", k_norm)]);
    }
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant: choose(device.caps(), problem),
            layer,
            params: &[],
            buffers: &bound,
            grid: [spec.num_heads + 2 * spec.num_kv_heads, problem.num_tokens, 1],
        },
    )
}
