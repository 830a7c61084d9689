//! Granite 4.0 H: Granite 3 MoE with state spaces in most layers. Defaults are those of `GraniteMoeHybridConfig` in transformers.

use super::common::{self, Defaults, EPS};
use super::{Arch, granitemoe, limits};
use crate::Result;
use crate::spec::{
    BlockSpec, ConfigJson, ConvolutionNames, ConvolutionSpec, Decay, GateActivation, GatedNormSpec, ModelSpec, RecurrentNames,
    RecurrentSpec, Rule, TensorNames,
};

pub(super) static GRANITEMOEHYBRID: Arch = Arch {
    name: "granitemoehybrid",
    model_types: &["granitemoehybrid"],
    covers: "Granite 4.0 H Tiny 7B-A1B and H Small 32B-A9B",
    parse,
};

/// The first two are what older versions of transformers write.
const LAYER_TYPES: &[&str] = &["mamba", "attention", "linear_attention", "full_attention"];

const NAMES: TensorNames = TensorNames {
    convolution: ConvolutionNames {
        input: "model.layers.{l}.mamba.in_proj.weight",
        weight: "model.layers.{l}.mamba.conv1d.weight",
        output: "model.layers.{l}.mamba.out_proj.weight",
    },
    recurrent: RecurrentNames {
        step_bias: "model.layers.{l}.mamba.dt_bias",
        decay: "model.layers.{l}.mamba.A_log",
        skip: "model.layers.{l}.mamba.D",
        norm: "model.layers.{l}.mamba.norm.weight",
        ..RecurrentNames::NONE
    },
    ..granitemoe::NAMES
};

const DEFAULTS: Defaults = Defaults::LLAMA;

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    config.choice("normalization_function", &["rmsnorm"])?;
    let kinds = common::layer_kinds(config, "layer_types", LAYER_TYPES)?;
    let mut attention = granitemoe::attention(config)?;
    if config.choice("position_embedding_type", &["nope", "rope"])? == "nope" {
        attention.rope = None;
    }
    let recurrent = recurrent(config)?;
    let moe = granitemoe::moe(config, config.count_or("shared_intermediate_size", 1024, limits::INTERMEDIATE_SIZE)?)?;
    let model = common::model(config, GRANITEMOEHYBRID.name, &DEFAULTS, |layer| {
        let is_attention = kinds.as_ref().is_some_and(|kinds| ["attention", "full_attention"].contains(&kinds[layer]));
        let mixer = if is_attention { BlockSpec::from(attention.clone()) } else { BlockSpec::from(recurrent) };
        Ok((mixer, BlockSpec::Experts(moe.clone())))
    })?;
    Ok(ModelSpec { names: NAMES, ..granitemoe::scaled(config, model)? })
}

fn recurrent(config: &ConfigJson) -> Result<RecurrentSpec> {
    config.unsupported("mamba_proj_bias", &false.into())?;
    let inner = common::hidden_size(config)? * config.usize_or("mamba_expand", 2, 16)?;
    let value_heads = config.usize_or("mamba_n_heads", 128, limits::HEADS)?;
    if !inner.is_multiple_of(value_heads) {
        let expected = format!("a divisor of mamba_expand times hidden_size ({inner})");
        return Err(config.invalid_value("mamba_n_heads", expected, value_heads.to_string()));
    }
    let value_dim = inner / value_heads;
    let key_dim = config.usize_or("mamba_d_state", 256, limits::STATE_DIM)?;
    let fits = |dim: usize| dim.is_multiple_of(4) && dim <= limits::STATE_DIM;
    if !fits(key_dim) {
        return Err(config.invalid("mamba_d_state", format!("a multiple of 4, at most {}", limits::STATE_DIM)));
    }
    if !fits(value_dim) {
        let expected =
            format!("a number of heads that are each a multiple of 4 wide, at most {}: all are {inner}", limits::STATE_DIM);
        return Err(config.invalid_value("mamba_n_heads", expected, value_heads.to_string()));
    }
    if !config.is("mamba_d_head", "auto") && config.usize_or("mamba_d_head", value_dim, limits::STATE_DIM)? != value_dim {
        return Err(config.invalid("mamba_d_head", format!("{value_dim}, as mamba_n_heads and mamba_expand say")));
    }
    let key_heads = config.usize_or("mamba_n_groups", 1, value_heads)?;
    if !value_heads.is_multiple_of(key_heads) {
        let expected = format!("a divisor of mamba_n_heads ({value_heads})");
        return Err(config.invalid_value("mamba_n_groups", expected, key_heads.to_string()));
    }
    let step_range = config.bounds_or("time_step_limit", [0.0, f64::INFINITY])?;
    let eps = config.f64_or("rms_norm_eps", DEFAULTS.rms_norm_eps, EPS)? as f32;
    Ok(RecurrentSpec {
        key_heads,
        value_heads,
        key_dim,
        value_dim,
        rule: Rule::Add,
        decay: Decay::Head { step_range: step_range.map(|bound| bound.min(f64::from(f32::MAX)) as f32) },
        conv: Some(ConvolutionSpec {
            len: config.usize_or("mamba_d_conv", 4, limits::CONVOLUTION)?,
            bias: config.bool_or("mamba_conv_bias", true)?,
        }),
        norm: Some(GatedNormSpec {
            eps,
            groups: key_heads,
            activation: GateActivation::Silu,
            gate_first: true,
            shared_weight: false,
        }),
    })
}
