//! What the routers of a model do with a batch.

use super::place::all_finite;

/// How one layer routed a batch of `n` tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerRouting {
    /// Index of the layer in the model.
    pub layer: usize,
    /// `[n, num_experts]`
    pub router_logits: Vec<f32>,
    /// `[n, num_experts_per_tok]`, best first.
    pub expert_ids: Vec<u32>,
    /// `[n, num_experts_per_tok]`, what multiplies the output of each expert, or its input.
    pub routing_weights: Vec<f32>,
}

impl LayerRouting {
    /// No tokens yet.
    pub fn empty(layer: usize) -> Self {
        LayerRouting { layer, router_logits: Vec::new(), expert_ids: Vec::new(), routing_weights: Vec::new() }
    }

    /// Forgets the first `dropped` of `num_tokens` tokens.
    pub fn drop_first(&mut self, dropped: usize, num_tokens: usize) {
        self.router_logits.drain(..self.router_logits.len() / num_tokens * dropped);
        let chosen = self.expert_ids.len() / num_tokens * dropped;
        self.expert_ids.drain(..chosen);
        self.routing_weights.drain(..chosen);
    }

    /// Whether a router did what no router does: logits or weights that are not finite, or an expert twice for one token. `top_k` is the number of experts
    /// of a token.
    pub fn is_nonsense(&self, top_k: usize) -> bool {
        let twice = |ids: &[u32]| ids.iter().enumerate().any(|(rank, id)| ids[..rank].contains(id));
        !all_finite(&self.router_logits) || !all_finite(&self.routing_weights) || self.expert_ids.chunks(top_k.max(1)).any(twice)
    }

    /// Puts the tokens of a later batch behind these.
    pub fn append(&mut self, later: &LayerRouting) {
        self.router_logits.extend_from_slice(&later.router_logits);
        self.expert_ids.extend_from_slice(&later.expert_ids);
        self.routing_weights.extend_from_slice(&later.routing_weights);
    }
}
