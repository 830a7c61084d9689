//! The weights as the rest of the library knows them.

use crate::gating::RouterSpec;
use crate::quant::WeightClass;
use crate::spec::{
    AttentionSpec, Ffn, FilterSpec, LatentSpec, LayerSpec, Mixer, ModelSpec, MoeSpec, NormSpec, ParallelInputs, QkNorm,
    QkNormOver, Residual,
};

/// One weight matrix `[rows, cols]` that maps a row of `cols` values to `rows` values, or a vector as its only row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WeightKey {
    /// `[vocab_size, hidden_size]`
    Embedding,
    /// `[1, hidden_size]`; `[2, hidden_size]` where the norm has a bias, which is row 1. So are all norms of the residual stream.
    FinalNorm,
    /// `[vocab_size, hidden_size]`; the embedding where the spec ties them.
    Head,
    /// `[1, vocab_size]`
    HeadBias,
    /// Before the mixer.
    AttentionNorm { layer: usize },
    /// After the mixer.
    AttentionPostNorm { layer: usize },
    /// Before the feed-forward part.
    FfnNorm { layer: usize },
    /// After the feed-forward part.
    FfnPostNorm { layer: usize },
    /// `[num_heads head_dim + num_kv_heads (head_dim + value_dim), hidden_size]`: query rows, then key rows, then value rows; without the
    /// query where experts make it, without the value where its input is another.
    Qkv { layer: usize },
    /// `[num_kv_heads value_dim, hidden_size]`, where it is not part of [`Qkv`](Self::Qkv).
    Value { layer: usize },
    /// `[middle, 2 hidden_size]`: of each input the factor of the position before, then its own.
    FilterFirst { layer: usize },
    /// `[1, middle]`
    FilterFirstBias { layer: usize },
    /// `[hidden_size, 2 middle]`, as [`FilterFirst`](Self::FilterFirst).
    FilterSecond { layer: usize },
    /// `[1, hidden_size]`
    FilterSecondBias { layer: usize },
    /// `[1, hidden_size]`
    FilterNorm { layer: usize },
    /// `[num_experts, hidden_size]`, of the router that chooses query and output projections.
    ChoiceRouter { layer: usize },
    /// `[num_kv_heads head_dim, hidden_size]`
    ChoiceQuery { layer: usize, expert: usize },
    /// `[hidden_size, num_kv_heads head_dim]`
    ChoiceOutput { layer: usize, expert: usize },
    /// `[1, num_heads head_dim + num_kv_heads (head_dim + value_dim)]`
    QkvBias { layer: usize },
    /// `[1, head_dim]`, or `[1, num_heads head_dim]` where the norm is over all heads.
    QueryNorm { layer: usize },
    /// `[1, head_dim]`, or `[1, num_kv_heads head_dim]` where the norm is over all heads.
    KeyNorm { layer: usize },
    /// `[1, num_heads]`
    Sinks { layer: usize },
    /// `[num_heads value_dim, hidden_size]`
    AttentionGate { layer: usize },
    /// `[query_rank, hidden_size]`
    LatentQueryDown { layer: usize },
    /// `[1, query_rank]`
    LatentQueryNorm { layer: usize },
    /// `[num_heads (nope_dim + rope_dim), query_rank]`, or `hidden_size` columns where the query has one projection.
    LatentQueryUp { layer: usize },
    /// `[latent_dim + rope_dim, hidden_size]`
    LatentDown { layer: usize },
    /// `[1, latent_dim]`
    LatentNorm { layer: usize },
    /// `[num_heads latent_dim, nope_dim]`: from the query without position to what meets the latent. Row `h latent_dim + i` is
    /// column `i` of the rows that make the key of head `h`.
    LatentKeyUp { layer: usize },
    /// `[num_heads value_dim, latent_dim]`
    LatentValueUp { layer: usize },
    /// `[hidden_size, num_heads head_dim]`, of latent attention `[hidden_size, num_heads value_dim]`
    AttentionOutput { layer: usize },
    /// `[1, hidden_size]`
    AttentionOutputBias { layer: usize },
    /// `[hidden, hidden_size]`, the first of two layers of the router.
    RouterHidden { layer: usize },
    /// `[num_experts, hidden_size]`, or `[num_experts, hidden]` where it is the second of two layers. Of a router with attention three times
    /// as many rows: queries, keys, values.
    Router { layer: usize },
    /// `[1, hidden_size]`, of the norm before the router.
    RouterNorm { layer: usize },
    /// `[1, num_experts]`, the factor of each expert's weight.
    ExpertScale { layer: usize },
    /// `[1, num_experts]`, part of the logits.
    RouterBias { layer: usize },
    /// `[1, num_experts]`, for choosing only.
    SelectionBias { layer: usize },
    /// `[2 intermediate_size, hidden_size]`: row `2i` is row `i` of the gate, row `2i + 1` is row `i` of up.
    ExpertGateUp { layer: usize, expert: usize },
    /// `[1, 2 intermediate_size]`, in turns as the rows.
    ExpertGateUpBias { layer: usize, expert: usize },
    /// `[hidden_size, intermediate_size]`
    ExpertDown { layer: usize, expert: usize },
    /// `[1, hidden_size]`
    ExpertDownBias { layer: usize, expert: usize },
    /// As [`ExpertGateUp`](Self::ExpertGateUp), of the expert that every token uses.
    SharedGateUp { layer: usize },
    /// `[hidden_size, intermediate_size]`
    SharedDown { layer: usize },
    /// `[1, hidden_size]`
    SharedGate { layer: usize },
    /// As [`FfnNorm`](Self::FfnNorm), before the dense MLP that runs beside experts.
    ParallelNorm { layer: usize },
    /// As [`FfnNorm`](Self::FfnNorm), after the dense MLP that runs beside experts.
    ParallelPostNorm { layer: usize },
    /// As [`FfnNorm`](Self::FfnNorm), after experts that run beside a dense MLP.
    ExpertPostNorm { layer: usize },
    /// `[1, hidden_size]`, of the feed-forward part.
    FfnBias { layer: usize },
    /// `[1, 1]`, what the residual stream is multiplied by at the end of the layer.
    OutputScale { layer: usize },
    /// As [`ExpertGateUp`](Self::ExpertGateUp), of a layer without experts or of the MLP that runs beside them.
    DenseGateUp { layer: usize },
    /// `[hidden_size, intermediate_size]`
    DenseDown { layer: usize },
}

