//! Nemotron-3 and Nemotron-H with experts: NVIDIA 2025, arXiv 2512.20848. Defaults are those of `NemotronHConfig` in transformers. A layer is a
//! mixer or a feed-forward part, not both.

use super::common::{self, Defaults, EPS};
use super::{Arch, limits};
use crate::Result;
use crate::gating::RouterSpec;
use crate::spec::{
    Activation, AttentionSpec, BlockSpec, ConfigJson, ConvolutionNames, ConvolutionSpec, Decay, ExpertStorage, GateActivation,
    GatedNormSpec, LayerSpec, MlpSpec, ModelSpec, MoeSpec, NormSpec, QkvStorage, RecurrentNames, RecurrentSpec, Residual, Rule,
    SharedSpec, TensorNames,
};
use serde_json::Value;

pub(super) static NEMOTRON_H: Arch =
    Arch { name: "nemotron_h", model_types: &["nemotron_h"], covers: "Nemotron-3-Nano-30B-A3B", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 4096, ..Defaults::LLAMA };

const NAMES: TensorNames = TensorNames {
    embedding: "backbone.embeddings.weight",
    final_norm: "backbone.norm_f.weight",
    attention_norm: "backbone.layers.{l}.norm.weight",
    qkv: QkvStorage::Separate {
        query: "backbone.layers.{l}.mixer.q_proj.weight",
        key: "backbone.layers.{l}.mixer.k_proj.weight",
        value: "backbone.layers.{l}.mixer.v_proj.weight",
    },
    attention_output: "backbone.layers.{l}.mixer.o_proj.weight",
    convolution: ConvolutionNames {
        input: "backbone.layers.{l}.mixer.in_proj.weight",
        weight: "backbone.layers.{l}.mixer.conv1d.weight",
        output: "backbone.layers.{l}.mixer.out_proj.weight",
    },
    recurrent: RecurrentNames {
        step_bias: "backbone.layers.{l}.mixer.dt_bias",
        decay: "backbone.layers.{l}.mixer.A_log",
        skip: "backbone.layers.{l}.mixer.D",
        norm: "backbone.layers.{l}.mixer.norm.weight",
        ..RecurrentNames::NONE
    },
    ffn_norm: "backbone.layers.{l}.norm.weight",
    router: "backbone.layers.{l}.mixer.gate.weight",
    selection_bias: "backbone.layers.{l}.mixer.gate.e_score_correction_bias",
    experts: ExpertStorage::EachUngated {
        up: "backbone.layers.{l}.mixer.experts.{e}.up_proj.weight",
        down: "backbone.layers.{l}.mixer.experts.{e}.down_proj.weight",
    },
    shared: ExpertStorage::EachUngated {
        up: "backbone.layers.{l}.mixer.shared_experts.up_proj.weight",
        down: "backbone.layers.{l}.mixer.shared_experts.down_proj.weight",
    },
    dense: ExpertStorage::EachUngated {
        up: "backbone.layers.{l}.mixer.up_proj.weight",
        down: "backbone.layers.{l}.mixer.down_proj.weight",
    },
    ..TensorNames::LLAMA
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    for key in ["mlp_bias", "use_bias", "mamba_proj_bias"] {
        config.unsupported(key, &false.into())?;
    }
    for key in ["rope_scaling", "sliding_window", "moe_latent_size"] {
        config.unsupported(key, &Value::Null)?;
    }
    config.choice("mlp_hidden_act", &["relu2"])?;
    config.choice("mamba_hidden_act", &["silu"])?;
    let norm = NormSpec::rms(config.f64_or("layer_norm_epsilon", 1e-5, EPS)? as f32);
    let num_layers = config.usize("num_hidden_layers", limits::LAYERS)?;
    let pattern = config.str("hybrid_override_pattern")?;
    if pattern.len() != num_layers {
        return Err(config.invalid("hybrid_override_pattern", format!("a letter for each of {num_layers} layers")));
    }
    let (bias, mixer) = (config.bool_or("attention_bias", false)?, recurrent(config, norm.eps)?);
    let attention = AttentionSpec { qkv_bias: bias, output_bias: bias, ..common::heads(config)? };
    let moe = moe(config)?;
    let layer = |letter: char| -> Result<LayerSpec> {
        let block = match letter {
            'M' => BlockSpec::from(mixer),
            '*' => BlockSpec::from(attention.clone()),
            'E' => BlockSpec::Experts(moe.clone()),
            '-' => BlockSpec::Mlp(mlp(config, "intermediate_size")?),
            _ => return Err(config.invalid("hybrid_override_pattern", "letters of `M`, `*`, `E` and `-`")),
        };
        Ok(LayerSpec { norm, residual: Residual::Pre, residual_scale: 1.0, blocks: vec![block], output_scale: false })
    };
    let model = common::model_of(config, NEMOTRON_H.name, &DEFAULTS, pattern.chars().map(layer).collect::<Result<_>>()?)?;
    Ok(ModelSpec { final_norm: norm, names: NAMES, ..model })
}

/// `down(relu(up x)^2)`; `key` holds its width.
fn mlp(config: &ConfigJson, key: &str) -> Result<MlpSpec> {
    let intermediate_size = config.usize(key, limits::INTERMEDIATE_SIZE)?;
    Ok(MlpSpec { intermediate_size, activation: Activation::SquaredRelu, bias: false })
}

fn moe(config: &ConfigJson) -> Result<MoeSpec> {
    let router: RouterSpec = common::router(config, "n_routed_experts", ("num_experts_per_tok", Some(2)))?;
    let num_shared = config.count_or("n_shared_experts", 1, limits::SHARED_EXPERTS)?;
    let shared = match num_shared {
        0 => None,
        _ => Some(SharedSpec { mlp: mlp(config, "moe_shared_expert_intermediate_size")?, gate: false }),
    };
    Ok(MoeSpec {
        router: common::noaux_tc(config, router, true)?,
        expert: mlp(config, "moe_intermediate_size")?,
        shared,
        output_bias: false,
    })
}

fn recurrent(config: &ConfigJson, eps: f32) -> Result<RecurrentSpec> {
    let value_heads = config.usize_or("mamba_num_heads", 128, limits::HEADS)?;
    let key_heads = config.usize_or("n_groups", 8, limits::HEADS)?;
    if !value_heads.is_multiple_of(key_heads) {
        return Err(config.invalid("n_groups", format!("a divisor of mamba_num_heads ({value_heads})")));
    }
    let step_range = config.bounds_or("time_step_limit", [0.0, f64::INFINITY])?;
    Ok(RecurrentSpec {
        key_heads,
        value_heads,
        key_dim: common::state_dim(config, "ssm_state_size", 128)?,
        value_dim: common::state_dim(config, "mamba_head_dim", 64)?,
        rule: Rule::Add,
        decay: Decay::Head { step_range: step_range.map(|bound| bound.min(f64::from(f32::MAX)) as f32) },
        conv: Some(ConvolutionSpec {
            len: config.usize_or("conv_kernel", 4, limits::CONVOLUTION)?,
            bias: config.bool_or("use_conv_bias", true)?,
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
