//! Architectures with layers that carry a state instead of keys and values.

use super::super::config::Config;
use crate::error::Result;
use crate::spec::{ConvolutionNames, ExpertStorage, RecurrentNames, TensorNames};

/// What a state space of Mamba-2 is called.
const MAMBA: (ConvolutionNames, RecurrentNames) = (
    ConvolutionNames { input: "blk.{l}.ssm_in.weight", weight: "blk.{l}.ssm_conv1d.weight", output: "blk.{l}.ssm_out.weight" },
    RecurrentNames {
        step_bias: "blk.{l}.ssm_dt.bias",
        decay: "blk.{l}.ssm_a",
        decay_is_logarithm: false,
        skip: "blk.{l}.ssm_d",
        norm: "blk.{l}.ssm_norm.weight",
        ..RecurrentNames::NONE
    },
);

/// Heads of keys are counted per layer, and there are none where a convolution takes the place of attention.
pub(super) fn lfm2moe(config: &mut Config<'_>) -> Result<()> {
    config.check_value_length()?;
    config.set("model_type", "lfm2_moe");
    config.copy_float("attention.layer_norm_rms_epsilon", "norm_eps")?;
    config.copy_integer("shortconv.l_cache", "conv_L_cache")?;
    let dense = config.leading_dense()?;
    config.set("num_dense_layers", dense);
    config.set("tie_embedding", !config.has_tensor("output.weight"));
    let is_conv = layers_with(config, "shortconv.in_proj.weight")?;
    config.set("conv_bias", layers_with(config, "shortconv.in_proj.bias")?.contains(&true));
    let heads = heads_of_attention(config)?;
    config.set("num_key_value_heads", heads);
    config.set("layer_types", kinds(&is_conv, ["conv", "full_attention"]));
    Ok(())
}

pub(super) fn lfm2moe_names(names: &mut TensorNames, config: &Config<'_>) {
    // The makers name the last norm after the embedding, and older files do as well.
    if !config.has_tensor("output_norm.weight") {
        names.final_norm = "token_embd_norm.weight";
    }
    names.convolution = ConvolutionNames {
        input: "blk.{l}.shortconv.in_proj.weight",
        weight: "blk.{l}.shortconv.conv.weight",
        output: "blk.{l}.shortconv.out_proj.weight",
    };
}

pub(super) fn granitehybrid(config: &mut Config<'_>) -> Result<()> {
    config.set("model_type", "granitemoehybrid");
    config.copy_integer("expert_count", "num_local_experts")?;
    config.copy_integer("expert_shared_feed_forward_length", "shared_intermediate_size")?;
    config.copy_float("attention.scale", "attention_multiplier")?;
    config.copy_float("embedding_scale", "embedding_multiplier")?;
    config.copy_float("residual_scale", "residual_multiplier")?;
    config.copy_float("logit_scale", "logits_scaling")?;
    // llama.cpp reads the key that way too.
    let rotates = config.metadata.flag(&config.key("rope.scaling.finetuned"))?.unwrap_or(true);
    config.set("position_embedding_type", if rotates { "rope" } else { "nope" });
    let (hidden, inner) = (config.needed("embedding_length")?, config.needed("ssm.inner_size")?);
    match inner.checked_div(hidden) {
        Some(factor) if factor * hidden == inner => config.set("mamba_expand", factor),
        _ => return Err(config.invalid("ssm.inner_size", &format!("{inner}, which is no multiple of the width {hidden}"))),
    }
    let keys = [("time_step_rank", "mamba_n_heads"), ("state_size", "mamba_d_state"), ("group_count", "mamba_n_groups")];
    for (from, to) in keys.into_iter().chain([("conv_kernel", "mamba_d_conv")]) {
        let value = config.needed(&format!("ssm.{from}"))?;
        config.set(to, value);
    }
    config.set("mamba_conv_bias", layers_with(config, "ssm_conv1d.bias")?.contains(&true));
    let heads = heads_of_attention(config)?;
    config.set("num_key_value_heads", heads);
    let is_mamba = layers_with(config, "ssm_in.weight")?;
    config.set("layer_types", kinds(&is_mamba, ["mamba", "attention"]));
    Ok(())
}

pub(super) fn mamba_names(names: &mut TensorNames, _: &Config<'_>) {
    (names.convolution, names.recurrent) = MAMBA;
}

