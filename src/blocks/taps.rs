//! What the routers of a pass write, and the copies that are kept of it.

use super::memory::Memory;
use crate::batch::LayerRouting;
use crate::gpu::{Buffer, Device, Recording};
use crate::spec::ModelSpec;
use std::ops::Range;

/// Where copies of what a layer's router did lie, and where its experts are counted.
#[derive(Debug)]
pub(crate) struct LayerTaps {
    /// Index of the layer in the model.
    pub layer: usize,
    pub num_experts: usize,
    pub num_experts_per_tok: usize,
    /// Place of its first expert in [`Memory::loads`].
    pub load_offset: usize,
    /// Place of its first value in [`Memory::tap_values`], in values of one token.
    offset: usize,
    /// What the router did with a single token, where it is kept: nobody overwrites it before the end of the pass.
    pub single: RouterOutput,
}

/// What a router writes.
#[derive(Debug, Clone)]
pub(crate) struct RouterOutput {
    pub logits: Buffer,
    pub ids: Buffer,
    pub weights: Buffer,
}

/// Places in [`Memory::tap_values`], by row of the chunk, in values of 32 bits.
pub(crate) struct TapPlaces {
    pub router_logits: Range<usize>,
    pub expert_ids: Range<usize>,
    pub routing_weights: Range<usize>,
}

impl LayerTaps {
    /// One per layer with a router.
    pub fn of_model(device: &Device, spec: &ModelSpec) -> Vec<Self> {
        let (mut load_offset, mut offset) = (spec.layers.len(), 0);
        let mut taps = Vec::new();
        for (layer, moe) in spec.moe_layers() {
            let (num_experts, num_experts_per_tok) = (moe.router.num_experts, moe.router.num_experts_per_tok);
            let buffer = |label: &str, len: usize| device.storage(label, (len * 4) as u64);
            let single = RouterOutput {
                logits: buffer("router_logits", num_experts),
                ids: buffer("expert_ids", num_experts_per_tok),
                weights: buffer("routing_weights", num_experts_per_tok),
            };
            taps.push(LayerTaps { layer, num_experts, num_experts_per_tok, load_offset, offset, single });
            load_offset += num_experts;
            offset += num_experts + 2 * num_experts_per_tok;
        }
        taps
    }

    /// Copies what the router wrote to its place.
    pub fn keep(&self, output: &RouterOutput, tap_values: &Buffer, num_tokens: usize, recording: &mut Recording) {
        let RouterOutput { logits, ids, weights } = output;
        let TapPlaces { router_logits, expert_ids, routing_weights } = self.places(num_tokens);
        for (from, place) in [(logits, router_logits), (ids, expert_ids), (weights, routing_weights)] {
            recording.copy(from, tap_values, (place.start * 4) as u64, (place.len() * 4) as u64);
        }
    }

    /// For a chunk of `num_tokens`.
    pub fn places(&self, num_tokens: usize) -> TapPlaces {
        let router_logits = self.offset * num_tokens..(self.offset + self.num_experts) * num_tokens;
        let expert_ids = router_logits.end..router_logits.end + self.num_experts_per_tok * num_tokens;
        let routing_weights = expert_ids.end..expert_ids.end + self.num_experts_per_tok * num_tokens;
        TapPlaces { router_logits, expert_ids, routing_weights }
    }

    /// Values of all layers for a chunk of `num_tokens`.
    pub fn len(taps: &[Self], num_tokens: usize) -> usize {
        taps.last().map_or(0, |last| last.places(num_tokens).routing_weights.end)
    }
}

impl Memory {
    /// Appends what the routers did with the `num_tokens` rows of a pass, from a copy of `tap_values`.
    pub fn append_routing(&self, values: &[u32], num_tokens: usize, layers: &mut [LayerRouting]) {
        let floats = |place: Range<usize>| values[place].iter().map(|&bits| f32::from_bits(bits));
        for (routing, taps) in layers.iter_mut().zip(&self.taps) {
            let TapPlaces { router_logits, expert_ids, routing_weights } = taps.places(num_tokens);
            routing.router_logits.extend(floats(router_logits));
            routing.expert_ids.extend_from_slice(&values[expert_ids]);
            routing.routing_weights.extend(floats(routing_weights));
        }
    }
}
