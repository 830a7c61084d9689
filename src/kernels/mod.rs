//! One file per shader: its interface, which variant to run, and how to record it.
//!
//! Every file has the same parts. `Problem` is the shape, `choose` maps the device's capabilities and a problem to a variant and is pure,
//! `Buffers` names the memory, `record` appends the dispatch. What a kernel computes is written in its shader's ledger and, in plain
//! Rust, in the file of the same name under `reference/`.

pub mod adamw;
pub mod attention;
pub mod attention_merge;
pub mod causal_pair;
pub mod clip;
pub mod cross_entropy;
pub mod embed;
pub mod expert_capacity;
pub mod expert_combine;
pub mod expert_down;
pub mod expert_gate_up;
pub mod expert_identity;
pub mod expert_sort;
pub mod gate;
pub mod gate_rule;
pub mod gate_stats;
pub mod gated_norm;
pub mod grad_embed;
pub mod grad_gate;
pub mod grad_gate_rule;
pub mod grad_hidden;
pub mod grad_input;
pub mod grad_key_value;
pub mod grad_norm;
pub mod grad_norm_weight;
pub mod grad_query;
pub mod grad_weight;
pub mod head_matmul;
pub mod latent;
pub mod matmul;
pub mod norm;
mod outer_tile;
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
pub mod squares;
mod tile;

pub use crate::batch::Row;
pub use slab::{SHARDS_PER_DISPATCH, SlabCut, SlabPart, SlabShape, Slabs};

use crate::gpu::{Kernel, Variant};
use crate::quant::CacheFormat;

/// Every kernel, in the order of a token's way through the model; then those of training.
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
    &expert_capacity::KERNEL,
    &expert_sort::KERNEL,
    &expert_gate_up::KERNEL,
    &expert_down::KERNEL,
    &expert_combine::KERNEL,
    &expert_identity::KERNEL,
    &sample::KERNEL,
    &gate::KERNEL,
    &gate_stats::KERNEL,
    &cross_entropy::KERNEL,
    &grad_input::KERNEL,
    &grad_weight::KERNEL,
    &grad_norm::KERNEL,
    &grad_norm_weight::KERNEL,
    &grad_hidden::KERNEL,
    &grad_gate::KERNEL,
    &grad_query::KERNEL,
    &grad_key_value::KERNEL,
    &grad_embed::KERNEL,
    &squares::KERNEL,
    &clip::KERNEL,
    &adamw::KERNEL,
    &gate_rule::KERNEL,
    &grad_gate_rule::KERNEL,
];

/// For kernels that import `shaders/lib/cache.wgsl`.
fn with_cache(variant: Variant, cache: CacheFormat) -> Variant {
    variant.flag_if(cache == CacheFormat::F16, "CACHE_F16")
}

/// Shapes are checked to fit when a spec is parsed; lengths of a batch are bounded by the context.
fn to_u32(len: usize) -> u32 {
    u32::try_from(len).expect("lengths fit u32")
}
