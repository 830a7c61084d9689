//! DeepSeek-V3: DeepSeek-AI 2024, arXiv 2412.19437, and Kimi K2: Kimi Team 2025, arXiv 2507.20534. Defaults are those of the
//! `DeepseekV3Config` that comes with the models.

use super::Arch;
use super::common::{self, Defaults};
use super::latent::latent_attention;
use crate::Result;
use crate::spec::{ConfigJson, ModelSpec, MoeSpec};

pub(super) static DEEPSEEK_V3: Arch = Arch {
    name: "deepseek_v3",
    model_types: &["deepseek_v3", "kimi_k2"],
    covers: "DeepSeek-V3, V3.1, R1, Kimi K2, Moonlight",
    parse,
};

const DEFAULTS: Defaults = Defaults { max_positions: 4096, ..Defaults::LLAMA };

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    parse_as(config, DEEPSEEK_V3.name, &DEFAULTS, 0)
}

/// A model of latent attention with the router of DeepSeek-V3, `first_dense` of its layers without one.
pub(super) fn parse_as(config: &ConfigJson, family: &'static str, defaults: &Defaults, first_dense: usize) -> Result<ModelSpec> {
    config.choice("scoring_func", &["sigmoid"])?;
    config.choice("topk_method", &["noaux_tc"])?;
    let router = common::router(config, "n_routed_experts", ("num_experts_per_tok", None))?;
    let moe = MoeSpec {
        router: common::noaux_tc(config, router, true)?,
        expert: common::silu_mlp(config, "moe_intermediate_size")?,
        shared: common::shared(config, "n_shared_experts", 0, "moe_intermediate_size")?,
        output_bias: false,
    };
    let attention = latent_attention(config, defaults)?;
    let is_sparse = common::listed_sparse(config, first_dense)?;
    common::model(config, family, defaults, |layer| {
        Ok((attention.clone(), common::sparse_or_dense(config, is_sparse(layer), &moe)?))
    })
}
