//! Granite 3 MoE, without and with a shared expert. Defaults are those of `GraniteMoeConfig` and `GraniteMoeSharedConfig` in
//! transformers.

use super::common::{self, Defaults, FACTOR};
use super::{Arch, limits};
use crate::Result;
use crate::gating::{RouterMethod, RouterSpec};
use crate::spec::{AttentionSpec, BlockSpec, ConfigJson, ExpertStorage, ModelSpec, MoeSpec, SharedSpec, TensorNames};

pub(super) static GRANITEMOE: Arch = Arch {
    name: "granitemoe",
    model_types: &["granitemoe", "granitemoeshared"],
    covers: "Granite 3.0 and 3.1 1B-A400M and 3B-A800M, PowerMoE-3B",
    parse,
};

const DEFAULTS: Defaults = Defaults::LLAMA;

pub(super) const NAMES: TensorNames = TensorNames {
    router: "model.layers.{l}.block_sparse_moe.router.layer.weight",
    experts: ExpertStorage::Stacked {
        gate_up: "model.layers.{l}.block_sparse_moe.input_linear.weight",
        down: "model.layers.{l}.block_sparse_moe.output_linear.weight",
    },
    shared: ExpertStorage::Stacked {
        gate_up: "model.layers.{l}.shared_mlp.input_linear.weight",
        down: "model.layers.{l}.shared_mlp.output_linear.weight",
    },
    ..TensorNames::LLAMA
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    let attention = attention(config)?;
    let shared_size = if config.str("model_type")? == "granitemoeshared" {
        config.count_or("shared_intermediate_size", 1024, limits::INTERMEDIATE_SIZE)?
    } else {
        0
    };
    let moe = moe(config, shared_size)?;
    let model = common::model(config, GRANITEMOE.name, &DEFAULTS, |_| Ok((attention.clone(), BlockSpec::Experts(moe.clone()))))?;
    Ok(ModelSpec { names: NAMES, ..scaled(config, model)? })
}

/// With the scale of the config instead of that of the head's width.
pub(super) fn attention(config: &ConfigJson) -> Result<AttentionSpec> {
    let bias = config.bool_or("attention_bias", false)?;
    Ok(AttentionSpec {
        scale: config.f64_or("attention_multiplier", 1.0, FACTOR)? as f32,
        qkv_bias: bias,
        output_bias: bias,
        ..common::attention(config, &DEFAULTS)?
    })
}

/// Experts, and one that every token uses where `shared_size` is not zero.
pub(super) fn moe(config: &ConfigJson, shared_size: usize) -> Result<MoeSpec> {
    let router = common::router(config, "num_local_experts", ("num_experts_per_tok", Some(2)))?;
    Ok(MoeSpec {
        router: RouterSpec { method: RouterMethod::SoftmaxOfTopK, ..router },
        expert: common::silu_mlp(config, "intermediate_size")?,
        shared: (shared_size > 0).then(|| SharedSpec { mlp: common::silu(shared_size), gate: false }),
        output_bias: false,
    })
}

/// The model with the factors of its config.
pub(super) fn scaled(config: &ConfigJson, mut model: ModelSpec) -> Result<ModelSpec> {
    let residual_scale = config.f64_or("residual_multiplier", 1.0, FACTOR)? as f32;
    model.layers.iter_mut().for_each(|layer| layer.residual_scale = residual_scale);
    model.embedding_scale = config.f64_or("embedding_multiplier", 1.0, FACTOR)? as f32;
    model.logit_scale = config.f64_or("logits_scaling", 1.0, FACTOR)?.recip() as f32;
    Ok(model)
}
