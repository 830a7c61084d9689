//! Qwen3-MoE: Yang et al. 2025, arXiv 2505.09388. Defaults are those of `Qwen3MoeConfig` in transformers.

use super::common::{self, Defaults};
use super::{Arch, limits};
use crate::Result;
use crate::spec::{AttentionSpec, BlockSpec, ConfigJson, Mask, ModelSpec, MoeSpec};

pub(super) static QWEN3_MOE: Arch = Arch {
    name: "qwen3_moe",
    model_types: &["qwen3_moe"],
    covers: "Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder-30B-A3B and 480B-A35B",
    parse,
};

const DEFAULTS: Defaults = Defaults { max_positions: 32_768, ..Defaults::LLAMA };

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    let window =
        if config.bool_or("use_sliding_window", false)? { config.opt_usize("sliding_window", limits::POSITIONS)? } else { None };
    let mask = window.map_or(Mask::Causal, Mask::Window);
    let attention = AttentionSpec { mask, ..common::head_normed_attention(config, &DEFAULTS)? };
    let router = common::router(config, "num_experts", ("num_experts_per_tok", Some(8)))?;
    let moe = MoeSpec {
        router: common::normalize(config, router, false)?,
        expert: common::silu_mlp(config, "moe_intermediate_size")?,
        shared: None,
        output_bias: false,
    };
    let is_sparse = common::sparse_step(config)?;
    common::model(config, QWEN3_MOE.name, &DEFAULTS, |layer| {
        let ffn = if is_sparse(layer) {
            BlockSpec::Experts(moe.clone())
        } else {
            BlockSpec::Mlp(common::silu_mlp(config, "intermediate_size")?)
        };
        Ok((attention.clone(), ffn))
    })
}
