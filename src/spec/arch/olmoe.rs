//! OLMoE: Muennighoff et al. 2024, arXiv 2409.02060. Defaults are those of `OlmoeConfig` in transformers.

use super::Arch;
use super::common::{self, Defaults, FACTOR};
use crate::Result;
use crate::spec::{AttentionSpec, BlockSpec, ConfigJson, ModelSpec, MoeSpec, QkNormOver};

pub(super) static OLMOE: Arch = Arch { name: "olmoe", model_types: &["olmoe"], covers: "OLMoE-1B-7B 0924 and 0125", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 4096, rms_norm_eps: 1e-5, ..Defaults::LLAMA };

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    let (attention, moe) = block(config, &DEFAULTS, 8)?;
    let clip = config.opt_f64("clip_qkv", FACTOR)?.map(|limit| limit as f32);
    let attention = AttentionSpec { clip, clip_after_norm: true, ..attention };
    common::model(config, OLMOE.name, &DEFAULTS, |_| Ok((attention.clone(), BlockSpec::Experts(moe.clone()))))
}

/// Attention and experts of one layer, with the default of `num_experts_per_tok`.
pub(super) fn block(config: &ConfigJson, defaults: &Defaults, chosen: usize) -> Result<(AttentionSpec, MoeSpec)> {
    let bias = config.bool_or("attention_bias", false)?;
    let attention = AttentionSpec {
        qkv_bias: bias,
        output_bias: bias,
        qk_norm: Some(common::qk_norm(common::rms_norm(config, defaults)?.eps, QkNormOver::AllHeads)),
        ..common::attention(config, defaults)?
    };
    let router = common::router(config, "num_experts", ("num_experts_per_tok", Some(chosen)))?;
    let moe = MoeSpec {
        router: common::normalize(config, router, false)?,
        expert: common::silu_mlp(config, "intermediate_size")?,
        shared: None,
        output_bias: false,
    };
    Ok((attention, moe))
}
