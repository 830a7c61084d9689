//! Arcee Trinity: Arcee AI 2025. Defaults are those of `AfmoeConfig` in transformers.

use super::common::{self, Defaults, FACTOR};
use super::{Arch, limits};
use crate::Result;
use crate::gating::{Normalize, RouterSpec};
use crate::spec::{AttentionSpec, BlockSpec, ConfigJson, Mask, ModelSpec, MoeSpec, QkNormOver, Residual, TensorNames};

pub(super) static AFMOE: Arch =
    Arch { name: "afmoe", model_types: &["afmoe"], covers: "Arcee Trinity Nano, Mini and Large", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 16_384, rms_norm_eps: 1e-5, ..Defaults::LLAMA };
const LAYER_TYPES: &[&str] = &["sliding_attention", "full_attention"];

const NAMES: TensorNames = TensorNames {
    ffn_norm: "model.layers.{l}.pre_mlp_layernorm.weight",
    ffn_post_norm: "model.layers.{l}.post_mlp_layernorm.weight",
    router: "model.layers.{l}.mlp.router.gate.weight",
    selection_bias: "model.layers.{l}.mlp.expert_bias",
    ..TensorNames::LLAMA
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    let moe = MoeSpec {
        router: router(config)?,
        expert: common::silu_mlp(config, "moe_intermediate_size")?,
        shared: common::shared(config, "num_shared_experts", 2, "moe_intermediate_size")?,
        output_bias: false,
    };
    let first_sparse = config.count_or("num_dense_layers", 1, limits::LAYERS)?;
    let attention = attention(config)?;
    let mut model = common::model(config, AFMOE.name, &DEFAULTS, |layer| {
        let ffn = if layer >= first_sparse {
            BlockSpec::Experts(moe.clone())
        } else {
            BlockSpec::Mlp(common::silu_mlp(config, "intermediate_size")?)
        };
        Ok((attention(layer)?, ffn))
    })?;
    model.layers.iter_mut().for_each(|layer| layer.residual = Residual::Sandwich);
    if config.bool_or("mup_enabled", false)? {
        model.embedding_scale = (model.hidden_size as f32).sqrt();
    }
    Ok(ModelSpec { names: NAMES, ..model })
}

/// The attention of layer `l`: with positions and a window, or without positions and over everything.
fn attention(config: &ConfigJson) -> Result<impl Fn(usize) -> Result<AttentionSpec>> {
    let attention = AttentionSpec {
        qk_norm: Some(common::qk_norm(common::rms_norm(config, &DEFAULTS)?.eps, QkNormOver::Head)),
        output_gate: true,
        ..common::attention(config, &DEFAULTS)?
    };
    let window = config.usize_or("sliding_window", 1024, limits::POSITIONS)?;
    let step = config.usize_or("global_attn_every_n_layers", 4, limits::LAYERS)?;
    let kinds = common::layer_kinds(config, "layer_types", LAYER_TYPES)?;
    Ok(move |layer: usize| {
        let is_sliding = match &kinds {
            Some(kinds) => kinds[layer] == LAYER_TYPES[0],
            None => !(layer + 1).is_multiple_of(step),
        };
        Ok(if is_sliding {
            AttentionSpec { mask: Mask::Window(window), ..attention.clone() }
        } else {
            AttentionSpec { rope: None, ..attention.clone() }
        })
    })
}

fn router(config: &ConfigJson) -> Result<RouterSpec> {
    config.choice("score_func", &["sigmoid"])?;
    let router = common::router(config, "num_experts", ("num_experts_per_tok", Some(6)))?;
    let normalize = if config.bool_or("route_norm", true)? { Normalize::Sum { floor: 1e-20 } } else { Normalize::No };
    let scale = config.f64_or("route_scale", 1.0, FACTOR)? as f32;
    Ok(RouterSpec { normalize, scale, ..common::noaux_tc(config, router, true)? })
}
