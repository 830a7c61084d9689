//! K-EXAONE: LG AI Research 2026. Defaults are those of `ExaoneMoeConfig` in transformers.

use super::common::{self, Defaults};
use super::{Arch, limits};
use crate::Result;
use crate::spec::{AttentionSpec, ConfigJson, Mask, ModelSpec, MoeSpec, QkNormOver, TensorNames};

pub(super) static EXAONE_MOE: Arch =
    Arch { name: "exaone_moe", model_types: &["exaone_moe"], covers: "K-EXAONE-236B-A23B", parse };

const DEFAULTS: Defaults = Defaults { rms_norm_eps: 1e-5, ..Defaults::LLAMA };
const LAYER_TYPES: &[&str] = &["sliding_attention", "full_attention"];

const NAMES: TensorNames = TensorNames { selection_bias: "model.layers.{l}.mlp.e_score_correction_bias", ..TensorNames::LLAMA };

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    let router = common::router(config, "num_experts", ("num_experts_per_tok", Some(8)))?;
    let moe = MoeSpec {
        router: common::noaux_tc(config, router, true)?,
        expert: common::silu_mlp(config, "moe_intermediate_size")?,
        shared: common::shared(config, "num_shared_experts", 1, "moe_intermediate_size")?,
        output_bias: false,
    };
    let is_sparse = common::listed_sparse(config, 1)?;
    let attention = attention(config)?;
    let model = common::model(config, EXAONE_MOE.name, &DEFAULTS, |layer| {
        Ok((attention(layer), common::sparse_or_dense(config, is_sparse(layer), &moe)?))
    })?;
    Ok(ModelSpec { names: NAMES, ..model })
}

/// Layers with a window have positions; those without one have none.
fn attention(config: &ConfigJson) -> Result<impl Fn(usize) -> AttentionSpec> {
    let attention = AttentionSpec {
        qk_norm: Some(common::qk_norm(common::rms_norm(config, &DEFAULTS)?.eps, QkNormOver::Head)),
        ..common::attention(config, &DEFAULTS)?
    };
    let window = config.usize_or("sliding_window", 4096, limits::POSITIONS)?;
    let kinds = common::layer_kinds(config, "layer_types", LAYER_TYPES)?;
    // A pattern of letters comes with `layer_types`.
    let step = if kinds.is_some() { 1 } else { config.usize_or("sliding_window_pattern", 4, limits::LAYERS)? };
    Ok(move |layer: usize| {
        let is_sliding = match &kinds {
            Some(kinds) => kinds[layer] == LAYER_TYPES[0],
            None => !(layer + 1).is_multiple_of(step),
        };
        if is_sliding {
            AttentionSpec { mask: Mask::Window(window), ..attention.clone() }
        } else {
            AttentionSpec { rope: None, ..attention.clone() }
        }
    })
}