/// A layer is a mixer or a feed-forward part: which it is shows in its tensors.
pub(super) fn nemotron_h_moe(config: &mut Config<'_>) -> Result<()> {
    config.check_value_length()?;
    config.set("model_type", "nemotron_h");
    config.set("mlp_hidden_act", "relu2");
    config.set("mamba_hidden_act", "silu");
    config.copy_float("attention.layer_norm_rms_epsilon", "layer_norm_epsilon")?;
    config.copy_float("attention.layer_norm_epsilon", "layer_norm_epsilon")?;
    config.copy_integer("expert_count", "n_routed_experts")?;
    config.copy_integer("expert_shared_feed_forward_length", "moe_shared_expert_intermediate_size")?;
    config.copy_integer("expert_shared_count", "n_shared_experts")?;
    let (heads, inner) = (config.needed("ssm.time_step_rank")?, config.needed("ssm.inner_size")?);
    match inner.checked_div(heads) {
        Some(width) if width * heads == inner => config.set("mamba_head_dim", width),
        _ => return Err(config.invalid("ssm.inner_size", &format!("{inner}, which {heads} heads do not share evenly"))),
    }
    config.set("mamba_num_heads", heads);
    for (from, to) in [("ssm.group_count", "n_groups"), ("ssm.state_size", "ssm_state_size"), ("ssm.conv_kernel", "conv_kernel")]
    {
        let value = config.needed(from)?;
        config.set(to, value);
    }
    config.set("use_conv_bias", layers_with(config, "ssm_conv1d.bias")?.contains(&true));
    config.set("attention_bias", layers_with(config, "attn_q.bias")?.contains(&true));
    let heads = heads_of_attention(config)?;
    config.set("num_key_value_heads", heads);
    let (mamba, attention) = (layers_with(config, "ssm_in.weight")?, layers_with(config, "attn_q.weight")?);
    let letters = mamba.iter().zip(&attention).zip(config.sparse_layers()?).map(|kinds| match kinds {
        ((true, _), _) => 'M',
        ((_, true), _) => '*',
        (_, true) => 'E',
        _ => '-',
    });
    let pattern: String = letters.collect();
    // Of a layer with an MLP alone; others have zero.
    let dense = config.per_layer("feed_forward_length")?.unwrap_or_default();
    if let Some(layer) = pattern.find('-').filter(|layer| *layer < dense.len()) {
        config.set("intermediate_size", dense[layer]);
    }
    config.set("hybrid_override_pattern", pattern);
    Ok(())
}

pub(super) fn nemotron_h_moe_names(names: &mut TensorNames, config: &Config<'_>) {
    mamba_names(names, config);
    names.ffn_norm = names.attention_norm;
    names.experts = ExpertStorage::StackedUngated { up: "blk.{l}.ffn_up_exps.weight", down: "blk.{l}.ffn_down_exps.weight" };
    names.shared = ExpertStorage::EachUngated { up: "blk.{l}.ffn_up_shexp.weight", down: "blk.{l}.ffn_down_shexp.weight" };
    names.dense = ExpertStorage::EachUngated { up: "blk.{l}.ffn_up.weight", down: "blk.{l}.ffn_down.weight" };
}

/// Whether each layer has a tensor of this name.
fn layers_with(config: &Config<'_>, name: &str) -> Result<Vec<bool>> {
    Ok((0..config.num_layers()?).map(|layer| config.has_tensor(&format!("blk.{layer}.{name}"))).collect())
}

/// The number of key heads in layers of attention, where all others have none.
fn heads_of_attention(config: &Config<'_>) -> Result<u64> {
    let key = "attention.head_count_kv";
    let values = config.per_layer(key)?.ok_or_else(|| config.missing(key))?;
    let mut heads = values.into_iter().filter(|heads| *heads > 0);
    let first = heads.next().ok_or_else(|| config.invalid(key, "zero in every layer: no layer would have attention"))?;
    match heads.find(|heads| *heads != first) {
        Some(other) => Err(config.invalid(key, &format!("layers differ ({first} and {other}), which this family cannot"))),
        None => Ok(first),
    }
}

fn kinds(is_first: &[bool], [first, second]: [&'static str; 2]) -> Vec<&'static str> {
    is_first.iter().map(|&is_first| if is_first { first } else { second }).collect()
}
