//! dots.llm1: Huo et al. 2025, arXiv 2506.05767. Defaults are those of `Dots1Config` in transformers.

use super::common::{self, Defaults};
use super::{Arch, limits};
use crate::Result;
use crate::spec::{AttentionSpec, ConfigJson, Mask, ModelSpec, MoeSpec};

pub(super) static DOTS1: Arch =
    Arch { name: "dots1", model_types: &["dots1"], covers: "dots.llm1 base and instruct, 142B-A14B", parse };

const DEFAULTS: Defaults = Defaults::LLAMA;

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    config.choice("scoring_func", &["noaux_tc", "sigmoid"])?;
    config.choice("topk_method", &["noaux_tc"])?;
    let attention = common::head_normed_attention(config, &DEFAULTS)?;
    let window = config.opt_usize("sliding_window", limits::POSITIONS)?;
    let first_windowed = config.count_or("max_window_layers", 62, limits::LAYERS)?;
    let router = common::router(config, "n_routed_experts", ("num_experts_per_tok", None))?;
    let moe = MoeSpec {
        router: common::noaux_tc(config, router, false)?,
        expert: common::silu_mlp(config, "moe_intermediate_size")?,
        shared: common::shared(config, "n_shared_experts", 0, "moe_intermediate_size")?,
        output_bias: false,
    };
    let is_sparse = common::after_dense(config, 0)?;
    common::model(config, DOTS1.name, &DEFAULTS, |layer| {
        let mask = window.filter(|_| layer >= first_windowed).map_or(Mask::Causal, Mask::Window);
        let ffn = common::sparse_or_dense(config, is_sparse(layer), &moe)?;
        Ok((AttentionSpec { mask, ..attention.clone() }, ffn))
    })
}
