//! LFM2-MoE: Liquid AI 2025. Defaults are those of `Lfm2MoeConfig` in transformers.

use super::common::{self, Defaults, EPS};
use super::{Arch, limits};
use crate::Result;
use crate::gating::{Normalize, RouterMethod, RouterSpec};
use crate::spec::{
    AttentionSpec, BlockSpec, ConfigJson, ConvolutionNames, ExpertStorage, LayerSpec, ModelSpec, MoeSpec, NormSpec, QkNormOver,
    QkvStorage, ShortConvSpec, TensorNames,
};

pub(super) static LFM2_MOE: Arch = Arch { name: "lfm2_moe", model_types: &["lfm2_moe"], covers: "LFM2-8B-A1B", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 128_000, rope_theta: 1_000_000.0, tied_embeddings: true, ..Defaults::LLAMA };
const LAYER_TYPES: &[&str] = &["conv", "full_attention"];
/// The weights of the chosen experts are divided by their sum and this, which shows only where all of them are nearly nothing.
const FLOOR: f32 = 1e-6;

const NAMES: TensorNames = TensorNames {
    final_norm: "model.embedding_norm.weight",
    attention_norm: "model.layers.{l}.operator_norm.weight",
    qkv: QkvStorage::Separate {
        query: "model.layers.{l}.self_attn.q_proj.weight",
        key: "model.layers.{l}.self_attn.k_proj.weight",
        value: "model.layers.{l}.self_attn.v_proj.weight",
    },
    query_norm: "model.layers.{l}.self_attn.q_layernorm.weight",
    key_norm: "model.layers.{l}.self_attn.k_layernorm.weight",
    attention_output: "model.layers.{l}.self_attn.out_proj.weight",
    convolution: ConvolutionNames {
        input: "model.layers.{l}.conv.in_proj.weight",
        weight: "model.layers.{l}.conv.conv.weight",
        output: "model.layers.{l}.conv.out_proj.weight",
    },
    ffn_norm: "model.layers.{l}.ffn_norm.weight",
    router: "model.layers.{l}.feed_forward.gate.weight",
    selection_bias: "model.layers.{l}.feed_forward.expert_bias",
    experts: ExpertStorage::Each {
        gate: "model.layers.{l}.feed_forward.experts.{e}.w1.weight",
        up: "model.layers.{l}.feed_forward.experts.{e}.w3.weight",
        down: "model.layers.{l}.feed_forward.experts.{e}.w2.weight",
    },
    dense: ExpertStorage::Each {
        gate: "model.layers.{l}.feed_forward.w1.weight",
        up: "model.layers.{l}.feed_forward.w3.weight",
        down: "model.layers.{l}.feed_forward.w2.weight",
    },
    ..TensorNames::LLAMA
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    let norm = NormSpec::rms(config.f64_or("norm_eps", 1e-5, EPS)? as f32);
    let moe = MoeSpec {
        router: router(config)?,
        expert: common::silu_mlp(config, "moe_intermediate_size")?,
        shared: None,
        output_bias: false,
    };
    let kinds = common::layer_kinds(config, "layer_types", LAYER_TYPES)?
        .ok_or_else(|| config.invalid("layer_types", "one entry per layer, `conv` or `full_attention`"))?;
    let conv = ShortConvSpec {
        len: config.usize_or("conv_L_cache", 3, limits::CONVOLUTION)?,
        bias: config.bool_or("conv_bias", false)?,
    };
    let attention =
        AttentionSpec { qk_norm: Some(common::qk_norm(norm.eps, QkNormOver::Head)), ..common::attention(config, &DEFAULTS)? };
    let first_sparse = config.count_or("num_dense_layers", 2, limits::LAYERS)?;
    let layer = |index: usize| -> Result<LayerSpec> {
        let mixer = if kinds[index] == LAYER_TYPES[0] { BlockSpec::from(conv) } else { BlockSpec::from(attention.clone()) };
        Ok(common::pre_norm(norm, mixer, common::sparse_or_dense(config, index >= first_sparse, &moe)?))
    };
    let num_layers = config.usize("num_hidden_layers", limits::LAYERS)?;
    let model = common::model_of(config, LFM2_MOE.name, &DEFAULTS, (0..num_layers).map(layer).collect::<Result<_>>()?)?;
    // Liquid AI's own key comes first.
    let tied_embeddings = config.bool_or("tie_embedding", model.tied_embeddings)?;
    Ok(ModelSpec { final_norm: norm, tied_embeddings, names: NAMES, ..model })
}

fn router(config: &ConfigJson) -> Result<RouterSpec> {
    config.choice("scoring_func", &["sigmoid"])?;
    let router = common::router(config, "num_experts", ("num_experts_per_tok", Some(4)))?;
    let selection_bias = config.bool_or("use_expert_bias", true)?;
    let router = common::normalize(config, RouterSpec { method: RouterMethod::Sigmoid, selection_bias, ..router }, true)?;
    let normalize = if router.normalize == Normalize::No { Normalize::No } else { Normalize::Sum { floor: FLOOR } };
    Ok(RouterSpec { normalize, ..router })
}
