//! Architectures whose layers with a window differ from those without in more than that.

use super::super::config::Config;
use crate::error::Result;
use crate::spec::TensorNames;
use serde_json::{Map, Value, json};

const SLIDING: &str = "sliding_attention";
const FULL: &str = "full_attention";

/// Kinds of layers, where a pattern says for each whether it has a window.
pub(super) fn sliding_layers(config: &Config<'_>) -> Result<Option<Vec<&'static str>>> {
    let kind = |is_sliding: bool| if is_sliding { SLIDING } else { FULL };
    Ok(pattern(config)?.map(|pattern| pattern.into_iter().map(kind).collect()))
}

/// Whether each layer has a window.
fn pattern(config: &Config<'_>) -> Result<Option<Vec<bool>>> {
    let key = config.key("attention.sliding_window_pattern");
    let Some(pattern) = config.metadata.integers(&key)? else { return Ok(None) };
    let layers = config.num_layers()?;
    if pattern.len() < layers {
        let found = pattern.len();
        return Err(
            config.invalid("attention.sliding_window_pattern", &format!("{found} values, and the model has {layers} layers"))
        );
    }
    Ok(Some(pattern.iter().take(layers).map(|is_sliding| *is_sliding == 1).collect()))
}

/// Whether each layer has a window, of an architecture that always says so.
fn needed_pattern(config: &Config<'_>) -> Result<Vec<bool>> {
    pattern(config)?.ok_or_else(|| config.missing("attention.sliding_window_pattern"))
}

/// The values of `name` in layers with a window, and in the others; `None` where there is no such layer. One value for each layer, or one for all.
fn by_kind(config: &Config<'_>, name: &str, sliding: &[bool]) -> Result<[Option<u64>; 2]> {
    let values = config.per_layer(name)?.ok_or_else(|| config.missing(name))?;
    let mut found = [None; 2];
    for (value, is_sliding) in values.into_iter().zip(sliding) {
        let same = found[usize::from(!is_sliding)].get_or_insert(value);
        if *same != value {
            let problem = format!("layers of one kind differ ({same} and {value}), which this family cannot");
            return Err(config.invalid(name, &problem));
        }
    }
    Ok(found)
}

/// Values of the rotary embedding for each kind of layer: those with a window have a base of their own, and no scaling.
fn rope_of_kinds(config: &Config<'_>) -> Result<Value> {
    let theta = config.float("rope.freq_base")?;
    let sliding_theta = config.float("rope.freq_base_swa")?.or(theta);
    let mut full = config.get("rope_scaling").and_then(Value::as_object).cloned().unwrap_or_default();
    full.entry("rope_type").or_insert_with(|| "default".into());
    let mut sliding = Map::from_iter([("rope_type".to_owned(), Value::from("default"))]);
    for (section, theta) in [(&mut full, theta), (&mut sliding, sliding_theta)] {
        if let Some(theta) = theta {
            section.insert("rope_theta".to_owned(), theta.into());
        }
    }
    Ok(json!({ FULL: full, SLIDING: sliding }))
}

pub(super) fn mellum(config: &mut Config<'_>) -> Result<()> {
    config.check_value_length()?;
    config.set("model_type", "mellum");
    config.set("norm_topk_prob", true);
    let kinds: Vec<&str> =
        config.sparse_layers()?.into_iter().map(|is_sparse| if is_sparse { "sparse" } else { "dense" }).collect();
    config.set("mlp_layer_types", kinds);
    if let Some(kinds) = sliding_layers(config)? {
        config.set("layer_types", kinds);
    }
    config.set("rope_parameters", rope_of_kinds(config)?);
    config.remove("rope_scaling");
    Ok(())
}

/// MiMo-V2-Flash. The layers that predict further tokens have no place in the lists.
pub(super) fn mimo2(config: &mut Config<'_>) -> Result<()> {
    config.set("model_type", "mimo_v2_flash");
    config.set("scoring_func", "sigmoid");
    config.set("topk_method", "noaux_tc");
    config.copy_integer("expert_count", "n_routed_experts")?;
    config.copy_float("attention.layer_norm_rms_epsilon", "layernorm_epsilon")?;
    config.copy_integer("attention.value_length", "v_head_dim")?;
    config.copy_float("attention.value_scale", "attention_value_scale")?;
    config.copy_float("rope.freq_base_swa", "swa_rope_theta")?;
    let sliding = needed_pattern(config)?;
    let [of_sliding, of_full] = by_kind(config, "attention.head_count_kv", &sliding)?;
    for (key, heads) in [("swa_num_key_value_heads", of_sliding), ("num_key_value_heads", of_full.or(of_sliding))] {
        if let Some(heads) = heads {
            config.set(key, heads);
        }
    }
    let numbers = |list: &[bool]| list.iter().map(|&is_so| u64::from(is_so)).collect::<Vec<_>>();
    let sinks = sliding.iter().position(|is_sliding| *is_sliding);
    let has_sinks = sinks.is_some_and(|layer| config.has_tensor(&format!("blk.{layer}.attn_sinks.weight")));
    config.set("add_swa_attention_sink_bias", has_sinks);
    config.set("hybrid_layer_pattern", numbers(&sliding));
    let sparse = numbers(&config.sparse_layers()?);
    config.set("moe_layer_freq", sparse);
    Ok(())
}

/// Gemma 4 with experts. The tensor `rope_freqs.weight` is for layers without a window: ones for the pairs that rotate, and divisors beyond all
/// measure for the others.
pub(super) fn gemma4(config: &mut Config<'_>) -> Result<()> {
    config.set("model_type", "gemma4_text");
    config.set("enable_moe_block", config.sparse_layers()?.contains(&true));
    config.set("hidden_activation", "gelu_pytorch_tanh");
    config.copy_integer("expert_used_count", "top_k_experts")?;
    config.copy_integer("attention.shared_kv_layers", "num_kv_shared_layers")?;
    config.copy_integer("embedding_length_per_layer_input", "hidden_size_per_layer_input")?;
    config.copy_float("final_logit_softcapping", "final_logit_softcapping")?;
    let sliding = needed_pattern(config)?;
    let of_full = config.needed("attention.key_length")?;
    config.set("global_head_dim", of_full);
    config.set("head_dim", config.integer("attention.key_length_swa")?.unwrap_or(of_full));
    let [heads, of_full_heads] = by_kind(config, "attention.head_count_kv", &sliding)?;
    for (key, heads) in [("num_key_value_heads", heads.or(of_full_heads)), ("num_global_key_value_heads", of_full_heads)] {
        if let Some(heads) = heads {
            config.set(key, heads);
        }
    }
    let full_layer = sliding.iter().position(|is_sliding| !is_sliding);
    let has_values = full_layer.is_none_or(|layer| config.has_tensor(&format!("blk.{layer}.attn_v.weight")));
    config.set("attention_k_eq_v", !has_values);
    let mut rope = rope_of_kinds(config)?;
    if let Some(divisors) = config.take_factors("rope_freqs.weight") {
        let pairs = divisors.iter().take_while(|divisor| **divisor == 1.0).count();
        // A quarter of a pair, so that rounding does not lose one.
        let share = (pairs as f64 + 0.25) * 2.0 / of_full as f64;
        rope[FULL]["rope_type"] = "proportional".into();
        rope[FULL]["partial_rotary_factor"] = share.min(1.0).into();
    }
    config.set("rope_parameters", rope);
    config.remove("rope_scaling");
    config.set("layer_types", sliding_layers(config)?.unwrap_or_default());
    Ok(())
}

pub(super) fn gemma4_names(names: &mut TensorNames, _: &Config<'_>) {
    names.ffn_norm = "blk.{l}.pre_ffw_norm_2.weight";
    names.expert_post_norm = "blk.{l}.post_ffw_norm_2.weight";
    names.parallel_norm = "blk.{l}.ffn_norm.weight";
    names.parallel_post_norm = "blk.{l}.post_ffw_norm_1.weight";
    names.output_scale = "blk.{l}.layer_output_scale.weight";
}
