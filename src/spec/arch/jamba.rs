//! Jamba: Lieber et al. 2024, arXiv 2403.19887. Defaults are those of `JambaConfig` in transformers.

use super::common::{self, Defaults};
use super::{Arch, limits};
use crate::Result;
use crate::gating::RouterSpec;
use crate::spec::{
    BlockSpec, ConfigJson, ConvolutionNames, ConvolutionSpec, Decay, ExpertStorage, ModelSpec, MoeSpec, RecurrentNames,
    RecurrentSpec, RecurrentStorage, Rule, TensorNames,
};
use serde_json::Value;

pub(super) static JAMBA: Arch =
    Arch { name: "jamba", model_types: &["jamba"], covers: "Jamba v0.1, 1.5 Mini and 1.5 Large", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 262_144, ..Defaults::LLAMA };

const NAMES: TensorNames = TensorNames {
    final_norm: "model.final_layernorm.weight",
    convolution: ConvolutionNames {
        input: "model.layers.{l}.mamba.in_proj.weight",
        weight: "model.layers.{l}.mamba.conv1d.weight",
        output: "model.layers.{l}.mamba.out_proj.weight",
    },
    recurrent: RecurrentNames {
        storage: RecurrentStorage::Selective { selection: "model.layers.{l}.mamba.x_proj.weight" },
        step_up: "model.layers.{l}.mamba.dt_proj.weight",
        step_norm: "model.layers.{l}.mamba.dt_layernorm.weight",
        step_bias: "model.layers.{l}.mamba.dt_proj.bias",
        decay: "model.layers.{l}.mamba.A_log",
        skip: "model.layers.{l}.mamba.D",
        key_norm: "model.layers.{l}.mamba.b_layernorm.weight",
        query_norm: "model.layers.{l}.mamba.c_layernorm.weight",
        ..RecurrentNames::NONE
    },
    ffn_norm: "model.layers.{l}.pre_ff_layernorm.weight",
    router: "model.layers.{l}.feed_forward.router.weight",
    experts: ExpertStorage::Each {
        gate: "model.layers.{l}.feed_forward.experts.{e}.gate_proj.weight",
        up: "model.layers.{l}.feed_forward.experts.{e}.up_proj.weight",
        down: "model.layers.{l}.feed_forward.experts.{e}.down_proj.weight",
    },
    dense: ExpertStorage::Each {
        gate: "model.layers.{l}.feed_forward.gate_proj.weight",
        up: "model.layers.{l}.feed_forward.up_proj.weight",
        down: "model.layers.{l}.feed_forward.down_proj.weight",
    },
    ..TensorNames::LLAMA
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    for key in ["sliding_window", "rope_scaling"] {
        config.unsupported(key, &Value::Null)?;
    }
    let is_attention = every(config, "attn_layer_period", "attn_layer_offset", (8, 4))?;
    let is_sparse = every(config, "expert_layer_period", "expert_layer_offset", (2, 1))?;
    let attention = common::heads(config)?;
    let recurrent = recurrent(config)?;
    let mlp = common::silu_mlp(config, "intermediate_size")?;
    let router: RouterSpec = common::router(config, "num_experts", ("num_experts_per_tok", Some(2)))?;
    let moe = MoeSpec { router, expert: mlp, shared: None, output_bias: false };
    let model = common::model(config, JAMBA.name, &DEFAULTS, |layer| {
        let mixer = if is_attention(layer) { BlockSpec::from(attention.clone()) } else { BlockSpec::from(recurrent) };
        Ok((mixer, if is_sparse(layer) { BlockSpec::Experts(moe.clone()) } else { BlockSpec::Mlp(mlp) }))
    })?;
    Ok(ModelSpec { names: NAMES, ..model })
}

/// One layer of each period, the one at the offset.
fn every(config: &ConfigJson, period: &str, offset: &str, defaults: (usize, usize)) -> Result<impl Fn(usize) -> bool + use<>> {
    let step = config.usize_or(period, defaults.0, limits::LAYERS)?;
    let first = config.count_or(offset, defaults.1, step - 1)?;
    Ok(move |layer: usize| layer % step == first)
}

fn recurrent(config: &ConfigJson) -> Result<RecurrentSpec> {
    config.unsupported("mamba_proj_bias", &false.into())?;
    let hidden_size = common::hidden_size(config)?;
    let inner = hidden_size * config.usize_or("mamba_expand", 2, 16)?;
    if !inner.is_multiple_of(4) {
        return Err(config.invalid("mamba_expand", format!("a number that makes hidden_size ({hidden_size}) a multiple of 4")));
    }
    let rank = match config.is("mamba_dt_rank", "auto") {
        true => hidden_size.div_ceil(16),
        false => config.usize_or("mamba_dt_rank", hidden_size.div_ceil(16), limits::HIDDEN_SIZE)?,
    };
    Ok(RecurrentSpec {
        key_heads: 1,
        value_heads: 1,
        key_dim: common::state_dim(config, "mamba_d_state", 16)?,
        value_dim: inner,
        rule: Rule::Add,
        decay: Decay::Pair { rank, eps: common::rms_norm(config, &DEFAULTS)?.eps },
        conv: Some(ConvolutionSpec {
            len: config.usize_or("mamba_d_conv", 4, limits::CONVOLUTION)?,
            bias: config.bool_or("mamba_conv_bias", true)?,
        }),
        norm: None,
    })
}
