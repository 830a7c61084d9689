//! Grok-1: xAI 2024, github.com/xai-org/grok-1, with the names that conversions to safetensors use. Defaults are the published values.

use super::common::{self, Defaults, FACTOR};
use super::{Arch, limits, mixtral};
use crate::Result;
use crate::gating::RouterSpec;
use crate::spec::{Activation, AttentionSpec, BlockSpec, ConfigJson, MlpSpec, ModelSpec, MoeSpec, Residual, TensorNames};

pub(super) static GROK1: Arch =
    Arch { name: "grok1", model_types: &["grok-1", "grok_1"], covers: "Grok-1, converted to safetensors", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 8192, rms_norm_eps: 1e-5, ..Defaults::LLAMA };

const NAMES: TensorNames = TensorNames {
    attention_norm: "model.layers.{l}.pre_attn_norm.weight",
    attention_post_norm: "model.layers.{l}.post_attn_norm.weight",
    ffn_norm: "model.layers.{l}.pre_moe_norm.weight",
    ffn_post_norm: "model.layers.{l}.post_moe_norm.weight",
    ..mixtral::NAMES
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    // Conversions say either, and mean the tanh approximation.
    config.choice("hidden_act", &["gelu", "gelu_new", "gelu_pytorch_tanh", "silu"])?;
    let attention = AttentionSpec {
        scale: config.f64_or("attn_output_multiplier", 0.08838834764831845, FACTOR)? as f32,
        softcap: Some(config.f64_or("attn_logit_softcapping", 30.0, FACTOR)? as f32),
        ..common::attention(config, &DEFAULTS)?
    };
    let moe = MoeSpec {
        router: RouterSpec {
            // Not in the published code, but in conversions of the weights.
            softcap: config.opt_f64("router_logit_softcapping", FACTOR)?.map(|cap| cap as f32),
            ..common::router(config, "num_local_experts", ("num_experts_per_tok", Some(2)))?
        },
        expert: MlpSpec {
            intermediate_size: config.usize("intermediate_size", limits::INTERMEDIATE_SIZE)?,
            activation: Activation::GeluTanh,
            bias: false,
        },
        shared: None,
        output_bias: false,
    };
    let mut model = common::model(config, GROK1.name, &DEFAULTS, |_| Ok((attention.clone(), BlockSpec::Experts(moe.clone()))))?;
    model.layers.iter_mut().for_each(|layer| layer.residual = Residual::Sandwich);
    model.embedding_scale = config.f64_or("embedding_multiplier_scale", 78.38367176906169, FACTOR)? as f32;
    model.logit_scale = config.f64_or("output_multiplier_scale", 0.5773502691896257, FACTOR)? as f32;
    Ok(ModelSpec { names: NAMES, ..model })
}
