//! DeepSeek-V2: DeepSeek-AI 2024, arXiv 2405.04434. Defaults are those of the `DeepseekV2Config` that comes with the models.

use super::Arch;
use super::common::{self, Defaults};
use super::latent::latent_attention;
use crate::Result;
use crate::gating::{GroupScore, Normalize, RouterSpec};
use crate::spec::{ConfigJson, ModelSpec, MoeSpec};

pub(super) static DEEPSEEK_V2: Arch = Arch {
    name: "deepseek_v2",
    model_types: &["deepseek_v2"],
    covers: "DeepSeek-V2, V2.5, V2-Lite, Coder-V2 and Coder-V2-Lite, base and chat",
    parse,
};

const DEFAULTS: Defaults = Defaults::LLAMA;

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    config.choice("scoring_func", &["softmax"])?;
    let moe = MoeSpec {
        router: router(config)?,
        expert: common::silu_mlp(config, "moe_intermediate_size")?,
        shared: common::shared(config, "n_shared_experts", 0, "moe_intermediate_size")?,
        output_bias: false,
    };
    let attention = latent_attention(config, &DEFAULTS)?;
    let is_sparse = common::after_dense(config, 0)?;
    common::model(config, DEEPSEEK_V2.name, &DEFAULTS, |layer| {
        Ok((attention.clone(), common::sparse_or_dense(config, is_sparse(layer), &moe)?))
    })
}

fn router(config: &ConfigJson) -> Result<RouterSpec> {
    let router = common::router(config, "n_routed_experts", ("num_experts_per_tok", None))?;
    let groups = match config.choice("topk_method", &["greedy", "group_limited_greedy"])? {
        "greedy" => None,
        _ => common::groups(config, &router, GroupScore::Max)?,
    };
    let router = common::normalize(config, router, false)?;
    // Source: `MoEGate` that comes with the models: the factor stands in for the sum.
    let scale = if router.normalize == Normalize::No { router.scale } else { 1.0 };
    Ok(RouterSpec { groups, scale, ..router })
}
