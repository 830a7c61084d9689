//! JetMoE: Shen et al. 2024, arXiv 2404.07413. Defaults are those of `JetMoeConfig` in transformers.

use super::common::{self, Defaults};
use super::{Arch, limits};
use crate::Result;
use crate::gating::{RouterMethod, RouterSpec};
use crate::spec::{
    AttentionExpertsSpec, AttentionSpec, BlockSpec, ChoiceNames, ConfigJson, ExpertStorage, ModelSpec, MoeSpec, NormSpec,
    QkvStorage, TensorNames,
};

pub(super) static JETMOE: Arch = Arch { name: "jetmoe", model_types: &["jetmoe"], covers: "JetMoE 8B base, SFT and chat", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 4096, tied_embeddings: true, ..Defaults::LLAMA };
/// Of the norms in the layers, whatever `rms_norm_eps` says, which only the last norm reads.
const BLOCK_EPS: f32 = 1e-6;

const NAMES: TensorNames = TensorNames {
    qkv: QkvStorage::Fused("model.layers.{l}.self_attention.kv_proj.weight"),
    choice: ChoiceNames {
        router: "model.layers.{l}.self_attention.experts.router.layer.weight",
        query: "model.layers.{l}.self_attention.experts.input_linear.weight",
        output: "model.layers.{l}.self_attention.experts.output_linear.weight",
    },
    // There is only a bias of that name.
    attention_output: "model.layers.{l}.self_attention.experts.weight",
    router: "model.layers.{l}.mlp.router.layer.weight",
    experts: ExpertStorage::Stacked {
        gate_up: "model.layers.{l}.mlp.input_linear.weight",
        down: "model.layers.{l}.mlp.output_linear.weight",
    },
    ffn_bias: "model.layers.{l}.mlp.bias",
    ..TensorNames::LLAMA
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    config.choice("activation_function", &["silu"])?;
    let router = common::router(config, "num_local_experts", ("num_experts_per_tok", Some(2)))?;
    let router = RouterSpec { method: RouterMethod::SoftmaxOfTopK, ..router };
    let attention = attention(config, &router)?;
    let expert = common::silu(config.usize_or("intermediate_size", 5632, limits::INTERMEDIATE_SIZE)?);
    let moe = MoeSpec { router, expert, shared: None, output_bias: true };
    let mut model = common::model(config, JETMOE.name, &DEFAULTS, |_| Ok((attention.clone(), BlockSpec::Experts(moe.clone()))))?;
    for layer in &mut model.layers {
        layer.norm = NormSpec::rms(BLOCK_EPS);
    }
    Ok(ModelSpec { names: NAMES, ..model })
}

/// As many groups of query heads as a token chooses, each as many as there are key heads.
fn attention(config: &ConfigJson, router: &RouterSpec) -> Result<AttentionExpertsSpec> {
    let num_kv_heads = config.usize_or("num_key_value_heads", 16, limits::HEADS)?;
    let num_heads = num_kv_heads * router.num_experts_per_tok;
    if num_heads > limits::HEADS {
        let expected = format!("at most {} times num_experts_per_tok ({})", limits::HEADS, router.num_experts_per_tok);
        return Err(config.invalid("num_key_value_heads", expected));
    }
    let head_dim = config.usize_or("kv_channels", 128, limits::HEAD_DIM)?;
    common::check_head_dim(config, "kv_channels", head_dim)?;
    let heads = AttentionSpec {
        rope: Some(common::rope(config, head_dim, &DEFAULTS)?),
        output_bias: true,
        ..AttentionSpec::new(num_heads, num_kv_heads, head_dim)
    };
    Ok(AttentionExpertsSpec { heads, router: router.clone() })
}
