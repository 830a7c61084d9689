//! Mellum 2: JetBrains 2026. Defaults are those of `MellumConfig` in transformers.

use super::common::{self, Defaults};
use super::{Arch, limits};
use crate::Result;
use crate::spec::{AttentionSpec, ConfigJson, Mask, ModelSpec, MoeSpec, QkNormOver, RopeSpec};

pub(super) static MELLUM: Arch = Arch { name: "mellum", model_types: &["mellum"], covers: "Mellum2-12B-A2.5B", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 131_072, ..Defaults::LLAMA };
const LAYER_TYPES: &[&str] = &["sliding_attention", "full_attention"];
/// Bases of the rotary embedding of each.
const THETAS: [f64; 2] = [10_000.0, 500_000.0];

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    let experts = if config.has("num_experts") { "num_experts" } else { "num_local_experts" };
    let router = common::router(config, experts, ("num_experts_per_tok", Some(8)))?;
    let moe = MoeSpec {
        router: common::normalize(config, router, true)?,
        expert: common::silu_mlp(config, "moe_intermediate_size")?,
        shared: None,
        output_bias: false,
    };
    let is_sparse = common::listed_sparse(config, 0)?;
    let [sliding, full] = attentions(config)?;
    let kinds = common::layer_kinds(config, "layer_types", LAYER_TYPES)?;
    common::model(config, MELLUM.name, &DEFAULTS, |layer| {
        let is_sliding = kinds.as_ref().is_some_and(|kinds| kinds[layer] == LAYER_TYPES[0]);
        let attention = if is_sliding { &sliding } else { &full };
        Ok((attention.clone(), common::sparse_or_dense(config, is_sparse(layer), &moe)?))
    })
}

/// Of layers with a window, and of the others.
fn attentions(config: &ConfigJson) -> Result<[AttentionSpec; 2]> {
    let bias = config.bool_or("attention_bias", false)?;
    let heads = AttentionSpec {
        qkv_bias: bias,
        output_bias: bias,
        qk_norm: Some(common::qk_norm(common::rms_norm(config, &DEFAULTS)?.eps, QkNormOver::Head)),
        ..common::heads(config)?
    };
    let window = config.usize_or("sliding_window", 1024, limits::POSITIONS)?;
    let sliding = AttentionSpec { rope: Some(rope(config, 0, heads.head_dim)?), mask: Mask::Window(window), ..heads.clone() };
    let full = AttentionSpec { rope: Some(rope(config, 1, heads.head_dim)?), ..heads };
    Ok([sliding, full])
}

/// Each type of layer has values of its own.
fn rope(config: &ConfigJson, kind: usize, head_dim: usize) -> Result<RopeSpec> {
    let max_positions = config.usize_or("max_position_embeddings", DEFAULTS.max_positions, limits::POSITIONS)?;
    let defaults = Defaults { max_positions, rope_theta: THETAS[kind], ..DEFAULTS };
    let Some(parameters) = config.section("rope_parameters")? else { return common::rope(config, head_dim, &defaults) };
    let section = parameters.section(LAYER_TYPES[kind])?;
    common::rope(&section.ok_or_else(|| parameters.invalid(LAYER_TYPES[kind], "an object"))?, head_dim, &defaults)
}
