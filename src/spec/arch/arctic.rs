//! Arctic: Snowflake AI Research 2024, "Snowflake Arctic". Defaults are those of the `ArcticConfig` that comes with the models.

use super::common::{self, Defaults};
use super::{Arch, limits, mixtral};
use crate::Result;
use crate::gating::{Normalize, RouterSpec};
use crate::spec::{BlockSpec, ConfigJson, ExpertStorage, Mask, ModelSpec, MoeSpec, ParallelInputs, ParallelSpec, TensorNames};

pub(super) static ARCTIC: Arch =
    Arch { name: "arctic", model_types: &["arctic"], covers: "Snowflake Arctic base and instruct, 480B-A17B", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 4096, rms_norm_eps: 1e-5, rope_theta: 1e6, ..Defaults::LLAMA };

const NAMES: TensorNames = TensorNames {
    dense: ExpertStorage::Each {
        gate: "model.layers.{l}.block_sparse_moe.mlp.w1.weight",
        up: "model.layers.{l}.block_sparse_moe.mlp.w3.weight",
        down: "model.layers.{l}.block_sparse_moe.mlp.w2.weight",
    },
    parallel_norm: "model.layers.{l}.residual_layernorm.weight",
    parallel: ExpertStorage::Each {
        gate: "model.layers.{l}.residual_mlp.w1.weight",
        up: "model.layers.{l}.residual_mlp.w3.weight",
        down: "model.layers.{l}.residual_mlp.w2.weight",
    },
    ..mixtral::NAMES
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    config.unsupported("parallel_attn_mlp_res", &true.into())?;
    config.unsupported("use_residual", &true.into())?;
    config.unsupported("moe_token_dropping", &false.into())?;
    let mut attention = common::attention(config, &DEFAULTS)?;
    attention.mask = config.opt_usize("sliding_window", limits::POSITIONS)?.map_or(Mask::Causal, Mask::Window);
    let router = RouterSpec {
        normalize: Normalize::Sum { floor: 0.0 },
        ..common::router(config, "num_local_experts", ("num_experts_per_tok", Some(1)))?
    };
    let expert = common::silu_mlp(config, "intermediate_size")?;
    let moe = MoeSpec { router, expert, shared: None, output_bias: false };
    let step = config.usize_or("moe_layer_frequency", 2, limits::LAYERS)?;
    let dense = common::silu(common::hidden_size(config)?);
    let model = common::model(config, ARCTIC.name, &DEFAULTS, |layer| {
        let ffn = if (layer + 1).is_multiple_of(step) {
            BlockSpec::Parallel(ParallelSpec {
                dense,
                moe: moe.clone(),
                inputs: ParallelInputs::LayerInput,
                post_norms: false,
                deferred: false,
            })
        } else {
            BlockSpec::Mlp(expert)
        };
        Ok((attention.clone(), ffn))
    })?;
    Ok(ModelSpec { names: NAMES, ..model })
}
