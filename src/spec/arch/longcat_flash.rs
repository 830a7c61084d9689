//! LongCat-Flash: Meituan LongCat Team 2025, arXiv 2509.01322. Defaults are those of `LongcatFlashConfig` in transformers.
//!
//! A stored layer is two of ours: latent attention and a dense MLP each. The experts read what the first MLP reads, and what they give
//! is added after the second.

use super::common::{self, Defaults};
use super::latent::latent_attention;
use super::{Arch, limits};
use crate::Result;
use crate::gating::RouterSpec;
use crate::spec::{
    BlockSpec, ConfigJson, ExpertStorage, LatentNames, LatentSpec, ModelSpec, MoeSpec, ParallelInputs, ParallelSpec, TensorNames,
};

pub(super) static LONGCAT_FLASH: Arch =
    Arch { name: "longcat_flash", model_types: &["longcat_flash"], covers: "LongCat-Flash chat and thinking, 560B-A27B", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 131_072, rms_norm_eps: 1e-5, rope_theta: 1e7, ..Defaults::LLAMA };

const DENSE: ExpertStorage = ExpertStorage::Each {
    gate: "model.layers.{l}.mlps.{s}.gate_proj.weight",
    up: "model.layers.{l}.mlps.{s}.up_proj.weight",
    down: "model.layers.{l}.mlps.{s}.down_proj.weight",
};

const NAMES: TensorNames = TensorNames {
    sub_layers: 2,
    attention_norm: "model.layers.{l}.input_layernorm.{s}.weight",
    latent: LatentNames {
        query: "model.layers.{l}.self_attn.{s}.q_proj.weight",
        query_down: "model.layers.{l}.self_attn.{s}.q_a_proj.weight",
        query_norm: "model.layers.{l}.self_attn.{s}.q_a_layernorm.weight",
        query_up: "model.layers.{l}.self_attn.{s}.q_b_proj.weight",
        down: "model.layers.{l}.self_attn.{s}.kv_a_proj_with_mqa.weight",
        norm: "model.layers.{l}.self_attn.{s}.kv_a_layernorm.weight",
        key_value_up: "model.layers.{l}.self_attn.{s}.kv_b_proj.weight",
        absorbed: None,
    },
    attention_output: "model.layers.{l}.self_attn.{s}.o_proj.weight",
    ffn_norm: "model.layers.{l}.post_attention_layernorm.{s}.weight",
    router: "model.layers.{l}.mlp.router.classifier.weight",
    selection_bias: "model.layers.{l}.mlp.router.e_score_correction_bias",
    dense: DENSE,
    parallel: DENSE,
    ..TensorNames::LLAMA
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    config.choice("attention_method", &["MLA"])?;
    config.choice("hidden_act", &["silu"])?;
    config.unsupported("router_bias", &false.into())?;
    let num_stored = config.usize("num_layers", limits::LAYERS / NAMES.sub_layers)?;
    let attention = attention(config)?;
    let dense = common::silu(config.usize("ffn_hidden_size", limits::INTERMEDIATE_SIZE)?);
    let expert = common::silu(config.usize("expert_ffn_hidden_size", limits::INTERMEDIATE_SIZE)?);
    let first = BlockSpec::Parallel(ParallelSpec {
        dense,
        moe: MoeSpec { router: router(config)?, expert, shared: None, output_bias: false },
        inputs: ParallelInputs::Same,
        post_norms: false,
        deferred: true,
    });
    let norm = common::rms_norm(config, &DEFAULTS)?;
    let layer = |ffn: &BlockSpec| common::pre_norm(norm, attention.clone(), ffn.clone());
    let layers = (0..num_stored).flat_map(|_| [layer(&first), layer(&BlockSpec::Mlp(dense))]).collect();
    let model = common::model_of(config, LONGCAT_FLASH.name, &DEFAULTS, layers)?;
    Ok(ModelSpec { names: NAMES, ..model })
}

/// Softmax over all experts, those without weights among them, and a bias for choosing.
fn router(config: &ConfigJson) -> Result<RouterSpec> {
    let num_weighted = config.usize("n_routed_experts", limits::EXPERTS)?;
    let identity_experts = config.count_or("zero_expert_num", 0, limits::EXPERTS - num_weighted)?;
    if identity_experts > 0 {
        config.choice("zero_expert_type", &["identity"])?;
    }
    let num_experts = num_weighted + identity_experts;
    common::check_all_experts(config, "n_routed_experts", num_experts, "num_layers")?;
    let num_experts_per_tok = config.usize("moe_topk", limits::EXPERTS)?;
    if num_experts_per_tok > num_experts {
        let expected = format!("at most the number of experts, n_routed_experts and zero_expert_num ({num_experts})");
        return Err(config.invalid_value("moe_topk", expected, num_experts_per_tok.to_string()));
    }
    let router = RouterSpec { identity_experts, selection_bias: true, ..RouterSpec::new(num_experts, num_experts_per_tok) };
    common::normalize(config, router, false)
}

/// That of DeepSeek, where query and latent may be scaled to the size that they would have at full width.
fn attention(config: &ConfigJson) -> Result<LatentSpec> {
    let mut attention = latent_attention(config, &DEFAULTS)?;
    let hidden_size = common::hidden_size(config)? as f64;
    let scales_query = config.bool_or("mla_scale_q_lora", true)?;
    if let Some(rank) = attention.query_rank.filter(|_| scales_query) {
        // Of a product of two, scaling one scales the product.
        attention.scale = (f64::from(attention.scale) * (hidden_size / rank as f64).sqrt()) as f32;
    }
    if config.bool_or("mla_scale_kv_lora", true)? {
        attention.latent_scale = (hidden_size / attention.latent_dim as f64).sqrt() as f32;
    }
    Ok(attention)
}