impl WeightKey {
    /// Every weight of a model once, in the order of use; no [`Head`](Self::Head) where the spec ties it to the embedding.
    pub fn all(spec: &ModelSpec) -> impl Iterator<Item = WeightKey> {
        let layers = spec.layers.iter().enumerate().flat_map(|(layer, layer_spec)| of_layer(layer, layer_spec));
        let head = (!spec.tied_embeddings).then_some(WeightKey::Head);
        let head_bias = spec.head_bias.then_some(WeightKey::HeadBias);
        [WeightKey::Embedding].into_iter().chain(layers).chain([WeightKey::FinalNorm]).chain(head).chain(head_bias)
    }

    /// What decides its format on a device; `None` for what is f32 always: norms, biases and routers.
    pub fn class(self) -> Option<WeightClass> {
        match self {
            WeightKey::Embedding => Some(WeightClass::Embedding),
            WeightKey::Head => Some(WeightClass::Head),
            WeightKey::Qkv { .. }
            | WeightKey::Value { .. }
            | WeightKey::FilterFirst { .. }
            | WeightKey::FilterSecond { .. }
            | WeightKey::ChoiceQuery { .. }
            | WeightKey::ChoiceOutput { .. }
            | WeightKey::AttentionGate { .. }
            | WeightKey::LatentQueryDown { .. }
            | WeightKey::LatentQueryUp { .. }
            | WeightKey::LatentDown { .. }
            | WeightKey::LatentKeyUp { .. }
            | WeightKey::LatentValueUp { .. }
            | WeightKey::AttentionOutput { .. } => Some(WeightClass::Attention),
            WeightKey::ExpertGateUp { .. } | WeightKey::ExpertDown { .. } => Some(WeightClass::Experts),
            WeightKey::SharedGateUp { .. }
            | WeightKey::SharedDown { .. }
            | WeightKey::DenseGateUp { .. }
            | WeightKey::DenseDown { .. } => Some(WeightClass::Shared),
            _ => None,
        }
    }

