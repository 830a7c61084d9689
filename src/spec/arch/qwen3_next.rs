//! Qwen3-Next and Qwen3.5 with experts: three layers of four have a gated delta rule in place of attention. Defaults are those of `Qwen3NextConfig` and
//! `Qwen3_5MoeTextConfig` in transformers; text only, of which the three positions of a token are the same, and the rotary embedding an ordinary one.

use super::common::{self, Defaults};
use super::{Arch, limits};
use crate::Result;
use crate::gating::{Normalize, RouterSpec};
use crate::spec::{
    AttentionSpec, BlockSpec, ConfigJson, ConvolutionNames, ConvolutionSpec, Decay, ExpertStorage, GateActivation, GatedNormSpec,
    ModelSpec, MoeSpec, QkvStorage, RecurrentNames, RecurrentSpec, RecurrentStorage, Rule, SharedSpec, TensorNames,
};

pub(super) static QWEN3_NEXT: Arch = Arch {
    name: "qwen3_next",
    model_types: &["qwen3_next"],
    covers: "Qwen3-Next-80B-A3B and Qwen3-Coder-Next",
    parse: parse_next,
};

pub(super) static QWEN3_5_MOE: Arch = Arch {
    name: "qwen3_5_moe",
    model_types: &["qwen3_5_moe", "qwen3_5_moe_text"],
    covers: "Qwen3.5-35B-A3B, 122B-A10B and 397B-A17B, text only",
    parse: parse_5,
};

const DEFAULTS: Defaults = Defaults { max_positions: 32_768, partial_rotary_factor: 0.25, ..Defaults::LLAMA };
const LAYER_TYPES: &[&str] = &["linear_attention", "full_attention"];

/// The names below `$model`, with the layers of its recurrences stored as `$storage` says.
macro_rules! names {
    ($model:literal, $input:literal, $storage:expr) => {
        TensorNames {
            embedding: concat!($model, ".embed_tokens.weight"),
            final_norm: concat!($model, ".norm.weight"),
            attention_norm: concat!($model, ".layers.{l}.input_layernorm.weight"),
            zero_centred_norms: true,
            qkv: QkvStorage::Gated {
                query: concat!($model, ".layers.{l}.self_attn.q_proj.weight"),
                key: concat!($model, ".layers.{l}.self_attn.k_proj.weight"),
                value: concat!($model, ".layers.{l}.self_attn.v_proj.weight"),
            },
            query_norm: concat!($model, ".layers.{l}.self_attn.q_norm.weight"),
            key_norm: concat!($model, ".layers.{l}.self_attn.k_norm.weight"),
            attention_output: concat!($model, ".layers.{l}.self_attn.o_proj.weight"),
            convolution: ConvolutionNames {
                input: concat!($model, ".layers.{l}.linear_attn.", $input, ".weight"),
                weight: concat!($model, ".layers.{l}.linear_attn.conv1d.weight"),
                output: concat!($model, ".layers.{l}.linear_attn.out_proj.weight"),
            },
            recurrent: RecurrentNames {
                storage: $storage,
                step_bias: concat!($model, ".layers.{l}.linear_attn.dt_bias"),
                decay: concat!($model, ".layers.{l}.linear_attn.A_log"),
                norm: concat!($model, ".layers.{l}.linear_attn.norm.weight"),
                ..RecurrentNames::NONE
            },
            ffn_norm: concat!($model, ".layers.{l}.post_attention_layernorm.weight"),
            router: concat!($model, ".layers.{l}.mlp.gate.weight"),
            experts: ExpertStorage::Each {
                gate: concat!($model, ".layers.{l}.mlp.experts.{e}.gate_proj.weight"),
                up: concat!($model, ".layers.{l}.mlp.experts.{e}.up_proj.weight"),
                down: concat!($model, ".layers.{l}.mlp.experts.{e}.down_proj.weight"),
            },
            stacked_experts: Some(ExpertStorage::Stacked {
                gate_up: concat!($model, ".layers.{l}.mlp.experts.gate_up_proj"),
                down: concat!($model, ".layers.{l}.mlp.experts.down_proj"),
            }),
            shared: ExpertStorage::Each {
                gate: concat!($model, ".layers.{l}.mlp.shared_expert.gate_proj.weight"),
                up: concat!($model, ".layers.{l}.mlp.shared_expert.up_proj.weight"),
                down: concat!($model, ".layers.{l}.mlp.shared_expert.down_proj.weight"),
            },
            shared_gate: concat!($model, ".layers.{l}.mlp.shared_expert_gate.weight"),
            dense: ExpertStorage::Each {
                gate: concat!($model, ".layers.{l}.mlp.gate_proj.weight"),
                up: concat!($model, ".layers.{l}.mlp.up_proj.weight"),
                down: concat!($model, ".layers.{l}.mlp.down_proj.weight"),
            },
            ..TensorNames::LLAMA
        }
    };
}

