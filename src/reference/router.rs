//! router: the logits of each token, its top_k best experts and their weights.
//!
//! ```text
//! x               [num_tokens, cols] f32         in
//! weight          [num_experts, cols] f32        in
//! bias            [num_experts] f32              in   where the spec has one
//! logits          [num_tokens, num_experts] f32  out  [`finish_logits`] of x W^T
//! ```
//!
//! The rest is as in [`router_topk`].

use super::matmul::{add_bias, cap, matmul};
use super::router_topk::{Routing, router_topk};
use crate::gating::RouterSpec;

/// `vectors` and `slot_table` are those of [`router_topk`].
pub fn router(
    router: &RouterSpec,
    [x, weight]: [&[f32]; 2],
    bias: Option<&[f32]>,
    vectors: [Option<&[f32]>; 2],
    slot_table: &[u32],
    loads: &mut [u32],
) -> (Vec<f32>, Routing) {
    let mut logits = matmul(x, weight, weight.len() / router.num_experts);
    finish_logits(router, &mut logits, bias);
    let routing = router_topk(router, &logits, vectors, slot_table, loads);
    (logits, routing)
}

/// The products with a router's weights, as it chooses by them: with its bias, times its factor, capped.
pub fn finish_logits(router: &RouterSpec, logits: &mut [f32], bias: Option<&[f32]>) {
    if let Some(bias) = bias {
        add_bias(logits, bias);
    }
    logits.iter_mut().for_each(|logit| *logit *= router.logit_scale);
    if let Some(limit) = router.softcap {
        cap(logits, limit);
    }
}
