//! gpt-oss: OpenAI 2025, arXiv 2508.10925. Defaults are those of `GptOssConfig` in transformers.

use super::common::{self, Defaults, FACTOR};
use super::{Arch, limits};
use crate::Result;
use crate::gating::{RouterMethod, RouterSpec};
use crate::spec::{
    Activation, AttentionSpec, BlockSpec, ConfigJson, ExpertStorage, Mask, MlpSpec, ModelSpec, MoeSpec, RopeScaling, RopeSpec,
    TensorNames,
};

pub(super) static GPT_OSS: Arch =
    Arch { name: "gpt_oss", model_types: &["gpt_oss"], covers: "gpt-oss-20b and 120b, in MXFP4 or bf16", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 131_072, rms_norm_eps: 1e-5, rope_theta: 150_000.0, ..Defaults::LLAMA };
const LAYER_TYPES: &[&str] = &["sliding_attention", "full_attention"];
const GATE_UP: &str = "model.layers.{l}.mlp.experts.gate_up_proj";
const DOWN: &str = "model.layers.{l}.mlp.experts.down_proj";
/// Values of one MXFP4 block.
const BLOCK: usize = 32;

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    let bias = config.bool_or("attention_bias", true)?;
    let window = config.usize_or("sliding_window", 128, limits::POSITIONS)?;
    let attention = AttentionSpec { qkv_bias: bias, output_bias: bias, sinks: true, ..common::attention(config, &DEFAULTS)? };
    let rope = attention.rope.clone().map(|rope| default_scaling(config, rope));
    let layer_types = common::layer_kinds(config, "layer_types", LAYER_TYPES)?;
    let moe = experts(config)?;
    let mut model = common::model(config, GPT_OSS.name, &DEFAULTS, |layer| {
        let layer_type = match &layer_types {
            Some(kinds) => kinds[layer],
            None => LAYER_TYPES[layer % 2],
        };
        let mask = if layer_type == LAYER_TYPES[0] { Mask::Window(window) } else { Mask::Causal };
        Ok((AttentionSpec { mask, rope: rope.clone(), ..attention.clone() }, BlockSpec::Experts(moe.clone())))
    })?;
    model.names = TensorNames {
        router: "model.layers.{l}.mlp.router.weight",
        experts: storage(config, model.hidden_size, moe.expert.intermediate_size)?,
        ..TensorNames::LLAMA
    };
    Ok(model)
}

fn experts(config: &ConfigJson) -> Result<MoeSpec> {
    // By this name the config means the clamped one.
    config.choice("hidden_act", &["silu"])?;
    let chosen = if config.has("num_experts_per_tok") { "num_experts_per_tok" } else { "experts_per_token" };
    let router = common::router(config, "num_local_experts", (chosen, Some(4)))?;
    let limit = config.f64_or("swiglu_limit", 7.0, FACTOR)? as f32;
    Ok(MoeSpec {
        router: RouterSpec { bias: true, method: RouterMethod::SoftmaxOfTopK, ..router },
        expert: MlpSpec {
            intermediate_size: config.usize("intermediate_size", limits::INTERMEDIATE_SIZE)?,
            activation: Activation::ClampedSwiglu { alpha: 1.702, limit },
            bias: true,
        },
        shared: None,
        output_bias: false,
    })
}

/// A config that says nothing about scaling means the published one.
fn default_scaling(config: &ConfigJson, rope: RopeSpec) -> RopeSpec {
    const FACTOR: f64 = 32.0;
    if config.has("rope_scaling") || config.has("rope_parameters") {
        return rope;
    }
    let scaling = RopeScaling::Yarn {
        factor: FACTOR,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_positions: 4096,
        truncate: false,
        attention_factor: 0.1 * FACTOR.ln() + 1.0,
    };
    RopeSpec { scaling, ..rope }
}

fn storage(config: &ConfigJson, hidden_size: usize, inner_size: usize) -> Result<ExpertStorage> {
    let Some(quantization) = config.section("quantization_config")? else {
        return Ok(ExpertStorage::Transposed { gate_up: GATE_UP, down: DOWN, interleaved: true });
    };
    quantization.choice("quant_method", &["mxfp4"])?;
    for (key, size) in [("hidden_size", hidden_size), ("intermediate_size", inner_size)] {
        if !size.is_multiple_of(BLOCK) {
            return Err(config.invalid(key, format!("a multiple of {BLOCK}, the length of an MXFP4 block")));
        }
    }
    Ok(ExpertStorage::Mxfp4 { gate_up: GATE_UP, down: DOWN })
}
