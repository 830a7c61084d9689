//! Mixtral: Jiang et al. 2024, arXiv 2401.04088. Defaults are those of `MixtralConfig` in transformers.

use super::{Arch, limits};
use crate::Result;
use crate::gating::{RouterSpec, ScoreFunction};
use crate::spec::{
    Activation, AttentionSpec, ConfigJson, Ffn, LayerSpec, Mask, Mixer, MlpSpec, ModelSpec, MoeSpec, RopeSpec, TensorNames,
};

pub(super) static MIXTRAL: Arch = Arch {
    name: "mixtral",
    model_types: &["mixtral"],
    covers: "Mixtral 8x7B and 8x22B, WizardLM-2 8x22B, Nous-Hermes-2 Mixtral, Dolphin Mixtral",
    parse,
};

const NAMES: TensorNames = TensorNames {
    embedding: "model.embed_tokens.weight",
    final_norm: "model.norm.weight",
    head: "lm_head.weight",
    attention_norm: "model.layers.{l}.input_layernorm.weight",
    query: "model.layers.{l}.self_attn.q_proj.weight",
    key: "model.layers.{l}.self_attn.k_proj.weight",
    value: "model.layers.{l}.self_attn.v_proj.weight",
    attention_output: "model.layers.{l}.self_attn.o_proj.weight",
    ffn_norm: "model.layers.{l}.post_attention_layernorm.weight",
    router: "model.layers.{l}.block_sparse_moe.gate.weight",
    expert_gate: "model.layers.{l}.block_sparse_moe.experts.{e}.w1.weight",
    expert_up: "model.layers.{l}.block_sparse_moe.experts.{e}.w3.weight",
    expert_down: "model.layers.{l}.block_sparse_moe.experts.{e}.w2.weight",
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    let hidden_size = config.usize("hidden_size", limits::HIDDEN_SIZE)?;
    let num_layers = config.usize("num_hidden_layers", limits::LAYERS)?;
    let layer = LayerSpec {
        mixer: Mixer::Attention(attention(config, hidden_size)?),
        ffn: Ffn::Moe(MoeSpec { router: router(config, num_layers)?, expert: expert(config)? }),
    };
    Ok(ModelSpec {
        family: MIXTRAL.name,
        vocab_size: config.usize("vocab_size", limits::VOCAB_SIZE)?,
        hidden_size,
        max_positions: config.usize_or("max_position_embeddings", 131_072, limits::POSITIONS)?,
        norm_eps: config.f64_or("rms_norm_eps", 1e-5, 1e-30..=1.0)? as f32,
        tied_embeddings: config.bool_or("tie_word_embeddings", false)?,
        layers: vec![layer; num_layers],
        names: NAMES,
    })
}

fn attention(config: &ConfigJson, hidden_size: usize) -> Result<AttentionSpec> {
    let num_heads = config.usize("num_attention_heads", limits::HEADS)?;
    let num_kv_heads = config.usize_or("num_key_value_heads", num_heads, limits::HEADS)?;
    if !num_heads.is_multiple_of(num_kv_heads) {
        let expected = format!("a multiple of num_key_value_heads ({num_kv_heads})");
        return Err(config.invalid("num_attention_heads", expected));
    }
    let head_dim = match config.opt_usize("head_dim", limits::HEAD_DIM)? {
        Some(head_dim) => head_dim,
        None if hidden_size.is_multiple_of(num_heads) => hidden_size / num_heads,
        None => {
            let expected = format!("a multiple of num_attention_heads ({num_heads}) where head_dim is absent");
            return Err(config.invalid("hidden_size", expected));
        }
    };
    if !head_dim.is_multiple_of(4) || head_dim > limits::HEAD_DIM {
        let expected = format!(
            "even, because rotary positions turn pairs, and a multiple of 4, because kernels read four values at once, at most {}",
            limits::HEAD_DIM
        );
        return Err(config.invalid_value("head_dim", expected, head_dim.to_string()));
    }
    Ok(AttentionSpec {
        num_heads,
        num_kv_heads,
        head_dim,
        scale: (head_dim as f32).sqrt().recip(),
        rope: RopeSpec { theta: config.rope_theta(1e6)? },
        mask: config.opt_usize("sliding_window", limits::POSITIONS)?.map_or(Mask::Causal, Mask::Window),
    })
}

fn router(config: &ConfigJson, num_layers: usize) -> Result<RouterSpec> {
    let num_experts = config.usize("num_local_experts", limits::EXPERTS)?;
    if num_experts * num_layers > limits::ALL_EXPERTS {
        let expected = format!("at most {} over all {num_layers} layers", limits::ALL_EXPERTS);
        return Err(config.invalid("num_local_experts", expected));
    }
    let num_experts_per_tok = config.usize_or("num_experts_per_tok", 2, limits::EXPERTS)?;
    if num_experts_per_tok > num_experts {
        return Err(config.invalid_value(
            "num_experts_per_tok",
            format!("at most num_local_experts ({num_experts})"),
            num_experts_per_tok.to_string(),
        ));
    }
    Ok(RouterSpec { num_experts, num_experts_per_tok, scores: ScoreFunction::Softmax, renormalize: true })
}

fn expert(config: &ConfigJson) -> Result<MlpSpec> {
    if config.str_or("hidden_act", "silu")? != "silu" {
        return Err(config.invalid("hidden_act", "`silu`"));
    }
    Ok(MlpSpec { intermediate_size: config.usize("intermediate_size", limits::INTERMEDIATE_SIZE)?, activation: Activation::Silu })
}
