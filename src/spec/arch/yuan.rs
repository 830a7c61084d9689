//! Yuan 2.0-M32: Wu et al. 2024, arXiv 2405.17976. Defaults are the published values.

use super::common::{self, Defaults};
use super::{Arch, limits};
use crate::Result;
use crate::gating::{Normalize, RouterSpec};
use crate::spec::{
    AttentionSpec, BlockSpec, ConfigJson, ExpertStorage, FilterNames, FilterSpec, ModelSpec, MoeSpec, QkvStorage, RopePairing,
    RopeScaling, RopeSpec, TensorNames,
};

pub(super) static YUAN: Arch = Arch { name: "yuan", model_types: &["yuan"], covers: "Yuan 2.0-M32, 40B-A3.7B", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 8192, ..Defaults::LLAMA };
/// Of the norm after the filter. Source: `LocalizedFiltering` of the code that comes with the models.
const FILTER_EPS: f32 = 1e-6;

const NAMES: TensorNames = TensorNames {
    qkv: QkvStorage::Paired {
        first: "model.layers.{l}.self_attn.q_proj.weight",
        second: "model.layers.{l}.self_attn.k_proj.weight",
        value: "model.layers.{l}.self_attn.v_proj.weight",
    },
    filter: FilterNames {
        first: "model.layers.{l}.self_attn.lf_gate.conv1.weight",
        second: "model.layers.{l}.self_attn.lf_gate.conv2.weight",
        norm: "model.layers.{l}.self_attn.lf_gate.output_layernorm.weight",
    },
    router: "model.layers.{l}.mlp.gate.query.weight",
    router_key: "model.layers.{l}.mlp.gate.key.weight",
    router_value: "model.layers.{l}.mlp.gate.value.weight",
    experts: ExpertStorage::EachFused {
        gate_up: "model.layers.{l}.mlp.experts.{e}.w1.weight",
        down: "model.layers.{l}.mlp.experts.{e}.w2.weight",
    },
    ..TensorNames::LLAMA
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    config.choice("hidden_act", &["silu"])?;
    config.unsupported("use_moe", &true.into())?;
    config.unsupported("causal_mask", &true.into())?;
    config.unsupported("rope_scaling", &serde_json::Value::Null)?;
    let section = config.section("moe_config")?.ok_or_else(|| config.invalid("moe_config", "an object"))?;
    section.unsupported("gated_linear_unit", &true.into())?;
    let moe = MoeSpec {
        router: router(config, &section)?,
        expert: common::silu(section.usize("ffn_hidden_size", limits::INTERMEDIATE_SIZE)?),
        shared: None,
        output_bias: false,
    };
    let attention = attention(config)?;
    let model = common::model(config, YUAN.name, &DEFAULTS, |_| Ok((attention.clone(), BlockSpec::Experts(moe.clone()))))?;
    Ok(ModelSpec { names: NAMES, ..model })
}

fn router(config: &ConfigJson, section: &ConfigJson) -> Result<RouterSpec> {
    section.choice("router_type", &["attn_router"])?;
    let num_experts = section.usize("moe_num_experts", limits::EXPERTS)?;
    let num_experts_per_tok = section.usize_or("moe_top_k", 2, limits::EXPERTS)?;
    if num_experts_per_tok > num_experts {
        return Err(section.invalid("moe_top_k", format!("at most the number of experts ({num_experts})")));
    }
    common::check_all_experts(config, "moe_config", num_experts, "num_hidden_layers")?;
    let normalizes = section.bool_or("norm_topk_prob", true)?;
    let normalize = if normalizes { Normalize::Sum { floor: 0.0 } } else { Normalize::No };
    Ok(RouterSpec { attention: true, normalize, ..RouterSpec::new(num_experts, num_experts_per_tok) })
}

/// Heads may be wider than their share of the hidden size; only that share turns.
fn attention(config: &ConfigJson) -> Result<AttentionSpec> {
    config.unsupported("attention_bias", &false.into())?;
    let num_heads = config.usize("num_attention_heads", limits::HEADS)?;
    let hidden_size = common::hidden_size(config)?;
    let width = config.usize_or("attention_projection_size", hidden_size, limits::HEADS * limits::HEAD_DIM)?;
    for (key, width) in [("attention_projection_size", width), ("hidden_size", hidden_size)] {
        if !width.is_multiple_of(num_heads) {
            let expected = format!("a multiple of num_attention_heads ({num_heads})");
            return Err(config.invalid_value(key, expected, width.to_string()));
        }
    }
    let (head_dim, dims) = (width / num_heads, hidden_size / num_heads);
    common::check_head_dim(config, "attention_projection_size", head_dim)?;
    if dims > head_dim || !dims.is_multiple_of(2) {
        let expected = format!("an even number per head, at most {head_dim}");
        return Err(config.invalid("hidden_size", expected));
    }
    let theta = config.f64_or("rope_theta", DEFAULTS.rope_theta, common::THETA)?;
    Ok(AttentionSpec {
        rope: Some(RopeSpec { theta, dims, pairing: RopePairing::Half, scaling: RopeScaling::None }),
        filter: Some(FilterSpec { middle: (hidden_size / 2).max(1), norm_eps: FILTER_EPS }),
        ..AttentionSpec::new(num_heads, num_heads, head_dim)
    })
}
