//! router_topk: the top_k best experts of each token and their weights.
//!
//! ```text
//! logits          [num_tokens, num_experts] f32  in
//! selection_bias  [num_experts] f32              in   where the spec has one
//! expert_scale    [num_experts] f32              in   where the spec has one: multiplies the weight
//! slot_table      [num_experts] u32              in   cache slot of each expert
//! ids             [num_tokens, top_k] u32        out  best first; equal scores: lower id first
//! slots           [num_tokens, top_k] u32        out  slot_table of ids
//! weights         [num_tokens, top_k] f32        out  as the spec says
//! loads           [num_experts] u32              out  incremented once per assignment
//! ```
//!
//! What `params` of the shader says besides is in [`RouterSpec::change`]. Of a router that may halt, [`look_up`] is what comes after the choice:
//!
//! ```text
//! stream          [..] f32                       in       the residual stream
//! halt            Halt                           in, out
//! slots           [top_k] u32                    out      none if one is absent, or something halted before
//! ```

use crate::gating::RouterSpec;

/// `ids`, `slots` and `weights` of the ledger.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Routing {
    pub expert_ids: Vec<u32>,
    pub slots: Vec<u32>,
    pub routing_weights: Vec<f32>,
}

/// In a slot table: an expert that has none.
pub const ABSENT: u32 = u32::MAX;

/// What a single token leaves for the host where an expert is not there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Halt {
    pub is_halted: bool,
    /// Index of the layer that halted, among those with a router.
    pub place: u32,
    /// What the layer chose that looked last.
    pub chosen: Vec<u32>,
    /// The residual stream where it halted.
    pub stream: Vec<f32>,
}

/// What a router makes of its choice for a single token where experts may be absent. Behind a halt it chooses nothing: `routing` stays as it was, but for
/// the slots.
pub fn look_up(routing: &mut Routing, place: u32, stream: &[f32], halt: &mut Halt) {
    if !halt.is_halted {
        halt.chosen = routing.expert_ids.clone();
        if routing.slots.contains(&ABSENT) {
            *halt = Halt { is_halted: true, place, chosen: halt.chosen.clone(), stream: stream.to_vec() };
        }
    }
    if halt.is_halted {
        routing.slots.fill(ABSENT);
    }
}

pub fn router_topk(
    router: &RouterSpec,
    logits: &[f32],
    [selection_bias, expert_scale]: [Option<&[f32]>; 2],
    slot_table: &[u32],
    loads: &mut [u32],
) -> Routing {
    let mut routing = Routing::default();
    for logits in logits.chunks_exact(router.num_experts) {
        // logits is logits[t] here
        let assignment = router.route(logits, selection_bias);
        for (expert, weight) in assignment.expert_ids.into_iter().zip(assignment.routing_weights) {
            routing.expert_ids.push(expert);
            routing.slots.push(slot_table[expert as usize]);
            let factor = expert_scale.map_or(1.0, |scale| f64::from(scale[expert as usize]));
            routing.routing_weights.push((weight * factor) as f32);
            loads[expert as usize] += 1;
        }
    }
    routing
}
