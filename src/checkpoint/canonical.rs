//! The weights as the rest of the library knows them, and which stored tensors each one is made of.

use super::header::{StoredTensor, readable};
use crate::spec::{LayerSpec, ModelSpec};
use crate::{Error, Result};

/// One weight matrix `[rows, cols]` that maps a row of `cols` values to `rows` values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WeightKey {
    /// `[vocab_size, hidden_size]`
    Embedding,
    /// `[1, hidden_size]`
    FinalNorm,
    /// `[vocab_size, hidden_size]`; the embedding where the spec ties them.
    Head,
    /// `[1, hidden_size]`
    AttentionNorm { layer: usize },
    /// `[1, hidden_size]`
    FfnNorm { layer: usize },
    /// `[(num_heads + 2 num_kv_heads) head_dim, hidden_size]`: query rows, then key rows, then value rows.
    Qkv { layer: usize },
    /// `[hidden_size, num_heads head_dim]`
    AttentionOutput { layer: usize },
    /// `[num_experts, hidden_size]`
    Router { layer: usize },
    /// `[2 intermediate_size, hidden_size]`: row `2i` is row `i` of the gate, row `2i + 1` is row `i` of up.
    ExpertGateUp { layer: usize, expert: usize },
    /// `[hidden_size, intermediate_size]`
    ExpertDown { layer: usize, expert: usize },
}

/// The stored tensors of one weight, all with the same columns.
pub(super) struct Recipe {
    pub parts: Vec<Part>,
    /// Their rows take turns; otherwise one part follows the other.
    pub interleaved: bool,
}

/// One stored tensor.
pub(super) struct Part {
    pub name: String,
    pub rows: usize,
    pub cols: usize,
    /// Stored without the axis of rows.
    pub is_vector: bool,
}

impl WeightKey {
    /// Every weight of a model once, in the order of use; no [`Head`](Self::Head) where the spec ties it to the embedding.
    pub fn all(spec: &ModelSpec) -> impl Iterator<Item = WeightKey> {
        let layers = spec.layers.iter().enumerate().flat_map(|(layer, LayerSpec { ffn, .. })| {
            let block = [
                WeightKey::AttentionNorm { layer },
                WeightKey::Qkv { layer },
                WeightKey::AttentionOutput { layer },
                WeightKey::FfnNorm { layer },
                WeightKey::Router { layer },
            ];
            let experts = (0..ffn.moe().router.num_experts)
                .flat_map(move |expert| [WeightKey::ExpertGateUp { layer, expert }, WeightKey::ExpertDown { layer, expert }]);
            block.into_iter().chain(experts)
        });
        let head = (!spec.tied_embeddings).then_some(WeightKey::Head);
        [WeightKey::Embedding].into_iter().chain(layers).chain([WeightKey::FinalNorm]).chain(head)
    }

    /// `(rows, cols)`.
    ///
    /// # Panics
    /// If the spec has no such layer.
    pub fn shape(self, spec: &ModelSpec) -> (usize, usize) {
        let attention = |layer: usize| spec.layers[layer].mixer.attention();
        let moe = |layer: usize| spec.layers[layer].ffn.moe();
        let hidden_size = spec.hidden_size;
        match self {
            WeightKey::Embedding | WeightKey::Head => (spec.vocab_size, hidden_size),
            WeightKey::FinalNorm | WeightKey::AttentionNorm { .. } | WeightKey::FfnNorm { .. } => (1, hidden_size),
            WeightKey::Qkv { layer } => (attention(layer).qkv_rows(), hidden_size),
            WeightKey::AttentionOutput { layer } => (hidden_size, attention(layer).output_width()),
            WeightKey::Router { layer } => (moe(layer).router.num_experts, hidden_size),
            WeightKey::ExpertGateUp { layer, .. } => (2 * moe(layer).expert.intermediate_size, hidden_size),
            WeightKey::ExpertDown { layer, .. } => (hidden_size, moe(layer).expert.intermediate_size),
        }
    }

    /// What the weight is made of.
    pub(super) fn recipe(self, spec: &ModelSpec) -> Recipe {
        let names = &spec.names;
        let (rows, cols) = self.shape(spec);
        let one = |name: String| Recipe { parts: vec![Part { name, rows, cols, is_vector: false }], interleaved: false };
        let norm = |name: String| Recipe { parts: vec![Part { name, rows, cols, is_vector: true }], interleaved: false };
        match self {
            WeightKey::Embedding => one(names.embedding.to_owned()),
            WeightKey::Head if spec.tied_embeddings => one(names.embedding.to_owned()),
            WeightKey::Head => one(names.head.to_owned()),
            WeightKey::FinalNorm => norm(names.final_norm.to_owned()),
            WeightKey::AttentionNorm { layer } => norm(in_layer(names.attention_norm, layer)),
            WeightKey::FfnNorm { layer } => norm(in_layer(names.ffn_norm, layer)),
            WeightKey::Qkv { layer } => {
                let attention = spec.layers[layer].mixer.attention();
                let heads = |template: &str, num_heads: usize| Part {
                    name: in_layer(template, layer),
                    rows: num_heads * attention.head_dim,
                    cols,
                    is_vector: false,
                };
                let parts = vec![
                    heads(names.query, attention.num_heads),
                    heads(names.key, attention.num_kv_heads),
                    heads(names.value, attention.num_kv_heads),
                ];
                Recipe { parts, interleaved: false }
            }
            WeightKey::AttentionOutput { layer } => one(in_layer(names.attention_output, layer)),
            WeightKey::Router { layer } => one(in_layer(names.router, layer)),
            WeightKey::ExpertGateUp { layer, expert } => {
                let half =
                    |template: &str| Part { name: of_expert(template, layer, expert), rows: rows / 2, cols, is_vector: false };
                Recipe { parts: vec![half(names.expert_gate), half(names.expert_up)], interleaved: true }
            }
            WeightKey::ExpertDown { layer, expert } => one(of_expert(names.expert_down, layer, expert)),
        }
    }
}

impl Part {
    /// Whether `stored` has the shape and a number format to be this part.
    pub fn check(&self, stored: &StoredTensor) -> Result<()> {
        let expected = if self.is_vector { vec![self.cols] } else { vec![self.rows, self.cols] };
        if stored.shape != expected {
            return Err(Error::TensorShape { name: self.name.clone(), expected, found: stored.shape.clone() });
        }
        if readable(stored.dtype).is_none() {
            let found = stored.dtype.to_string();
            return Err(Error::TensorDtype { name: self.name.clone(), expected: "F32, F16, BF16", found });
        }
        Ok(())
    }
}

fn in_layer(template: &str, layer: usize) -> String {
    template.replace("{l}", &layer.to_string())
}

fn of_expert(template: &str, layer: usize, expert: usize) -> String {
    in_layer(template, layer).replace("{e}", &expert.to_string())
}
