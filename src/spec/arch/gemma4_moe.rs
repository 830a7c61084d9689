//! Gemma 4 with experts: Google DeepMind 2026. Defaults are those of `Gemma4TextConfig` in transformers; text only.

use super::common::{self, Defaults, FACTOR, THETA};
use super::{Arch, limits};
use crate::Result;
use crate::gating::{Normalize, RouterSpec};
use crate::spec::{
    Activation, AttentionSpec, BlockSpec, ConfigJson, ExpertStorage, Mask, MlpSpec, ModelSpec, MoeSpec, ParallelInputs,
    ParallelSpec, QkNormOver, QkvStorage, Residual, RopePairing, RopeScaling, RopeSpec, TensorNames,
};
use serde_json::Value;

pub(super) static GEMMA4_MOE: Arch =
    Arch { name: "gemma4_moe", model_types: &["gemma4", "gemma4_text"], covers: "Gemma 4 26B-A4B, text only", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 131_072, tied_embeddings: true, ..Defaults::LLAMA };
const LAYER_TYPES: &[&str] = &["sliding_attention", "full_attention"];

const NAMES: TensorNames = TensorNames {
    prefix: "model.",
    embedding: "embed_tokens.weight",
    final_norm: "norm.weight",
    head: "lm_head.weight",
    attention_norm: "layers.{l}.input_layernorm.weight",
    attention_post_norm: "layers.{l}.post_attention_layernorm.weight",
    qkv: QkvStorage::Separate {
        query: "layers.{l}.self_attn.q_proj.weight",
        key: "layers.{l}.self_attn.k_proj.weight",
        value: "layers.{l}.self_attn.v_proj.weight",
    },
    query_norm: "layers.{l}.self_attn.q_norm.weight",
    key_norm: "layers.{l}.self_attn.k_norm.weight",
    attention_output: "layers.{l}.self_attn.o_proj.weight",
    ffn_norm: "layers.{l}.pre_feedforward_layernorm_2.weight",
    ffn_post_norm: "layers.{l}.post_feedforward_layernorm.weight",
    router: "layers.{l}.router.proj.weight",
    router_norm: "layers.{l}.router.scale",
    expert_scale: "layers.{l}.router.per_expert_scale",
    experts: ExpertStorage::Stacked { gate_up: "layers.{l}.experts.gate_up_proj", down: "layers.{l}.experts.down_proj" },
    parallel_norm: "layers.{l}.pre_feedforward_layernorm.weight",
    parallel: ExpertStorage::Each {
        gate: "layers.{l}.mlp.gate_proj.weight",
        up: "layers.{l}.mlp.up_proj.weight",
        down: "layers.{l}.mlp.down_proj.weight",
    },
    parallel_post_norm: "layers.{l}.post_feedforward_layernorm_1.weight",
    expert_post_norm: "layers.{l}.post_feedforward_layernorm_2.weight",
    output_scale: "layers.{l}.layer_scalar",
    ..TensorNames::LLAMA
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    if config.str("model_type")? != "gemma4" {
        return parse_text(config, NAMES);
    }
    // The multimodal wrapper.
    let text = config.section("text_config")?.ok_or_else(|| config.invalid("text_config", "an object"))?;
    parse_text(&text, TensorNames { prefix: "model.language_model.", ..NAMES })
}

fn parse_text(config: &ConfigJson, names: TensorNames) -> Result<ModelSpec> {
    if !config.bool_or("enable_moe_block", false)? {
        return Err(config.invalid("enable_moe_block", "true: without, the model has no experts"));
    }
    for key in ["hidden_size_per_layer_input", "num_kv_shared_layers"] {
        config.unsupported(key, &0.into())?;
    }
    config.unsupported("use_double_wide_mlp", &false.into())?;
    config.unsupported("use_bidirectional_attention", &Value::Null)?;
    config.unsupported("rope_scaling", &Value::Null)?;
    config.unsupported("tie_word_embeddings", &true.into())?;
    let kinds =
        common::layer_kinds(config, "layer_types", LAYER_TYPES)?.ok_or_else(|| config.invalid("layer_types", "a list"))?;
    let [sliding, full] = attentions(config, &kinds)?;
    let ffn = ffn(config)?;
    let mut model = common::model(config, GEMMA4_MOE.name, &DEFAULTS, |layer| {
        let attention = if kinds[layer] == LAYER_TYPES[0] { &sliding } else { &full };
        Ok((attention.clone(), ffn.clone()))
    })?;
    for layer in &mut model.layers {
        layer.residual = Residual::Sandwich;
        layer.output_scale = true;
    }
    model.embedding_scale = (model.hidden_size as f32).sqrt();
    model.logit_softcap = config.opt_f64("final_logit_softcapping", FACTOR)?.map(|cap| cap as f32);
    Ok(ModelSpec { names, ..model })
}

