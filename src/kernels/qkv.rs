//! Query, key and value projection with rotary embedding, appended to the KV cache.

use super::norm::Fused;
use super::{tile::Tile, to_u32, with_cache};
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Sharded, Variant, When};
use crate::quant::{CacheFormat, Quant, padded};
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "qkv",
    source: include_str!("../../shaders/qkv.wgsl"),
    summary: "query, key, value projection, rotary embedding, KV cache append",
    params: &[
        ("num_tokens", offset_of!(Params, num_tokens)),
        ("num_heads", offset_of!(Params, num_heads)),
        ("first_head", offset_of!(Params, first_head)),
    ],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "rows"),
        Binding::read(2, "x"),
        Binding::read(3, "weight"),
        Binding::read(4, "rope"),
        Binding::read_write(5, "q"),
        Binding::read_write(6, "k_cache"),
        Binding::read_write(7, "v_cache"),
        Binding::read(8, "bias").only(When::Flag("BIAS")),
        Binding::read(9, "norm").only(When::Flag("NORM")),
    ],
};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    num_tokens: u32,
    num_heads: u32,
    first_head: u32,
    padding: u32,
}

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_tokens: usize,
    pub hidden_size: usize,
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    /// Positions that the caches and the rope table hold.
    pub context: usize,
    pub cache: CacheFormat,
    pub bias: bool,
    /// Clamp to this magnitude.
    pub clip: Option<f32>,
    /// Goes before the projection; one token only, and not with a bias: no binding is left.
    pub norm: Option<Fused>,
    pub quant: Quant,
}

impl Problem {
    fn rows(&self) -> usize {
        (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
    }
}

/// # Shapes
/// `rows [num_tokens]`, `x [num_tokens, padded(hidden)]`, `weight [(heads + 2 kv_heads) head_dim, hidden]` packed, cut at heads,
/// `rope [context, head_dim / 2]` of (cosine, sine), `norm [padded(hidden)]`, `q [num_tokens, padded(heads head_dim)]`,
/// caches `[sequences, kv_heads, context, head_dim]`.
pub struct Buffers<'a> {
    pub rows: &'a Buffer,
    pub x: &'a Buffer,
    pub weight: &'a Sharded,
    pub bias: Option<&'a Buffer>,
    pub norm: Option<&'a Buffer>,
    pub rope: &'a Buffer,
    pub q: &'a Buffer,
    pub k_cache: &'a Buffer,
    pub v_cache: &'a Buffer,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    let variant = Tile::choose(caps, problem.num_tokens, problem.rows())
        .variant(problem.hidden_size, problem.quant)
        .u32("NUM_HEADS", problem.num_heads)
        .u32("NUM_KV_HEADS", problem.num_kv_heads)
        .u32("HEAD_DIM", problem.head_dim)
        .u32("CONTEXT", problem.context)
        .u32("Q_STRIDE", padded(problem.num_heads * problem.head_dim))
        .flag_if(problem.bias, "BIAS");
    let variant = with_cache(Fused::variant(problem.norm, variant, problem.hidden_size), problem.cache);
    match problem.clip {
        Some(limit) => variant.flag("CLIP").f32("CLIP_TO", limit),
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
    let tile = Tile::choose(device.caps(), problem.num_tokens, problem.rows());
    for shard in &buffers.weight.shards {
        let params = Params {
            num_tokens: to_u32(problem.num_tokens),
            num_heads: to_u32(shard.num_rows / problem.head_dim),
            first_head: to_u32(shard.first_row / problem.head_dim),
            padding: 0,
        };
        let mut bound = vec![
            ("rows", buffers.rows),
            ("x", buffers.x),
            ("weight", &shard.buffer),
            ("rope", buffers.rope),
            ("q", buffers.q),
            ("k_cache", buffers.k_cache),
            ("v_cache", buffers.v_cache),
        ];
        bound.extend(buffers.bias.map(|bias| ("bias", bias)));
        bound.extend(buffers.norm.map(|norm| ("norm", norm)));
        recording.dispatch(
            device,
            &DispatchDescriptor {
                kernel: &KERNEL,
                variant: choose(device.caps(), problem),
                layer,
                params: bytemuck::bytes_of(&params),
                buffers: &bound,
                grid: [tile.row_groups(shard.num_rows), problem.num_tokens.div_ceil(tile.tokens), 1],
            },
        )?;
    }
    Ok(())
}