    /// `(rows, cols)`.
    ///
    /// # Panics
    /// If the spec has no such layer, or the layer not what the key is about.
    pub fn shape(self, spec: &ModelSpec) -> (usize, usize) {
        let attention = |layer: usize| attention(spec, layer);
        let latent = |layer: usize| latent(spec, layer);
        let hidden_size = spec.hidden_size;
        let norm = |norm: NormSpec| (1 + usize::from(norm.bias), hidden_size);
        match self {
            WeightKey::Embedding | WeightKey::Head => (spec.vocab_size, hidden_size),
            WeightKey::HeadBias => (1, spec.vocab_size),
            WeightKey::FinalNorm => norm(spec.final_norm),
            WeightKey::AttentionNorm { layer }
            | WeightKey::AttentionPostNorm { layer }
            | WeightKey::FfnNorm { layer }
            | WeightKey::FfnPostNorm { layer }
            | WeightKey::ParallelNorm { layer }
            | WeightKey::ParallelPostNorm { layer }
            | WeightKey::ExpertPostNorm { layer } => norm(spec.layers[layer].norm),
            WeightKey::Qkv { layer } => (attention(layer).projected_rows(), hidden_size),
            WeightKey::QkvBias { layer } => (1, attention(layer).projected_rows()),
            WeightKey::Value { layer } => (attention(layer).num_kv_heads * attention(layer).value_dim, hidden_size),
            WeightKey::FilterFirst { layer } => (filter(spec, layer).middle, 2 * hidden_size),
            WeightKey::FilterFirstBias { layer } => (1, filter(spec, layer).middle),
            WeightKey::FilterSecond { layer } => (hidden_size, 2 * filter(spec, layer).middle),
            WeightKey::ChoiceRouter { layer } => (choice(spec, layer).num_experts, hidden_size),
            WeightKey::ChoiceQuery { layer, .. } => (attention(layer).choice_width(), hidden_size),
            WeightKey::ChoiceOutput { layer, .. } => (hidden_size, attention(layer).choice_width()),
            WeightKey::QueryNorm { layer } => (1, qk_norm_len(spec, layer, attention(layer).num_heads)),
            WeightKey::KeyNorm { layer } => (1, qk_norm_len(spec, layer, attention(layer).num_kv_heads)),
            WeightKey::Sinks { layer } => (1, attention(layer).num_heads),
            WeightKey::AttentionGate { layer } => (attention(layer).output_width(), hidden_size),
            WeightKey::LatentQueryDown { layer } => (latent_query_rank(spec, layer), hidden_size),
            WeightKey::LatentQueryNorm { layer } => (1, latent_query_rank(spec, layer)),
            WeightKey::LatentQueryUp { layer } => (latent(layer).query_width(), latent(layer).query_rank.unwrap_or(hidden_size)),
            WeightKey::LatentDown { layer } => (latent(layer).cache_dim(), hidden_size),
            WeightKey::LatentNorm { layer } => (1, latent(layer).latent_dim),
            WeightKey::LatentKeyUp { layer } => (latent(layer).num_heads * latent(layer).latent_dim, latent(layer).nope_dim),
            WeightKey::LatentValueUp { layer } => (latent(layer).output_width(), latent(layer).latent_dim),
            WeightKey::AttentionOutput { layer } => (hidden_size, spec.layers[layer].mixer.output_width()),
            WeightKey::AttentionOutputBias { .. }
            | WeightKey::SharedGate { .. }
            | WeightKey::ExpertDownBias { .. }
            | WeightKey::RouterNorm { .. }
            | WeightKey::FilterSecondBias { .. }
            | WeightKey::FilterNorm { .. }
            | WeightKey::FfnBias { .. } => (1, hidden_size),
            WeightKey::OutputScale { .. } => (1, 1),
            WeightKey::RouterHidden { layer } => (moe(spec, layer).router.hidden.unwrap_or(0), hidden_size),
            WeightKey::Router { layer } => {
                let router = &moe(spec, layer).router;
                (router.rows(), router.hidden.unwrap_or(hidden_size))
            }
            WeightKey::RouterBias { layer } | WeightKey::SelectionBias { layer } | WeightKey::ExpertScale { layer } => {
                (1, moe(spec, layer).router.num_experts)
            }
            WeightKey::ExpertGateUp { layer, .. } | WeightKey::SharedGateUp { layer } | WeightKey::DenseGateUp { layer } => {
                (2 * self.inner_size(spec, layer), hidden_size)
            }
            WeightKey::ExpertGateUpBias { layer, .. } => (1, 2 * self.inner_size(spec, layer)),
            WeightKey::ExpertDown { layer, .. } | WeightKey::SharedDown { layer } | WeightKey::DenseDown { layer } => {
                (hidden_size, self.inner_size(spec, layer))
            }
        }
    }

