//! GLM-4.5: GLM-4.5 Team 2025, arXiv 2508.06471. Defaults are those of `Glm4MoeConfig` in transformers.

use super::Arch;
use super::common::{self, Defaults};
use crate::Result;
use crate::spec::{AttentionSpec, ConfigJson, ModelSpec, MoeSpec, QkNormOver};

pub(super) static GLM4_MOE: Arch =
    Arch { name: "glm4_moe", model_types: &["glm4_moe"], covers: "GLM-4.5, GLM-4.5-Air, GLM-4.6, GLM-4.7", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 131_072, rms_norm_eps: 1e-5, partial_rotary_factor: 0.5, ..Defaults::LLAMA };

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    config.choice("scoring_func", &["sigmoid"])?;
    config.choice("topk_method", &["noaux_tc"])?;
    let eps = common::rms_norm(config, &DEFAULTS)?.eps;
    let attention = AttentionSpec {
        qkv_bias: config.bool_or("attention_bias", false)?,
        qk_norm: config.bool_or("use_qk_norm", false)?.then(|| common::qk_norm(eps, QkNormOver::Head)),
        ..common::attention(config, &DEFAULTS)?
    };
    let router = common::router(config, "n_routed_experts", ("num_experts_per_tok", Some(8)))?;
    let moe = MoeSpec {
        router: common::noaux_tc(config, router, true)?,
        expert: common::silu_mlp(config, "moe_intermediate_size")?,
        shared: common::shared(config, "n_shared_experts", 1, "moe_intermediate_size")?,
        output_bias: false,
    };
    let is_sparse = common::after_dense(config, 1)?;
    common::model(config, GLM4_MOE.name, &DEFAULTS, |layer| {
        let ffn = common::sparse_or_dense(config, is_sparse(layer), &moe)?;
        Ok((attention.clone(), ffn))
    })
}
