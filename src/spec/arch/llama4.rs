//! Llama 4: Meta 2025, "The Llama 4 herd". Defaults are those of `Llama4TextConfig` in transformers.

use super::common::{self, Defaults, FACTOR};
use super::{Arch, limits};
use crate::Result;
use crate::gating::{RouterMethod, RouterSpec, WeightOn};
use crate::spec::{
    AttentionSpec, BlockSpec, ConfigJson, ExpertStorage, Mask, ModelSpec, MoeSpec, QkNorm, QkNormOver, RopePairing, SharedSpec,
    TemperatureTuning, TensorNames,
};

pub(super) static LLAMA4: Arch =
    Arch { name: "llama4", model_types: &["llama4", "llama4_text"], covers: "Llama 4 Scout and Maverick, text only", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 131_072, rms_norm_eps: 1e-5, rope_theta: 500_000.0, ..Defaults::LLAMA };
const LAYER_TYPES: &[&str] = &["chunked_attention", "full_attention"];

const NAMES: TensorNames = TensorNames {
    router: "model.layers.{l}.feed_forward.router.weight",
    experts: ExpertStorage::Transposed {
        gate_up: "model.layers.{l}.feed_forward.experts.gate_up_proj",
        down: "model.layers.{l}.feed_forward.experts.down_proj",
        interleaved: false,
    },
    shared: ExpertStorage::Each {
        gate: "model.layers.{l}.feed_forward.shared_expert.gate_proj.weight",
        up: "model.layers.{l}.feed_forward.shared_expert.up_proj.weight",
        down: "model.layers.{l}.feed_forward.shared_expert.down_proj.weight",
    },
    dense: ExpertStorage::Each {
        gate: "model.layers.{l}.feed_forward.gate_proj.weight",
        up: "model.layers.{l}.feed_forward.up_proj.weight",
        down: "model.layers.{l}.feed_forward.down_proj.weight",
    },
    ..TensorNames::LLAMA
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    if config.str("model_type")? != "llama4" {
        return parse_text(config, NAMES);
    }
    // The multimodal wrapper.
    let text = config.section("text_config")?.ok_or_else(|| config.invalid("text_config", "an object"))?;
    parse_text(&text, TensorNames { prefix: "language_model.", ..NAMES })
}

fn parse_text(config: &ConfigJson, names: TensorNames) -> Result<ModelSpec> {
    let expert = common::silu_mlp(config, "intermediate_size")?;
    let router = RouterSpec {
        method: RouterMethod::Sigmoid,
        weight_on: WeightOn::Input,
        ..common::router(config, "num_local_experts", ("num_experts_per_tok", Some(1)))?
    };
    let moe = MoeSpec { router, expert, shared: Some(SharedSpec { mlp: expert, gate: false }), output_bias: false };
    let step = config.usize_or("interleave_moe_layer_step", 1, limits::LAYERS)?;
    let moe_layers = config.opt_counts("moe_layers", limits::LAYERS)?;
    let is_sparse = |layer: usize| moe_layers.as_ref().map_or((layer + 1).is_multiple_of(step), |layers| layers.contains(&layer));
    let attention = attention(config)?;
    let model = common::model(config, LLAMA4.name, &DEFAULTS, |layer| {
        let ffn = if is_sparse(layer) {
            BlockSpec::Experts(moe.clone())
        } else {
            BlockSpec::Mlp(common::silu_mlp(config, "intermediate_size_mlp")?)
        };
        Ok((attention(layer)?, ffn))
    })?;
    Ok(ModelSpec { names, ..model })
}

/// The attention of layer `l`: with positions and in chunks, or without positions and over everything.
fn attention(config: &ConfigJson) -> Result<impl Fn(usize) -> Result<AttentionSpec>> {
    let bias = config.bool_or("attention_bias", false)?;
    let mut turned = AttentionSpec { qkv_bias: bias, output_bias: bias, ..common::attention(config, &DEFAULTS)? };
    if let Some(rope) = &mut turned.rope {
        rope.pairing = RopePairing::Interleaved;
    }
    let mut still = AttentionSpec { rope: None, ..turned.clone() };
    if config.bool_or("use_qk_norm", true)? {
        let eps = common::rms_norm(config, &DEFAULTS)?.eps;
        turned.qk_norm = Some(QkNorm { eps, over: QkNormOver::Head, after_rope: true, weight: false });
    }
    if config.flag_or("attn_temperature_tuning", true)? {
        still.temperature = Some(TemperatureTuning {
            scale: config.f64_or("attn_scale", 0.1, FACTOR)? as f32,
            floor: config.f64_or("floor_scale", 8192.0, 1.0..=1e9)? as f32,
        });
    }
    let chunk = config.opt_usize("attention_chunk_size", limits::POSITIONS)?;
    let has_rope = config.opt_counts("no_rope_layers", 1)?.filter(|layers| !layers.is_empty());
    let step = config.usize_or("no_rope_layer_interval", 4, limits::LAYERS)?;
    let kinds = common::layer_kinds(config, "layer_types", LAYER_TYPES)?;
    let config = config.clone();
    Ok(move |layer: usize| {
        let turns = match &has_rope {
            Some(layers) => *layers.get(layer).ok_or_else(|| config.invalid("no_rope_layers", "one entry per layer"))? == 1,
            None => !(layer + 1).is_multiple_of(step),
        };
        let is_chunked = match &kinds {
            Some(kinds) => kinds[layer] == LAYER_TYPES[0],
            None => turns,
        };
        let mask = chunk.filter(|_| is_chunked).map_or(Mask::Causal, Mask::Chunk);
        Ok(AttentionSpec { mask, ..if turns { turned.clone() } else { still.clone() } })
    })
}
