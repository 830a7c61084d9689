//! How large a model is, from its spec alone.

use super::{LayerSpec, ModelSpec};
use crate::quant::{Quant, QuantFormat};
use crate::tensor::Dtype;

/// Counts of parameters, all layers together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    pub embedding: u64,
    /// Zero where the head is the embedding table.
    pub head: u64,
    pub attention: u64,
    pub norms: u64,
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
        let hidden_size = spec.hidden_size as u64;
        let table = spec.vocab_size as u64 * hidden_size;
        let mut counts = Parameters {
            embedding: table,
            head: if spec.tied_embeddings { 0 } else { table },
            attention: 0,
            norms: hidden_size,
            router: 0,
            experts: 0,
            router_active: 0,
            experts_active: 0,
        };
        for LayerSpec { mixer, ffn } in &spec.layers {
            let (attention, moe) = (mixer.attention(), ffn.moe());
            let expert = 3 * hidden_size * moe.expert.intermediate_size as u64;
            let (num_experts, num_active) = (moe.router.num_experts as u64, moe.router.num_experts_per_tok as u64);
            counts.attention += hidden_size * (attention.qkv_rows() + attention.output_width()) as u64;
            counts.norms += 2 * hidden_size;
            counts.router += num_experts * hidden_size;
            counts.router_active += num_active * hidden_size;
            counts.experts += num_experts * expert;
            counts.experts_active += num_active * expert;
        }
        counts
    }

    /// All parameters.
    pub fn total(&self) -> u64 {
        self.without_experts() + self.router + self.experts
    }

    /// The parameters of the same model with only as many experts as one token uses. Embedding and head count whole, and an
    /// expert that is not used does not count with its row of the router either; so Mixtral 8x7B has 12.9 B and 8x22B 39.1 B.
    pub fn active(&self) -> u64 {
        self.without_experts() + self.router_active + self.experts_active
    }

    fn without_experts(&self) -> u64 {
        self.embedding + self.head + self.attention + self.norms
    }
}

impl ModelSpec {
    /// Bytes of all weights in device memory with matrices in `quant`. Norms and routers stay f32.
    pub fn weight_bytes(&self, quant: Quant) -> u64 {
        let f32 = QuantFormat::exact_for(Dtype::F32);
        let bytes = |quant: Quant, rows: usize, cols: usize| rows as u64 * quant.row_bytes(cols) as u64;
        let tables = if self.tied_embeddings { 1 } else { 2 };
        let mut total = tables * bytes(quant, self.vocab_size, self.hidden_size) + bytes(f32, 1, self.hidden_size);
        for LayerSpec { mixer, ffn } in &self.layers {
            let (attention, moe) = (mixer.attention(), ffn.moe());
            let expert = bytes(quant, 2 * moe.expert.intermediate_size, self.hidden_size)
                + bytes(quant, self.hidden_size, moe.expert.intermediate_size);
            total += bytes(quant, attention.qkv_rows(), self.hidden_size)
                + bytes(quant, self.hidden_size, attention.output_width())
                + bytes(f32, 2, self.hidden_size)
                + bytes(f32, moe.router.num_experts, self.hidden_size)
                + moe.router.num_experts as u64 * expert;
        }
        total
    }

    /// Bytes of the KV cache per token: an f32 key and value in every layer.
    pub fn kv_bytes_per_token(&self) -> u64 {
        let heads = self.layers.iter().map(|layer| layer.mixer.attention());
        heads.map(|attention| 2 * 4 * (attention.num_kv_heads * attention.head_dim) as u64).sum()
    }
}
