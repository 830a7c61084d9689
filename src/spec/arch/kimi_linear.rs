//! Kimi-Linear: Kimi Team 2025, arXiv 2510.26692. Defaults are those of `KimiLinearConfig` as Moonshot AI published it. Three layers of four have a delta
//! rule whose state decays channel by channel, the others latent attention without positions.

use super::common::{self, Defaults};
use super::{Arch, latent, limits};
use crate::Result;
use crate::gating::{Normalize, RouterMethod, RouterSpec};
use crate::spec::{
    BlockSpec, ConfigJson, ConvolutionNames, ConvolutionSpec, Decay, ExpertStorage, GateActivation, GatedNormSpec, LatentSpec,
    ModelSpec, MoeSpec, RecurrentNames, RecurrentSpec, RecurrentStorage, Rule, TensorNames,
};
use serde_json::Value;

pub(super) static KIMI_LINEAR: Arch =
    Arch { name: "kimi_linear", model_types: &["kimi_linear"], covers: "Kimi-Linear-48B-A3B", parse };

const DEFAULTS: Defaults = Defaults::LLAMA;

const NAMES: TensorNames = TensorNames {
    convolution: ConvolutionNames { output: "model.layers.{l}.self_attn.o_proj.weight", ..ConvolutionNames::NONE },
    recurrent: RecurrentNames {
        storage: RecurrentStorage::Separate {
            query: "model.layers.{l}.self_attn.q_proj.weight",
            key: "model.layers.{l}.self_attn.k_proj.weight",
            value: "model.layers.{l}.self_attn.v_proj.weight",
            convolutions: [
                "model.layers.{l}.self_attn.q_conv1d.weight",
                "model.layers.{l}.self_attn.k_conv1d.weight",
                "model.layers.{l}.self_attn.v_conv1d.weight",
            ],
            step_down: "model.layers.{l}.self_attn.f_a_proj.weight",
            gate_down: "model.layers.{l}.self_attn.g_a_proj.weight",
            betas: "model.layers.{l}.self_attn.b_proj.weight",
        },
        step_up: "model.layers.{l}.self_attn.f_b_proj.weight",
        step_bias: "model.layers.{l}.self_attn.dt_bias",
        decay: "model.layers.{l}.self_attn.A_log",
        gate: "model.layers.{l}.self_attn.g_b_proj.weight",
        norm: "model.layers.{l}.self_attn.o_norm.weight",
        ..RecurrentNames::NONE
    },
    router: "model.layers.{l}.block_sparse_moe.gate.weight",
    selection_bias: "model.layers.{l}.block_sparse_moe.gate.e_score_correction_bias",
    experts: ExpertStorage::Each {
        gate: "model.layers.{l}.block_sparse_moe.experts.{e}.w1.weight",
        up: "model.layers.{l}.block_sparse_moe.experts.{e}.w3.weight",
        down: "model.layers.{l}.block_sparse_moe.experts.{e}.w2.weight",
    },
    shared: ExpertStorage::Each {
        gate: "model.layers.{l}.block_sparse_moe.shared_experts.gate_proj.weight",
        up: "model.layers.{l}.block_sparse_moe.shared_experts.up_proj.weight",
        down: "model.layers.{l}.block_sparse_moe.shared_experts.down_proj.weight",
    },
    ..TensorNames::LLAMA
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    config.unsupported("mla_use_nope", &true.into())?;
    config.unsupported("rope_scaling", &Value::Null)?;
    let section = config.section("linear_attn_config")?.ok_or_else(|| config.invalid("linear_attn_config", "an object"))?;
    let num_layers = config.usize("num_hidden_layers", limits::LAYERS)?;
    let recurrent = recurrent(&section, common::rms_norm(config, &DEFAULTS)?.eps)?;
    let is_recurrent = recurrent_layers(&section, num_layers)?;
    let attention = LatentSpec { rope: None, ..latent::latent_attention(config, &DEFAULTS)? };
    let moe = MoeSpec {
        router: router(config)?,
        expert: common::silu_mlp(config, "moe_intermediate_size")?,
        shared: common::shared(config, "num_shared_experts", 0, "moe_intermediate_size")?,
        output_bias: false,
    };
    let is_sparse = common::after_dense(config, 0)?;
    let model = common::model(config, KIMI_LINEAR.name, &DEFAULTS, |layer| {
        let mixer = if is_recurrent[layer] { BlockSpec::from(recurrent) } else { BlockSpec::from(attention.clone()) };
        Ok((mixer, common::sparse_or_dense(config, is_sparse(layer), &moe)?))
    })?;
    let max_positions = config.usize_or("model_max_length", model.max_positions, limits::POSITIONS)?;
    Ok(ModelSpec { names: NAMES, max_positions, ..model })
}

/// Which layers have a recurrence. The config counts them from 1, in one of two lists each.
fn recurrent_layers(section: &ConfigJson, num_layers: usize) -> Result<Vec<bool>> {
    let mut kinds = vec![None; num_layers];
    for (key, is_recurrent) in [("kda_layers", true), ("full_attn_layers", false)] {
        let expected = || format!("layers, each in one of `kda_layers` and `full_attn_layers`, counted from 1 to {num_layers}");
        for layer in section.opt_counts(key, limits::LAYERS)?.unwrap_or_default() {
            let kind = layer.checked_sub(1).and_then(|layer| kinds.get_mut(layer));
            let kind: &mut Option<bool> = kind.ok_or_else(|| section.invalid(key, expected()))?;
            if kind.replace(is_recurrent).is_some() {
                return Err(section.invalid(key, expected()));
            }
        }
    }
    let all: Option<Vec<bool>> = kinds.into_iter().collect();
    all.ok_or_else(|| {
        section.invalid("kda_layers", format!("every layer from 1 to {num_layers} that is not in `full_attn_layers`"))
    })
}

fn router(config: &ConfigJson) -> Result<RouterSpec> {
    config.choice("moe_router_activation_func", &["sigmoid"])?;
    config.unsupported("num_expert_group", &1.into())?;
    let router = common::router(config, "num_experts", ("num_experts_per_token", None))?;
    let router = common::normalize(config, RouterSpec { method: RouterMethod::Sigmoid, selection_bias: true, ..router }, false)?;
    let normalizes = config.bool_or("moe_renormalize", true)?;
    Ok(RouterSpec { normalize: if normalizes { Normalize::Sum { floor: 1e-20 } } else { Normalize::No }, ..router })
}

fn recurrent(section: &ConfigJson, eps: f32) -> Result<RecurrentSpec> {
    let heads = section.usize("num_heads", limits::HEADS)?;
    let head_dim = common::state_dim(section, "head_dim", 128)?;
    Ok(RecurrentSpec {
        key_heads: heads,
        value_heads: heads,
        key_dim: head_dim,
        value_dim: head_dim,
        rule: Rule::Delta,
        decay: Decay::Channel { rank: head_dim },
        conv: Some(ConvolutionSpec { len: section.usize_or("short_conv_kernel_size", 4, limits::CONVOLUTION)?, bias: false }),
        norm: Some(GatedNormSpec {
            eps,
            groups: heads,
            activation: GateActivation::Sigmoid,
            gate_first: false,
            shared_weight: true,
        }),
    })
}
