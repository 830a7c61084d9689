//! Hy3: Tencent 2026. Defaults are those of `HYV3Config` in transformers.

use super::Arch;
use super::common::{self, Defaults, FACTOR};
use crate::Result;
use crate::gating::{Normalize, RouterMethod, RouterSpec};
use crate::spec::{ConfigJson, ExpertStorage, ModelSpec, MoeSpec, TensorNames};

pub(super) static HY_V3: Arch = Arch { name: "hy_v3", model_types: &["hy_v3"], covers: "Hy3, 295B-A21B", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 131_072, rms_norm_eps: 1e-5, rope_theta: 11_158_840.0, ..Defaults::LLAMA };

const NAMES: TensorNames = TensorNames {
    router: "model.layers.{l}.mlp.router.gate.weight",
    selection_bias: "model.layers.{l}.mlp.expert_bias",
    shared: ExpertStorage::Each {
        gate: "model.layers.{l}.mlp.shared_mlp.gate_proj.weight",
        up: "model.layers.{l}.mlp.shared_mlp.up_proj.weight",
        down: "model.layers.{l}.mlp.shared_mlp.down_proj.weight",
    },
    ..TensorNames::LLAMA
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    config.unsupported("mlp_bias", &false.into())?;
    let attention = common::head_normed_attention(config, &DEFAULTS)?;
    let moe = MoeSpec {
        router: RouterSpec {
            method: RouterMethod::Sigmoid,
            selection_bias: true,
            normalize: Normalize::Sum { floor: 1e-20 },
            scale: config.f64_or("router_scaling_factor", 2.826, FACTOR)? as f32,
            ..common::router(config, "num_experts", ("num_experts_per_tok", Some(8)))?
        },
        expert: common::silu_mlp(config, "moe_intermediate_size")?,
        shared: common::shared(config, "num_shared_experts", 1, "moe_intermediate_size")?,
        output_bias: false,
    };
    let is_sparse = common::listed_sparse(config, 1)?;
    let model = common::model(config, HY_V3.name, &DEFAULTS, |layer| {
        Ok((attention.clone(), common::sparse_or_dense(config, is_sparse(layer), &moe)?))
    })?;
    Ok(ModelSpec { names: NAMES, ..model })
}
