//! How large a model is, from its spec alone.

use super::weight::{Role, Share, Weight};
use super::{AttentionExpertsSpec, LayerSpec, ModelSpec, STATE_SLOTS};
use crate::quant::{CacheFormat, Quant, QuantFormat, WeightClass};
use crate::tensor::Dtype;

/// Counts of parameters, all layers together. Biases count with what they belong to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parameters {
    pub embedding: u64,
    /// Zero where the head is the embedding table and has no bias.
    pub head: u64,
    /// With the norms of query and key, and the sinks.
    pub attention: u64,
    /// Of those the query and output projections that one token does not use, with their rows of the router.
    pub attention_idle: u64,
    /// Those of the residual stream.
    pub norms: u64,
    /// MLPs of layers without experts, and those that run beside experts.
    pub dense: u64,
    /// Experts that every token uses.
    pub shared: u64,
    pub router: u64,
    pub experts: u64,
    /// The router's rows of the experts that one token uses.
    pub router_active: u64,
    /// The experts that one token uses.
    pub experts_active: u64,
}

impl Parameters {
    /// Counts the parameters of `spec`.
    pub fn of(spec: &ModelSpec) -> Self {
        let mut counts = Parameters::default();
        for weight in spec.weights() {
            let all = weight.count();
            match weight.role.facts().share {
                Share::Embedding => counts.embedding += all,
                Share::Head => counts.head += all,
                Share::Attention => {
                    counts.attention += all;
                    counts.attention_idle += all / weight.copies() as u64 * (weight.copies() - weight.used()) as u64;
                }
                Share::Norms => counts.norms += all,
                Share::Dense => counts.dense += all,
                Share::Shared => counts.shared += all,
                Share::Router => counts.router += all,
                Share::Experts => counts.experts += all,
            }
        }
        for layer in &spec.layers {
            counts.add_used(spec.hidden_size, layer);
        }
        counts
    }

    /// What one token uses of routers and experts, where a router's rows count with the experts that they are for.
    fn add_used(&mut self, hidden_size: usize, layer: &LayerSpec) {
        if let Some(moe) = layer.moe() {
            let sum = |share: Share| -> u64 {
                let weights = moe.weights(hidden_size);
                weights.iter().filter(|weight| weight.role.facts().share == share).map(Weight::count).sum()
            };
            let (num_experts, num_active) = (moe.router.num_experts as u64, moe.router.num_experts_per_tok as u64);
            self.router_active += sum(Share::Router) / num_experts * num_active;
            self.experts_active += sum(Share::Experts) / num_experts * num_active;
        }
        if let Some(AttentionExpertsSpec { router, .. }) = layer.attention_experts() {
            let idle = router.num_experts - router.num_experts_per_tok;
            self.attention_idle += (idle * hidden_size) as u64;
        }
    }

    /// All parameters.
    pub fn total(&self) -> u64 {
        self.without_experts() + self.router + self.experts
    }

    /// The parameters of the same model with only as many experts as one token uses. Embedding and head count whole, and an
    /// expert that is not used does not count with its row of the router either; so Mixtral 8x7B has 12.9 B and 8x22B 39.1 B.
    pub fn active(&self) -> u64 {
        self.without_experts() - self.attention_idle + self.router_active + self.experts_active
    }

    /// Multiplications and additions of one token, beside its attention to earlier ones: two for each weight that it meets. The embedding is
    /// a lookup, and every row of a router counts.
    pub fn flops_per_token(&self) -> u64 {
        let table = if self.head >= self.embedding { self.embedding } else { 0 };
        2 * (self.active() - table + self.router - self.router_active)
    }

    /// Those of a dense model of so many parameters as one token uses here.
    pub fn flops_of_dense(&self) -> u64 {
        self.flops_per_token() - 2 * (self.router - self.router_active)
    }

    fn without_experts(&self) -> u64 {
        self.embedding + self.head + self.attention + self.norms + self.dense + self.shared
    }
}

impl Weight {
    /// Bytes of so many copies on a device with matrices in `quant`. Routers and everything that is a vector stay f32.
    fn bytes(&self, copies: usize, quant: Quant) -> u64 {
        let quant = match self.role.facts().class {
            None => QuantFormat::exact_for(Dtype::F32),
            Some(WeightClass::Head) => quant.usual_head(),
            Some(_) => quant,
        };
        copies as u64 * self.rows as u64 * quant.row_bytes(self.cols) as u64
    }
}

impl ModelSpec {
    /// Bytes of all weights in device memory with matrices in `quant`. Routers and everything that is a vector stay f32, and a head that
    /// `quant` spares counts as 16 bits.
    pub fn weight_bytes(&self, quant: Quant) -> u64 {
        let embedding = if self.tied_embeddings { 0 } else { self.table(Role::Embedding).bytes(1, quant) };
        embedding + self.bytes_beside_embedding(quant, Weight::copies)
    }

    /// Bytes of weights that one decode step reads with matrices in `quant`: of the routed experts those that a token uses, of the embedding
    /// one row, all else whole.
    pub fn active_weight_bytes(&self, quant: Quant) -> u64 {
        let row = Weight { rows: 1, ..self.table(Role::Embedding) };
        row.bytes(1, quant) + self.bytes_beside_embedding(quant, Weight::used)
    }

    /// So many `copies` of every weight but the embedding, and the head even where it is the embedding.
    fn bytes_beside_embedding(&self, quant: Quant, copies: impl Fn(&Weight) -> usize) -> u64 {
        let tied_head = self.tied_embeddings.then(|| self.table(Role::Head));
        let weights = self.weights().filter(|weight| weight.role != Role::Embedding).chain(tied_head);
        weights.map(|weight| weight.bytes(copies(&weight), quant)).sum()
    }

    /// Bytes of the KV cache per token: a key and a value of every layer, or the one row that stands for both, in `cache`, and what a filter
    /// remembers in f32.
    pub fn kv_bytes_per_token(&self, cache: CacheFormat) -> u64 {
        let blocks = self.layers.iter().flat_map(|layer| &layer.blocks);
        let states = blocks.flat_map(|block| block.state(self.hidden_size));
        states.map(|state| state.bytes(1, cache)).sum()
    }

    /// Bytes of what one copy of the state of all layers takes that does not grow with the text: what a token reads and what it writes.
    pub fn state_bytes(&self) -> u64 {
        self.held_state_bytes() / STATE_SLOTS as u64
    }

    /// Bytes of that state with the earlier copies that are kept to go back to.
    pub fn held_state_bytes(&self) -> u64 {
        let blocks = self.layers.iter().flat_map(|layer| &layer.blocks);
        blocks.flat_map(|block| block.carried(self.hidden_size)).map(|state| state.bytes()).sum()
    }

    /// Bytes of what blocks keep of a text of so many tokens: KV cache and state.
    pub fn memory_bytes(&self, tokens: usize, cache: CacheFormat) -> u64 {
        self.kv_bytes_per_token(cache) * tokens as u64 + self.held_state_bytes()
    }
}
