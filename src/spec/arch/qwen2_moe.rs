//! Qwen2-MoE: Yang et al. 2024, arXiv 2407.10671. Defaults are those of `Qwen2MoeConfig` in transformers.

use super::Arch;
use super::common::{self, Defaults};
use crate::Result;
use crate::spec::{AttentionSpec, BlockSpec, ConfigJson, ExpertStorage, Mask, ModelSpec, MoeSpec, SharedSpec, TensorNames};

pub(super) static QWEN2_MOE: Arch =
    Arch { name: "qwen2_moe", model_types: &["qwen2_moe"], covers: "Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 32_768, ..Defaults::LLAMA };

const NAMES: TensorNames = TensorNames {
    shared: ExpertStorage::Each {
        gate: "model.layers.{l}.mlp.shared_expert.gate_proj.weight",
        up: "model.layers.{l}.mlp.shared_expert.up_proj.weight",
        down: "model.layers.{l}.mlp.shared_expert.down_proj.weight",
    },
    ..TensorNames::LLAMA
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    let window = common::late_window(config)?;
    let attention = AttentionSpec { qkv_bias: config.bool_or("qkv_bias", true)?, ..common::attention(config, &DEFAULTS)? };
    let router = common::router(config, "num_experts", ("num_experts_per_tok", Some(4)))?;
    let moe = MoeSpec {
        router: common::normalize(config, router, false)?,
        expert: common::silu_mlp(config, "moe_intermediate_size")?,
        shared: Some(SharedSpec { mlp: common::silu_mlp(config, "shared_expert_intermediate_size")?, gate: true }),
        output_bias: false,
    };
    let is_sparse = common::sparse_step(config)?;
    let model = common::model(config, QWEN2_MOE.name, &DEFAULTS, |layer| {
        let mask = match window {
            Some((window, first)) if layer >= first => Mask::Window(window),
            _ => Mask::Causal,
        };
        let ffn = if is_sparse(layer) {
            BlockSpec::Experts(moe.clone())
        } else {
            BlockSpec::Mlp(common::silu_mlp(config, "intermediate_size")?)
        };
        Ok((AttentionSpec { mask, ..attention.clone() }, ffn))
    })?;
    Ok(ModelSpec { names: NAMES, ..model })
}
