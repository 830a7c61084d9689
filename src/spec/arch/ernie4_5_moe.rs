//! ERNIE 4.5 MoE: Baidu-ERNIE-Team 2025. Defaults are those of `Ernie4_5_MoeConfig` in transformers.

use super::common::{self, Defaults, EPS};
use super::{Arch, limits};
use crate::Result;
use crate::gating::{Normalize, RouterSpec};
use crate::spec::{BlockSpec, ConfigJson, ModelSpec, MoeSpec, RopePairing, TensorNames};

pub(super) static ERNIE4_5_MOE: Arch =
    Arch { name: "ernie4_5_moe", model_types: &["ernie4_5_moe"], covers: "ERNIE-4.5-21B-A3B, ERNIE-4.5-300B-A47B", parse };

const DEFAULTS: Defaults =
    Defaults { max_positions: 131_072, rms_norm_eps: 1e-5, tied_embeddings: true, rope_theta: 500_000.0, ..Defaults::LLAMA };

const NAMES: TensorNames =
    TensorNames { selection_bias: "model.layers.{l}.mlp.moe_statics.e_score_correction_bias", ..TensorNames::LLAMA };

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    config.unsupported("use_bias", &false.into())?;
    config.choice("moe_gate", &["topk", "topk_fused"])?;
    let mut attention = common::attention(config, &DEFAULTS)?;
    if let Some(rope) = &mut attention.rope {
        rope.pairing = RopePairing::Interleaved;
    }
    let floor = config.f64_or("moe_norm_min", 1e-12, EPS)? as f32;
    let moe = MoeSpec {
        router: RouterSpec {
            selection_bias: config.bool_or("moe_use_aux_free", true)?,
            normalize: Normalize::Sum { floor },
            ..common::router(config, "moe_num_experts", ("moe_k", Some(6)))?
        },
        expert: common::silu_mlp(config, "moe_intermediate_size")?,
        shared: common::shared(config, "moe_num_shared_experts", 2, "moe_intermediate_size")?,
        output_bias: false,
    };
    let is_sparse = sparse_layers(config)?;
    let model = common::model(config, ERNIE4_5_MOE.name, &DEFAULTS, |layer| {
        let ffn = if is_sparse(layer) {
            BlockSpec::Experts(moe.clone())
        } else {
            BlockSpec::Mlp(common::silu_mlp(config, "intermediate_size")?)
        };
        Ok((attention.clone(), ffn))
    })?;
    Ok(ModelSpec { names: NAMES, ..model })
}

/// Whether layer `l` has experts.
fn sparse_layers(config: &ConfigJson) -> Result<impl Fn(usize) -> bool> {
    let step = config.usize_or("moe_layer_interval", 1, limits::LAYERS)?;
    let start = config.count_or("moe_layer_start_index", 1, limits::LAYERS)?;
    // -1 stands for the last layer.
    let end = config.f64_or("moe_layer_end_index", -1.0, -1.0..=limits::LAYERS as f64)?;
    let end = if end < 0.0 { limits::LAYERS } else { end as usize };
    Ok(move |layer: usize| (layer + 1).is_multiple_of(step) && (start..=end).contains(&layer))
}
