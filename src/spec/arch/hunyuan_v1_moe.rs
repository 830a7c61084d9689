//! Hunyuan-A13B: Tencent Hunyuan Team 2025. Defaults are those of `HunYuanMoEV1Config` in transformers.

use super::common::{self, Defaults};
use super::{Arch, limits};
use crate::Result;
use crate::gating::{Normalize, RouterSpec};
use crate::spec::{
    AttentionSpec, BlockSpec, ConfigJson, ExpertStorage, ModelSpec, MoeSpec, QkNorm, QkNormOver, SharedSpec, TensorNames,
};

pub(super) static HUNYUAN_V1_MOE: Arch = Arch {
    name: "hunyuan_v1_moe",
    model_types: &["hunyuan_v1_moe"],
    covers: "Hunyuan-A13B pretrain and instruct, 80B-A13B",
    parse,
};

const DEFAULTS: Defaults = Defaults { rms_norm_eps: 1e-5, ..Defaults::LLAMA };

const NAMES: TensorNames = TensorNames {
    query_norm: "model.layers.{l}.self_attn.query_layernorm.weight",
    key_norm: "model.layers.{l}.self_attn.key_layernorm.weight",
    router: "model.layers.{l}.mlp.gate.wg.weight",
    shared: ExpertStorage::Each {
        gate: "model.layers.{l}.mlp.shared_mlp.gate_proj.weight",
        up: "model.layers.{l}.mlp.shared_mlp.up_proj.weight",
        down: "model.layers.{l}.mlp.shared_mlp.down_proj.weight",
    },
    ..TensorNames::LLAMA
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    config.unsupported("use_qk_norm", &true.into())?;
    config.unsupported("mlp_bias", &false.into())?;
    config.unsupported("use_cla", &false.into())?;
    // Dynamic scaling is by `alpha` here, once and for all.
    for section in
        common::rope_section(config)?.iter().filter(|section| section.is("type", "dynamic") || section.is("rope_type", "dynamic"))
    {
        section.f64("alpha", common::FACTOR)?;
    }
    let bias = config.bool_or("attention_bias", false)?;
    let eps = common::rms_norm(config, &DEFAULTS)?.eps;
    let attention = AttentionSpec {
        qkv_bias: bias,
        output_bias: bias,
        qk_norm: Some(QkNorm { after_rope: true, ..common::qk_norm(eps, QkNormOver::Head) }),
        ..common::attention(config, &DEFAULTS)?
    };
    let num_experts = config.usize("num_experts", limits::EXPERTS)?;
    common::check_all_experts(config, "num_experts", num_experts, "num_hidden_layers")?;
    // Routed and shared experts are of the same width, whatever `moe_intermediate_size` says.
    let expert = common::silu_mlp(config, "intermediate_size")?;
    let model = common::model(config, HUNYUAN_V1_MOE.name, &DEFAULTS, |layer| {
        let chosen = chosen(config, num_experts, layer)?;
        let router = RouterSpec { normalize: Normalize::Sum { floor: 0.0 }, ..RouterSpec::new(num_experts, chosen) };
        let moe = MoeSpec { router, expert, shared: Some(SharedSpec { mlp: expert, gate: false }), output_bias: false };
        Ok((attention.clone(), BlockSpec::Experts(moe)))
    })?;
    Ok(ModelSpec { names: NAMES, ..model })
}

/// Experts per token: one number, or one per layer.
fn chosen(config: &ConfigJson, num_experts: usize, layer: usize) -> Result<usize> {
    let chosen = match config.opt_usize("moe_topk", limits::EXPERTS) {
        Ok(number) => number.unwrap_or(1),
        Err(no_number) => {
            let list = config.opt_counts("moe_topk", limits::EXPERTS).map_err(|_| no_number)?.unwrap_or_default();
            *list.get(layer).ok_or_else(|| config.invalid("moe_topk", "a number, or a list with one per layer"))?
        }
    };
    if (1..=num_experts).contains(&chosen) {
        return Ok(chosen);
    }
    Err(config.invalid_value("moe_topk", format!("from 1 to num_experts ({num_experts})"), chosen.to_string()))
}
