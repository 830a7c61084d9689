//! One file per shader: its interface, which variant to run, and how to record it.
//!
//! Every file has the same parts. `Problem` is the shape, `choose` maps the device's capabilities and a problem to a variant and is pure,
//! `Buffers` names the memory, `record` appends the dispatch. What a kernel computes is written in its shader's ledger and, in plain
//! Rust, in the file of the same name under `reference/`.

pub mod attention;
pub mod attention_merge;
pub mod causal_pair;
pub mod embed;
pub mod expert_combine;
pub mod expert_down;
pub mod expert_gate_up;
pub mod expert_identity;
pub mod expert_sort;
pub mod gated_norm;
pub mod head_matmul;
pub mod latent;
pub mod matmul;
pub mod norm;
pub mod qk_rope;
pub mod qkv;
pub mod regroup;
pub mod router;
pub mod router_attention;
pub mod router_topk;
pub mod sample;
pub mod scan;
pub mod short_conv;
mod slab;
mod tile;

pub use crate::batch::Row;
pub use slab::{SHARDS_PER_DISPATCH, SlabCut, SlabPart, SlabShape, Slabs};

use crate::gpu::{Kernel, Variant};
use crate::quant::CacheFormat;

/// Every kernel, in the order of a token's way through the model.
pub static KERNELS: &[&Kernel] = &[
    &embed::KERNEL,
    &norm::KERNEL,
    &causal_pair::KERNEL,
    &short_conv::KERNEL,
    &scan::KERNEL,
    &gated_norm::KERNEL,
    &qkv::KERNEL,
    &qk_rope::KERNEL,
    &latent::KERNEL,
    &head_matmul::KERNEL,
    &attention::KERNEL,
    &attention_merge::KERNEL,
    &matmul::KERNEL,
    &regroup::KERNEL,
    &router_attention::KERNEL,
    &router_topk::KERNEL,
    &router::KERNEL,
    &expert_sort::KERNEL,
    &expert_gate_up::KERNEL,
    &expert_down::KERNEL,
    &expert_combine::KERNEL,
    &expert_identity::KERNEL,
    &sample::KERNEL,
];

/// For kernels that import `shaders/lib/cache.wgsl`.
fn with_cache(variant: Variant, cache: CacheFormat) -> Variant {
    variant.flag_if(cache == CacheFormat::F16, "CACHE_F16")
}

/// Shapes are checked to fit when a spec is parsed; lengths of a batch are bounded by the context.
fn to_u32(len: usize) -> u32 {
    u32::try_from(len).expect("lengths fit u32")
}
