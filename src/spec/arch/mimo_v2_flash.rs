//! MiMo-V2-Flash: LLM-Core Xiaomi 2025, arXiv 2601.02780. Defaults are the published values.

use super::common::{self, Defaults, FACTOR, THETA};
use super::{Arch, limits};
use crate::Result;
use crate::spec::{
    AttentionSpec, BlockSpec, ConfigJson, Mask, ModelSpec, MoeSpec, RopePairing, RopeScaling, RopeSpec, TensorNames,
};

pub(super) static MIMO_V2_FLASH: Arch =
    Arch { name: "mimo_v2_flash", model_types: &["mimo_v2_flash"], covers: "MiMo-V2-Flash, 309B-A15B", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 262_144, rms_norm_eps: 1e-5, rope_theta: 5e6, ..Defaults::LLAMA };
const SLIDING_THETA: f64 = 10_000.0;
const PARTIAL: f64 = 0.334;

const NAMES: TensorNames = TensorNames { sinks: "model.layers.{l}.self_attn.attention_sink_bias", ..TensorNames::LLAMA };

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    config.choice("scoring_func", &["sigmoid"])?;
    config.choice("topk_method", &["noaux_tc"])?;
    // Older files call the epsilon by another name.
    let eps = config.f64_or("layernorm_epsilon", DEFAULTS.rms_norm_eps, common::EPS)?;
    let defaults = Defaults { rms_norm_eps: eps, ..DEFAULTS };
    let router = common::router(config, "n_routed_experts", ("num_experts_per_tok", Some(8)))?;
    let moe = MoeSpec {
        router: common::noaux_tc(config, router, true)?,
        expert: common::silu_mlp(config, "moe_intermediate_size")?,
        shared: None,
        output_bias: false,
    };
    let [full, sliding] = attentions(config)?;
    let is_sliding = per_layer(config, "hybrid_layer_pattern")?;
    let is_sparse = per_layer(config, "moe_layer_freq")?;
    let model = common::model(config, MIMO_V2_FLASH.name, &defaults, |layer| {
        let ffn = if is_sparse(layer)? {
            BlockSpec::Experts(moe.clone())
        } else {
            BlockSpec::Mlp(common::silu_mlp(config, "intermediate_size")?)
        };
        Ok((if is_sliding(layer)? { sliding.clone() } else { full.clone() }, ffn))
    })?;
    Ok(ModelSpec { names: NAMES, ..model })
}

/// A list of zeros and ones, one per layer.
fn per_layer<'a>(config: &'a ConfigJson, key: &'static str) -> Result<impl Fn(usize) -> Result<bool> + 'a> {
    let expected = "a list of zeros and ones, one per layer";
    let list = config.opt_counts(key, 1)?.ok_or_else(|| config.invalid(key, expected))?;
    Ok(move |layer: usize| list.get(layer).map(|one| *one == 1).ok_or_else(|| config.invalid(key, expected)))
}

/// The attention over everything, and the one over a window.
fn attentions(config: &ConfigJson) -> Result<[AttentionSpec; 2]> {
    let bias = config.bool_or("attention_bias", false)?;
    let heads = common::heads(config)?;
    let full = AttentionSpec {
        qkv_bias: bias,
        value_dim: config.usize_or("v_head_dim", heads.head_dim, limits::HEAD_DIM)?,
        value_scale: config.f64_or("attention_value_scale", 1.0, FACTOR)? as f32,
        ..heads
    };
    common::check_head_dim(config, "v_head_dim", full.value_dim)?;
    let sliding_kv_heads = config.usize_or("swa_num_key_value_heads", 2 * full.num_kv_heads, limits::HEADS)?;
    if !full.num_heads.is_multiple_of(sliding_kv_heads) {
        let expected = format!("a divisor of num_attention_heads ({})", full.num_heads);
        return Err(config.invalid_value("swa_num_key_value_heads", expected, sliding_kv_heads.to_string()));
    }
    let sliding = AttentionSpec {
        num_kv_heads: sliding_kv_heads,
        rope: Some(rope(config, "sliding_attention", ("swa_rope_theta", SLIDING_THETA), full.head_dim)?),
        mask: Mask::Window(config.usize_or("sliding_window", 128, limits::POSITIONS)?),
        sinks: config.bool_or("add_swa_attention_sink_bias", true)?,
        ..full.clone()
    };
    let rope = rope(config, "full_attention", ("rope_theta", DEFAULTS.rope_theta), full.head_dim)?;
    Ok([AttentionSpec { rope: Some(rope), ..full }, sliding])
}

/// The rotary embedding of one type of layer: a set of values of its own, or, in older files, a base of its own.
fn rope(config: &ConfigJson, layer_type: &str, (key, theta): (&str, f64), head_dim: usize) -> Result<RopeSpec> {
    config.unsupported("rope_scaling", &serde_json::Value::Null)?;
    let section = match config.section("rope_parameters")? {
        Some(parameters) => parameters.section(layer_type)?,
        None => None,
    };
    let (theta, partial) = match &section {
        Some(section) => {
            section.choice("rope_type", &["default"])?;
            (section.f64_or("rope_theta", theta, THETA)?, section.f64_or("partial_rotary_factor", PARTIAL, 0.0..=1.0)?)
        }
        None => (config.f64_or(key, theta, THETA)?, config.f64_or("partial_rotary_factor", PARTIAL, 0.0..=1.0)?),
    };
    let dims = common::rotary_dims(section.as_ref().unwrap_or(config), head_dim, partial)?;
    Ok(RopeSpec { theta, dims, pairing: RopePairing::Half, scaling: RopeScaling::None })
}
