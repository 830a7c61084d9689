//! Qwen3-VL with experts: Qwen Team 2025, arXiv 2511.21631. Defaults are those of `Qwen3VLMoeTextConfig` in transformers; text only, of which
//! the three positions of a token are the same, and the rotary embedding an ordinary one.

use super::Arch;
use super::common::{self, Defaults};
use crate::Result;
use crate::gating::{Normalize, RouterSpec};
use crate::spec::{ConfigJson, ExpertStorage, ModelSpec, MoeSpec, QkvStorage, TensorNames};

pub(super) static QWEN3_VL_MOE: Arch =
    Arch { name: "qwen3_vl_moe", model_types: &["qwen3_vl_moe"], covers: "Qwen3-VL-30B-A3B and 235B-A22B, text only", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 128_000, rope_theta: 500_000.0, ..Defaults::LLAMA };

/// The head stands outside of the language model.
const NAMES: TensorNames = TensorNames {
    embedding: "model.language_model.embed_tokens.weight",
    final_norm: "model.language_model.norm.weight",
    attention_norm: "model.language_model.layers.{l}.input_layernorm.weight",
    qkv: QkvStorage::Separate {
        query: "model.language_model.layers.{l}.self_attn.q_proj.weight",
        key: "model.language_model.layers.{l}.self_attn.k_proj.weight",
        value: "model.language_model.layers.{l}.self_attn.v_proj.weight",
    },
    query_norm: "model.language_model.layers.{l}.self_attn.q_norm.weight",
    key_norm: "model.language_model.layers.{l}.self_attn.k_norm.weight",
    attention_output: "model.language_model.layers.{l}.self_attn.o_proj.weight",
    ffn_norm: "model.language_model.layers.{l}.post_attention_layernorm.weight",
    router: "model.language_model.layers.{l}.mlp.gate.weight",
    experts: ExpertStorage::Transposed {
        gate_up: "model.language_model.layers.{l}.mlp.experts.gate_up_proj",
        down: "model.language_model.layers.{l}.mlp.experts.down_proj",
        interleaved: false,
    },
    dense: ExpertStorage::Each {
        gate: "model.language_model.layers.{l}.mlp.gate_proj.weight",
        up: "model.language_model.layers.{l}.mlp.up_proj.weight",
        down: "model.language_model.layers.{l}.mlp.down_proj.weight",
    },
    ..TensorNames::LLAMA
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    let tied_embeddings = config.bool_or("tie_word_embeddings", false)?;
    let config = &config.section("text_config")?.ok_or_else(|| config.invalid("text_config", "an object"))?;
    let attention = common::head_normed_attention(config, &DEFAULTS)?;
    let experts = if config.has("num_experts") { "num_experts" } else { "num_local_experts" };
    let router = common::router(config, experts, ("num_experts_per_tok", Some(4)))?;
    let moe = MoeSpec {
        router: RouterSpec { normalize: Normalize::Sum { floor: 1e-20 }, ..router },
        expert: common::silu_mlp(config, "moe_intermediate_size")?,
        shared: None,
        output_bias: false,
    };
    let is_sparse = common::sparse_step(config)?;
    let model = common::model(config, QWEN3_VL_MOE.name, &DEFAULTS, |layer| {
        Ok((attention.clone(), common::sparse_or_dense(config, is_sparse(layer), &moe)?))
    })?;
    Ok(ModelSpec { names: NAMES, tied_embeddings, ..model })
}
