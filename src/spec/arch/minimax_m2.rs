//! MiniMax-M2: MiniMax 2025. Defaults are those of `MiniMaxM2Config` in transformers.

use super::common::{self, Defaults};
use super::{Arch, mixtral};
use crate::Result;
use crate::gating::{Normalize, RouterMethod, RouterSpec};
use crate::spec::{AttentionSpec, BlockSpec, ConfigJson, ModelSpec, MoeSpec, QkNormOver, TensorNames};

pub(super) static MINIMAX_M2: Arch =
    Arch { name: "minimax_m2", model_types: &["minimax_m2"], covers: "MiniMax-M2 and M2.1", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 196_608, rope_theta: 5e6, ..Defaults::LLAMA };

const NAMES: TensorNames =
    TensorNames { selection_bias: "model.layers.{l}.block_sparse_moe.e_score_correction_bias", ..mixtral::NAMES };

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    config.choice("scoring_func", &["sigmoid"])?;
    config.choice("qk_norm_type", &["per_layer"])?;
    config.unsupported("shared_intermediate_size", &0.into())?;
    if config.opt_counts("attn_type_list", 1)?.is_some_and(|types| types.contains(&0)) {
        return Err(config.invalid("attn_type_list", "a list of ones: softmax attention in every layer"));
    }
    let moe = MoeSpec {
        router: RouterSpec {
            method: RouterMethod::Sigmoid,
            selection_bias: config.bool_or("use_routing_bias", true)?,
            normalize: Normalize::Sum { floor: 0.0 },
            ..common::router(config, "num_local_experts", ("num_experts_per_tok", Some(8)))?
        },
        expert: common::silu_mlp(config, "intermediate_size")?,
        shared: None,
        output_bias: false,
    };
    let attention = attention(config)?;
    let model = common::model(config, MINIMAX_M2.name, &DEFAULTS, |_| Ok((attention.clone(), BlockSpec::Experts(moe.clone()))))?;
    Ok(ModelSpec { names: NAMES, ..model })
}

fn attention(config: &ConfigJson) -> Result<AttentionSpec> {
    let eps = common::rms_norm(config, &DEFAULTS)?.eps;
    let mut attention = AttentionSpec {
        qk_norm: config.bool_or("use_qk_norm", true)?.then(|| common::qk_norm(eps, QkNormOver::AllHeads)),
        ..common::attention(config, &DEFAULTS)?
    };
    if let (Some(dims), Some(rope)) = (config.opt_usize("rotary_dim", attention.head_dim)?, attention.rope.as_mut()) {
        if !dims.is_multiple_of(2) {
            return Err(config.invalid("rotary_dim", "an even integer"));
        }
        rope.dims = dims;
    }
    Ok(attention)
}