    /// Inner width of the MLP that the key is about.
    pub(super) fn inner_size(self, spec: &ModelSpec, layer: usize) -> usize {
        let mlp = match (self, &spec.layers[layer].ffn) {
            (WeightKey::DenseGateUp { .. } | WeightKey::DenseDown { .. }, Ffn::Dense(dense)) => Some(*dense),
            (WeightKey::DenseGateUp { .. } | WeightKey::DenseDown { .. }, Ffn::Parallel(parallel)) => Some(parallel.dense),
            (WeightKey::SharedGateUp { .. } | WeightKey::SharedDown { .. }, Ffn::Moe(moe)) => moe.shared.map(|shared| shared.mlp),
            (_, ffn) => ffn.moe().map(|moe| moe.expert),
        };
        mlp.unwrap_or_else(|| panic!("layer {layer} has no {self:?}")).intermediate_size
    }
}

pub(super) fn moe(spec: &ModelSpec, layer: usize) -> &MoeSpec {
    spec.layers[layer].ffn.moe().unwrap_or_else(|| panic!("layer {layer} has no experts"))
}

pub(super) fn attention(spec: &ModelSpec, layer: usize) -> &AttentionSpec {
    spec.layers[layer].mixer.attention().unwrap_or_else(|| panic!("layer {layer} has no plain attention"))
}

pub(super) fn latent(spec: &ModelSpec, layer: usize) -> &LatentSpec {
    spec.layers[layer].mixer.latent().unwrap_or_else(|| panic!("layer {layer} has no latent attention"))
}

pub(super) fn choice(spec: &ModelSpec, layer: usize) -> &RouterSpec {
    attention(spec, layer).choice.as_ref().unwrap_or_else(|| panic!("layer {layer} has one projection for all tokens"))
}

fn filter(spec: &ModelSpec, layer: usize) -> &FilterSpec {
    attention(spec, layer).filter.as_ref().unwrap_or_else(|| panic!("layer {layer} has no filter"))
}

fn latent_query_rank(spec: &ModelSpec, layer: usize) -> usize {
    latent(spec, layer).query_rank.unwrap_or_else(|| panic!("layer {layer} makes its query in one projection"))
}

fn qk_norm_len(spec: &ModelSpec, layer: usize, num_heads: usize) -> usize {
    let attention = attention(spec, layer);
    match attention.qk_norm {
        Some(QkNorm { over: QkNormOver::AllHeads, .. }) => num_heads * attention.head_dim,
        _ => attention.head_dim,
    }
}

