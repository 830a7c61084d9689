//! MiniMax-01: MiniMax 2025, arXiv 2501.08313. Defaults are those of `MiniMaxConfig` in transformers. Most layers have lightning attention, whose decays
//! follow from the numbers of head and layer: those that some checkpoints carry are rounded, and not read.

use super::common::{self, Defaults, FACTOR};
use super::{Arch, limits, mixtral};
use crate::Result;
use crate::gating::{Normalize, RouterSpec};
use crate::spec::{
    AttentionSpec, BlockSpec, ConfigJson, ConvolutionNames, Decay, GateActivation, GatedNormSpec, LayerSpec, ModelSpec, MoeSpec,
    RecurrentNames, RecurrentSpec, RecurrentStorage, Residual, Rule, TensorNames,
};
use serde_json::Value;

pub(super) static MINIMAX: Arch = Arch {
    name: "minimax",
    model_types: &["minimax"],
    covers: "MiniMax-Text-01, 456B-A46B, in the layout of transformers (MiniMax-Text-01-hf)",
    parse,
};

const DEFAULTS: Defaults = Defaults { max_positions: 32_768, rms_norm_eps: 1e-5, rope_theta: 1e6, ..Defaults::LLAMA };
const LAYER_TYPES: &[&str] = &["linear_attention", "full_attention"];
/// Of the norm behind lightning attention, whatever `rms_norm_eps` says.
const EPS: f32 = 1e-6;

const NAMES: TensorNames = TensorNames {
    convolution: ConvolutionNames {
        input: "model.layers.{l}.self_attn.qkv_proj.weight",
        output: "model.layers.{l}.self_attn.out_proj.weight",
        ..ConvolutionNames::NONE
    },
    recurrent: RecurrentNames {
        storage: RecurrentStorage::ByHead,
        gate: "model.layers.{l}.self_attn.output_gate.weight",
        norm: "model.layers.{l}.self_attn.norm.weight",
        ..RecurrentNames::NONE
    },
    ..mixtral::NAMES
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    config.unsupported("sliding_window", &Value::Null)?;
    let num_layers = config.usize("num_hidden_layers", limits::LAYERS)?;
    let kinds = common::layer_kinds(config, "layer_types", LAYER_TYPES)?;
    let (norm, attention) = (common::rms_norm(config, &DEFAULTS)?, attention(config)?);
    let router = common::router(config, "num_local_experts", ("num_experts_per_tok", Some(2)))?;
    let router = RouterSpec { normalize: Normalize::Sum { floor: 0.0 }, ..router };
    let moe = MoeSpec { router, expert: common::silu_mlp(config, "intermediate_size")?, shared: None, output_bias: false };
    let factors = |kind: &str| -> Result<[f32; 2]> {
        let factor = |name: &str| config.f64_or(&format!("{kind}_{name}_factor"), 1.0, FACTOR);
        Ok([factor("alpha")? as f32, factor("beta")? as f32])
    };
    let layer = |index: usize| -> Result<LayerSpec> {
        // Where the config does not say, every second layer.
        let is_recurrent = kinds.as_ref().map_or(index % 2 == 1, |kinds| kinds[index] == LAYER_TYPES[0]);
        let (mixer, kind) = if is_recurrent {
            (recurrent(config, &attention, [index, num_layers])?.into(), "linear_attn")
        } else {
            (BlockSpec::from(attention.clone()), "full_attn")
        };
        let residual = Residual::AfterNorm { mixer: factors(kind)?, ffn: factors("mlp")? };
        Ok(LayerSpec { residual, ..common::pre_norm(norm, mixer, BlockSpec::Experts(moe.clone())) })
    };
    let layers = (0..num_layers).map(layer).collect::<Result<_>>()?;
    Ok(ModelSpec { names: NAMES, ..common::model_of(config, MINIMAX.name, &DEFAULTS, layers)? })
}

/// Of the layers without a state. `rotary_dim` is a key of the original config, which transformers leaves out.
fn attention(config: &ConfigJson) -> Result<AttentionSpec> {
    let mut attention = common::attention(config, &DEFAULTS)?;
    if let (Some(dims), Some(rope)) = (config.opt_usize("rotary_dim", attention.head_dim)?, attention.rope.as_mut()) {
        if !dims.is_multiple_of(2) {
            return Err(config.invalid("rotary_dim", "an even integer"));
        }
        rope.dims = dims;
    }
    Ok(attention)
}

fn recurrent(config: &ConfigJson, attention: &AttentionSpec, [layer, num_layers]: [usize; 2]) -> Result<RecurrentSpec> {
    let (heads, head_dim) = (attention.num_heads, attention.head_dim);
    if head_dim > limits::STATE_DIM {
        return Err(config.invalid_value("head_dim", format!("at most {}", limits::STATE_DIM), head_dim.to_string()));
    }
    // Later layers forget less; the last one next to nothing.
    let factor = 1.0 - layer as f64 / ((num_layers - 1) as f64 + 1e-5) + 1e-5;
    Ok(RecurrentSpec {
        key_heads: heads,
        value_heads: heads,
        key_dim: head_dim,
        value_dim: head_dim,
        rule: Rule::Add,
        decay: Decay::Constant { factor: factor as f32 },
        conv: None,
        norm: Some(GatedNormSpec {
            eps: EPS,
            groups: 1,
            activation: GateActivation::Sigmoid,
            gate_first: false,
            shared_weight: false,
        }),
    })
}