macro_rules! apart {
    ($model:literal) => {
        RecurrentStorage::Apart {
            gate: concat!($model, ".layers.{l}.linear_attn.in_proj_z.weight"),
            steps: concat!($model, ".layers.{l}.linear_attn.in_proj_a.weight"),
            betas: concat!($model, ".layers.{l}.linear_attn.in_proj_b.weight"),
        }
    };
}

const BY_KEY_HEAD: RecurrentStorage = RecurrentStorage::ByKeyHead { steps: "model.layers.{l}.linear_attn.in_proj_ba.weight" };
const NAMES: TensorNames = names!("model", "in_proj_qkvz", BY_KEY_HEAD);
const NAMES_OF_TEXT: TensorNames = names!("model", "in_proj_qkv", apart!("model"));
/// Inside of a multimodal model. The head stands outside of the language model.
const NAMES_OF_PART: TensorNames = names!("model.language_model", "in_proj_qkv", apart!("model.language_model"));

fn parse_next(config: &ConfigJson) -> Result<ModelSpec> {
    let router = common::router(config, "num_experts", ("num_experts_per_tok", Some(10)))?;
    let router = common::normalize(config, router, true)?;
    Ok(ModelSpec { names: NAMES, ..model(config, QWEN3_NEXT.name, router)? })
}

fn parse_5(config: &ConfigJson) -> Result<ModelSpec> {
    let tied_embeddings = config.bool_or("tie_word_embeddings", DEFAULTS.tied_embeddings)?;
    let text = config.section("text_config")?;
    let names = if text.is_some() { NAMES_OF_PART } else { NAMES_OF_TEXT };
    let config = text.as_ref().unwrap_or(config);
    config.unsupported("attn_output_gate", &true.into())?;
    let router = common::router(config, "num_experts", ("num_experts_per_tok", Some(8)))?;
    let router = RouterSpec { normalize: Normalize::Sum { floor: 1e-20 }, ..router };
    Ok(ModelSpec { names, tied_embeddings, ..model(config, QWEN3_5_MOE.name, router)? })
}

fn model(config: &ConfigJson, family: &'static str, router: RouterSpec) -> Result<ModelSpec> {
    config.unsupported("attention_bias", &false.into())?;
    let attention = AttentionSpec { output_gate: true, ..common::head_normed_attention(config, &DEFAULTS)? };
    let recurrent = recurrent(config)?;
    let moe = MoeSpec {
        router,
        expert: common::silu_mlp(config, "moe_intermediate_size")?,
        shared: Some(SharedSpec { mlp: common::silu_mlp(config, "shared_expert_intermediate_size")?, gate: true }),
        output_bias: false,
    };
    let kinds = common::layer_kinds(config, "layer_types", LAYER_TYPES)?;
    let interval = config.usize_or("full_attention_interval", 4, limits::LAYERS)?;
    let is_sparse = common::sparse_step(config)?;
    common::model(config, family, &DEFAULTS, |layer| {
        let is_attention = kinds.as_ref().map_or((layer + 1).is_multiple_of(interval), |kinds| kinds[layer] == LAYER_TYPES[1]);
        let mixer = if is_attention { BlockSpec::from(attention.clone()) } else { BlockSpec::from(recurrent) };
        Ok((mixer, common::sparse_or_dense(config, is_sparse(layer), &moe)?))
    })
}

fn recurrent(config: &ConfigJson) -> Result<RecurrentSpec> {
    let key_heads = config.usize_or("linear_num_key_heads", 16, limits::HEADS)?;
    let value_heads = config.usize_or("linear_num_value_heads", 32, limits::HEADS)?;
    if !value_heads.is_multiple_of(key_heads) {
        return Err(config.invalid("linear_num_value_heads", format!("a multiple of linear_num_key_heads ({key_heads})")));
    }
    let eps = common::rms_norm(config, &DEFAULTS)?.eps;
    Ok(RecurrentSpec {
        key_heads,
        value_heads,
        key_dim: common::state_dim(config, "linear_key_head_dim", 128)?,
        value_dim: common::state_dim(config, "linear_value_head_dim", 128)?,
        rule: Rule::Delta,
        decay: Decay::Head { step_range: [0.0, f32::MAX] },
        conv: Some(ConvolutionSpec { len: config.usize_or("linear_conv_kernel_dim", 4, limits::CONVOLUTION)?, bias: false }),
        norm: Some(GatedNormSpec {
            eps,
            groups: value_heads,
            activation: GateActivation::Silu,
            gate_first: false,
            shared_weight: true,
        }),
    })
}
