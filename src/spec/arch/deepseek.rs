//! DeepSeekMoE: Dai et al. 2024, arXiv 2401.06066. Defaults are those of the `DeepseekConfig` that comes with the model.

use super::Arch;
use super::common::{self, Defaults};
use crate::Result;
use crate::spec::{AttentionSpec, ConfigJson, ModelSpec, MoeSpec};

pub(super) static DEEPSEEK: Arch =
    Arch { name: "deepseek", model_types: &["deepseek"], covers: "DeepSeekMoE 16B base and chat", parse };

const DEFAULTS: Defaults = Defaults::LLAMA;

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    config.choice("scoring_func", &["softmax"])?;
    let bias = config.bool_or("attention_bias", false)?;
    let attention = AttentionSpec { qkv_bias: bias, output_bias: bias, ..common::attention(config, &DEFAULTS)? };
    let router = common::router(config, "n_routed_experts", ("num_experts_per_tok", None))?;
    let moe = MoeSpec {
        router: common::normalize(config, router, false)?,
        expert: common::silu_mlp(config, "moe_intermediate_size")?,
        shared: common::shared(config, "n_shared_experts", 0, "moe_intermediate_size")?,
        output_bias: false,
    };
    let is_sparse = common::after_dense(config, 0)?;
    common::model(config, DEEPSEEK.name, &DEFAULTS, |layer| {
        let ffn = common::sparse_or_dense(config, is_sparse(layer), &moe)?;
        Ok((attention.clone(), ffn))
    })
}
