//! DBRX: The Mosaic Research Team 2024, "Introducing DBRX". Defaults are those of `DbrxConfig` in transformers.

use super::common::{self, EPS, FACTOR, THETA};
use super::{Arch, limits};
use crate::Result;
use crate::gating::{Normalize, RouterSpec};
use crate::spec::{
    AttentionSpec, BlockSpec, ConfigJson, ExpertStorage, ModelSpec, MoeSpec, NormKind, NormSpec, QkvStorage, RopePairing,
    RopeScaling, RopeSpec, TensorNames,
};
use serde_json::Value;

pub(super) static DBRX: Arch = Arch { name: "dbrx", model_types: &["dbrx"], covers: "DBRX base and instruct, 132B-A36B", parse };

const NAMES: TensorNames = TensorNames {
    embedding: "transformer.wte.weight",
    final_norm: "transformer.norm_f.weight",
    attention_norm: "transformer.blocks.{l}.norm_attn_norm.norm_1.weight",
    qkv: QkvStorage::Fused("transformer.blocks.{l}.norm_attn_norm.attn.Wqkv.weight"),
    attention_output: "transformer.blocks.{l}.norm_attn_norm.attn.out_proj.weight",
    ffn_norm: "transformer.blocks.{l}.norm_attn_norm.norm_2.weight",
    router: "transformer.blocks.{l}.ffn.router.layer.weight",
    experts: ExpertStorage::RowBlocks {
        gate: "transformer.blocks.{l}.ffn.experts.mlp.w1",
        up: "transformer.blocks.{l}.ffn.experts.mlp.v1",
        down: "transformer.blocks.{l}.ffn.experts.mlp.w2",
    },
    ..TensorNames::LLAMA
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    config.unsupported("rope_scaling", &Value::Null)?;
    let hidden_size = config.usize("d_model", limits::HIDDEN_SIZE)?;
    let num_layers = config.usize("n_layers", limits::LAYERS)?;
    // PyTorch's epsilon: the config has none.
    let norm = NormSpec { kind: NormKind::Layer, eps: config.f64_or("layer_norm_eps", 1e-5, EPS)? as f32, bias: false };
    let layer = common::pre_norm(norm, attention(config, hidden_size)?, BlockSpec::Experts(experts(config)?));
    Ok(ModelSpec {
        may_be_cut: false,
        family: DBRX.name,
        vocab_size: config.usize("vocab_size", limits::VOCAB_SIZE)?,
        hidden_size,
        max_positions: config.usize_or("max_seq_len", 2048, limits::POSITIONS)?,
        final_norm: norm,
        tied_embeddings: config.bool_or("tie_word_embeddings", false)?,
        head_bias: false,
        embedding_scale: 1.0,
        logit_scale: 1.0,
        logit_softcap: None,
        layers: vec![layer; num_layers],
        names: NAMES,
    })
}

fn attention(config: &ConfigJson, hidden_size: usize) -> Result<AttentionSpec> {
    let num_heads = config.usize("n_heads", limits::HEADS)?;
    if !hidden_size.is_multiple_of(num_heads) {
        return Err(config.invalid("d_model", format!("a multiple of n_heads ({num_heads})")));
    }
    let head_dim = hidden_size / num_heads;
    common::check_head_dim(config, "d_model / n_heads", head_dim)?;
    let section = config.section("attn_config")?.ok_or_else(|| config.invalid("attn_config", "an object"))?;
    let num_kv_heads = section.usize_or("kv_n_heads", 1, limits::HEADS)?;
    if !num_heads.is_multiple_of(num_kv_heads) {
        return Err(section.invalid("kv_n_heads", format!("a divisor of n_heads ({num_heads})")));
    }
    let theta = section.f64_or("rope_theta", 10_000.0, THETA)?;
    Ok(AttentionSpec {
        clip: section.opt_f64("clip_qkv", FACTOR)?.map(|clip| clip as f32),
        rope: Some(RopeSpec { theta, dims: head_dim, pairing: RopePairing::Half, scaling: RopeScaling::None }),
        ..AttentionSpec::new(num_heads, num_kv_heads, head_dim)
    })
}

fn experts(config: &ConfigJson) -> Result<MoeSpec> {
    let section = config.section("ffn_config")?.ok_or_else(|| config.invalid("ffn_config", "an object"))?;
    if let Some(activation) = section.section("ffn_act_fn")? {
        activation.choice("name", &["silu"])?;
    }
    let num_experts = section.usize_or("moe_num_experts", 4, limits::EXPERTS)?;
    common::check_all_experts(config, "ffn_config.moe_num_experts", num_experts, "n_layers")?;
    let chosen = section.usize_or("moe_top_k", 1, limits::EXPERTS)?;
    if chosen > num_experts {
        return Err(section.invalid("moe_top_k", format!("at most moe_num_experts ({num_experts})")));
    }
    let normalize = if section.is_null("moe_normalize_expert_weights") {
        Normalize::No
    } else {
        Normalize::Norm { p: section.f64_or("moe_normalize_expert_weights", 1.0, 0.01..=100.0)? as f32 }
    };
    let inner = section.usize_or("ffn_hidden_size", 3584, limits::INTERMEDIATE_SIZE)?;
    Ok(MoeSpec {
        router: RouterSpec { normalize, ..RouterSpec::new(num_experts, chosen) },
        expert: common::silu(inner),
        shared: None,
        output_bias: false,
    })
}