fn of_layer(layer: usize, spec: &LayerSpec) -> Vec<WeightKey> {
    let (pre, post) = (spec.residual != Residual::Post, spec.residual != Residual::Pre);
    let mut keys = Vec::new();
    let mut add = |wanted: bool, key: WeightKey| {
        if wanted {
            keys.push(key);
        }
    };
    add(pre, WeightKey::AttentionNorm { layer });
    match &spec.mixer {
        Mixer::Attention(attention) => of_attention(layer, attention, &mut add),
        Mixer::Latent(latent) => of_latent(layer, latent, &mut add),
        // Checkpoints of such models are not opened.
        Mixer::Mamba(_) => {}
    }
    add(spec.mixer.attention().is_none_or(|attention| attention.choice.is_none()), WeightKey::AttentionOutput { layer });
    add(spec.mixer.output_bias(), WeightKey::AttentionOutputBias { layer });
    add(post, WeightKey::AttentionPostNorm { layer });
    add(pre, WeightKey::FfnNorm { layer });
    match &spec.ffn {
        Ffn::Dense(_) => {
            add(true, WeightKey::DenseGateUp { layer });
            add(true, WeightKey::DenseDown { layer });
        }
        Ffn::Moe(moe) => of_moe(layer, moe, &mut add),
        Ffn::Parallel(parallel) => {
            of_moe(layer, &parallel.moe, &mut add);
            add(parallel.inputs != ParallelInputs::Same, WeightKey::ParallelNorm { layer });
            add(true, WeightKey::DenseGateUp { layer });
            add(true, WeightKey::DenseDown { layer });
            add(parallel.post_norms, WeightKey::ParallelPostNorm { layer });
            add(parallel.post_norms, WeightKey::ExpertPostNorm { layer });
        }
    }
    add(spec.ffn_bias, WeightKey::FfnBias { layer });
    add(post, WeightKey::FfnPostNorm { layer });
    add(spec.output_scale, WeightKey::OutputScale { layer });
    keys
}

fn of_attention(layer: usize, attention: &AttentionSpec, add: &mut impl FnMut(bool, WeightKey)) {
    let has_qk_norm = attention.qk_norm.is_some_and(|norm| norm.weight);
    let filtered = attention.filter.is_some();
    add(filtered, WeightKey::FilterFirst { layer });
    add(filtered, WeightKey::FilterFirstBias { layer });
    add(filtered, WeightKey::FilterSecond { layer });
    add(filtered, WeightKey::FilterSecondBias { layer });
    add(filtered, WeightKey::FilterNorm { layer });
    if let Some(choice) = &attention.choice {
        add(true, WeightKey::ChoiceRouter { layer });
        for expert in 0..choice.num_experts {
            add(true, WeightKey::ChoiceQuery { layer, expert });
            add(true, WeightKey::ChoiceOutput { layer, expert });
        }
    }
    add(true, WeightKey::Qkv { layer });
    add(filtered, WeightKey::Value { layer });
    add(attention.qkv_bias, WeightKey::QkvBias { layer });
    add(has_qk_norm, WeightKey::QueryNorm { layer });
    add(has_qk_norm, WeightKey::KeyNorm { layer });
    add(attention.sinks, WeightKey::Sinks { layer });
    add(attention.output_gate, WeightKey::AttentionGate { layer });
}

fn of_latent(layer: usize, latent: &LatentSpec, add: &mut impl FnMut(bool, WeightKey)) {
    add(latent.query_rank.is_some(), WeightKey::LatentQueryDown { layer });
    add(latent.query_rank.is_some(), WeightKey::LatentQueryNorm { layer });
    add(true, WeightKey::LatentQueryUp { layer });
    add(true, WeightKey::LatentDown { layer });
    add(true, WeightKey::LatentNorm { layer });
    add(true, WeightKey::LatentKeyUp { layer });
    add(true, WeightKey::LatentValueUp { layer });
}

fn of_moe(layer: usize, moe: &MoeSpec, add: &mut impl FnMut(bool, WeightKey)) {
    add(moe.router.input_norm.is_some(), WeightKey::RouterNorm { layer });
    add(moe.router.hidden.is_some(), WeightKey::RouterHidden { layer });
    add(true, WeightKey::Router { layer });
    add(moe.router.bias, WeightKey::RouterBias { layer });
    add(moe.router.selection_bias, WeightKey::SelectionBias { layer });
    add(moe.router.expert_scale, WeightKey::ExpertScale { layer });
    for expert in 0..moe.router.num_weighted() {
        add(true, WeightKey::ExpertGateUp { layer, expert });
        add(moe.expert.bias, WeightKey::ExpertGateUpBias { layer, expert });
        add(true, WeightKey::ExpertDown { layer, expert });
        add(moe.expert.bias, WeightKey::ExpertDownBias { layer, expert });
    }
    add(moe.shared.is_some(), WeightKey::SharedGateUp { layer });
    add(moe.shared.is_some(), WeightKey::SharedDown { layer });
    add(moe.shared.is_some_and(|shared| shared.gate), WeightKey::SharedGate { layer });
}
