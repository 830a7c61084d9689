//! Ling and Ring: Ling Team 2025, arXiv 2503.05139 and 2510.22115. Defaults are those of the `BailingMoeV2Config` that comes with
//! the models; the first generation says what it does otherwise.

use super::common::{self, Defaults};
use super::{Arch, limits};
use crate::Result;
use crate::gating::RouterSpec;
use crate::spec::{AttentionSpec, BlockSpec, ConfigJson, ModelSpec, MoeSpec, QkNormOver, QkvStorage, TensorNames};

pub(super) static BAILING_MOE: Arch = Arch {
    name: "bailing_moe",
    model_types: &["bailing_moe", "bailing_moe_v2"],
    covers: "Ling and Ring 2.0 (mini, flash, 1T), Ling-lite and Ling-plus 1.5",
    parse,
};

const DEFAULTS: Defaults = Defaults { max_positions: 16_384, ..Defaults::LLAMA };

const NAMES: TensorNames = TensorNames {
    embedding: "model.word_embeddings.weight",
    qkv: QkvStorage::Fused("model.layers.{l}.attention.query_key_value.weight"),
    query_norm: "model.layers.{l}.attention.query_layernorm.weight",
    key_norm: "model.layers.{l}.attention.key_layernorm.weight",
    attention_output: "model.layers.{l}.attention.dense.weight",
    selection_bias: "model.layers.{l}.mlp.gate.expert_bias",
    ..TensorNames::LLAMA
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    config.unsupported("norm_head", &false.into())?;
    config.unsupported("use_rmsnorm", &true.into())?;
    let eps = common::rms_norm(config, &DEFAULTS)?.eps;
    let bias = config.bool_or("use_bias", false)?;
    let attention = AttentionSpec {
        qkv_bias: config.bool_or("use_qkv_bias", bias)?,
        output_bias: bias,
        qk_norm: config.bool_or("use_qk_norm", false)?.then(|| common::qk_norm(eps, QkNormOver::Head)),
        ..common::attention(config, &DEFAULTS)?
    };
    let moe = MoeSpec {
        router: router(config)?,
        expert: common::silu_mlp(config, "moe_intermediate_size")?,
        shared: common::shared(config, "num_shared_experts", 0, "moe_intermediate_size")?,
        output_bias: false,
    };
    let first_sparse = config.count_or("first_k_dense_replace", 0, limits::LAYERS)?;
    let model = common::model(config, BAILING_MOE.name, &DEFAULTS, |layer| {
        let ffn = if layer >= first_sparse {
            BlockSpec::Experts(moe.clone())
        } else {
            BlockSpec::Mlp(common::silu_mlp(config, "intermediate_size")?)
        };
        Ok((attention.clone(), ffn))
    })?;
    Ok(ModelSpec { names: NAMES, ..model })
}

fn router(config: &ConfigJson) -> Result<RouterSpec> {
    let router = common::router(config, "num_experts", ("num_experts_per_tok", None))?;
    if config.choice("score_function", &["softmax", "sigmoid"])? == "softmax" {
        return common::normalize(config, router, true);
    }
    let selection_bias = config.bool_or("moe_router_enable_expert_bias", true)?;
    Ok(RouterSpec { selection_bias, ..common::noaux_tc(config, router, true)? })
}