/// A dense MLP with experts beside it.
fn ffn(config: &ConfigJson) -> Result<BlockSpec> {
    config.choice("hidden_activation", &["gelu_pytorch_tanh"])?;
    let mlp = |key: &str| {
        let intermediate_size = config.usize(key, limits::INTERMEDIATE_SIZE)?;
        Ok::<_, crate::Error>(MlpSpec { intermediate_size, activation: Activation::GeluTanh, bias: false })
    };
    let router = RouterSpec {
        input_norm: Some(common::rms_norm(config, &DEFAULTS)?.eps),
        logit_scale: (common::hidden_size(config)? as f32).sqrt().recip(),
        normalize: Normalize::Sum { floor: 0.0 },
        expert_scale: true,
        ..common::router(config, "num_experts", ("top_k_experts", None))?
    };
    Ok(BlockSpec::Parallel(ParallelSpec {
        dense: mlp("intermediate_size")?,
        moe: MoeSpec { router, expert: mlp("moe_intermediate_size")?, shared: None, output_bias: false },
        inputs: ParallelInputs::OwnNorms,
        post_norms: true,
        deferred: false,
    }))
}

/// The attention over a window, and the one over everything, whose heads are wider and whose keys may be the values too.
fn attentions(config: &ConfigJson, kinds: &[&str]) -> Result<[AttentionSpec; 2]> {
    config.unsupported("attention_bias", &false.into())?;
    let eps = common::rms_norm(config, &DEFAULTS)?.eps;
    let sliding = AttentionSpec {
        scale: 1.0,
        qk_norm: Some(common::qk_norm(eps, QkNormOver::Head)),
        value_norm: Some(eps),
        mask: Mask::Window(config.usize_or("sliding_window", 512, limits::POSITIONS)?),
        ..common::heads(config)?
    };
    let own = |key: &str, max: usize| of_full_layers(config, kinds, key, max);
    let default = own("head_dim", limits::HEAD_DIM)?.unwrap_or(512);
    let head_dim = config.usize_or("global_head_dim", default, limits::HEAD_DIM)?;
    common::check_head_dim(config, "global_head_dim", head_dim)?;
    let default = own("num_key_value_heads", limits::HEADS)?.unwrap_or(sliding.num_kv_heads);
    let num_kv_heads = config.usize_or("num_global_key_value_heads", default, limits::HEADS)?;
    if !sliding.num_heads.is_multiple_of(num_kv_heads) {
        let expected = format!("a divisor of num_attention_heads ({})", sliding.num_heads);
        return Err(config.invalid("num_global_key_value_heads", expected));
    }
    let full = AttentionSpec {
        head_dim,
        value_dim: head_dim,
        num_kv_heads,
        values_are_keys: config.bool_or("attention_k_eq_v", false)?,
        rope: Some(rope(config, LAYER_TYPES[1], 1e6, head_dim)?),
        mask: Mask::Causal,
        ..sliding.clone()
    };
    let rope = rope(config, LAYER_TYPES[0], 1e4, sliding.head_dim)?;
    Ok([AttentionSpec { rope: Some(rope), ..sliding }, full])
}

/// What `per_layer_config`, as transformers writes it since 5.24, says of `key` in the layers of full attention: the same in all of them.
fn of_full_layers(config: &ConfigJson, kinds: &[&str], key: &str, max: usize) -> Result<Option<usize>> {
    let Some(layers) = config.section("per_layer_config")? else { return Ok(None) };
    let mut common = None;
    for (layer, kind) in kinds.iter().enumerate() {
        let section = layers.section(&layer.to_string())?;
        let value = section.map_or(Ok(None), |section| section.opt_usize(key, max))?;
        let is_full = *kind == LAYER_TYPES[1];
        if (!is_full && value.is_some()) || (is_full && *common.get_or_insert(value) != value) {
            return Err(layers.invalid(&format!("{layer}.{key}"), "the same in all layers of full attention, and in no other"));
        }
    }
    Ok(common.flatten())
}

/// The rotary embedding of one type of layer. A proportional one turns the fastest pairs of the whole head.
fn rope(config: &ConfigJson, layer_type: &str, theta: f64, head_dim: usize) -> Result<RopeSpec> {
    let parameters = config.section("rope_parameters")?;
    let parameters = parameters.ok_or_else(|| config.invalid("rope_parameters", "a set of values for each type of layer"))?;
    let section = parameters.section(layer_type)?.ok_or_else(|| parameters.invalid(layer_type, "an object"))?;
    let scaling = match section.choice("rope_type", &["default", "proportional"])? {
        "default" => RopeScaling::None,
        _ => {
            let partial = section.f64_or("partial_rotary_factor", 1.0, 0.0..=1.0)?;
            RopeScaling::Proportional { pairs: (partial * head_dim as f64 / 2.0) as usize }
        }
    };
    let theta = section.f64_or("rope_theta", theta, THETA)?;
    Ok(RopeSpec { theta, dims: head_dim, pairing: RopePairing::Half, scaling })
}
