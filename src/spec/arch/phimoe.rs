//! Phi-3.5-MoE: Abdin et al. 2024, arXiv 2404.14219. Defaults are those of `PhimoeConfig` in transformers.

use super::common::{self, Defaults};
use super::{Arch, limits, mixtral};
use crate::Result;
use crate::gating::{RouterMethod, RouterSpec};
use crate::spec::{AttentionSpec, BlockSpec, ConfigJson, Mask, ModelSpec, MoeSpec, NormKind, NormSpec};

pub(super) static PHIMOE: Arch =
    Arch { name: "phimoe", model_types: &["phimoe"], covers: "Phi-3.5-MoE, Phi-mini-MoE, Phi-tiny-MoE", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 131_072, rms_norm_eps: 1e-5, rope_theta: 1e6, ..Defaults::LLAMA };

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    let bias = config.bool_or("attention_bias", false)?;
    let attention = AttentionSpec {
        qkv_bias: bias,
        output_bias: bias,
        mask: config.opt_usize("sliding_window", limits::POSITIONS)?.map_or(Mask::Causal, Mask::Window),
        ..common::attention(config, &DEFAULTS)?
    };
    let router = common::router(config, "num_local_experts", ("num_experts_per_tok", Some(2)))?;
    if router.num_experts_per_tok != 2 {
        return Err(config.invalid("num_experts_per_tok", "2: the router has two rounds"));
    }
    // Jitter in name, and in training; here it is the threshold of the router.
    let jitter = config.f64_or("router_jitter_noise", 0.01, 0.0..=1.0)? as f32;
    let moe = MoeSpec {
        router: RouterSpec { method: RouterMethod::SparseMixer { jitter }, ..router },
        expert: common::silu_mlp(config, "intermediate_size")?,
        shared: None,
        output_bias: false,
    };
    let mut model = common::model(config, PHIMOE.name, &DEFAULTS, |_| Ok((attention.clone(), BlockSpec::Experts(moe.clone()))))?;
    let norm = NormSpec { kind: NormKind::Layer, bias: true, ..model.final_norm };
    model.layers.iter_mut().for_each(|layer| layer.norm = norm);
    let head_bias = config.bool_or("lm_head_bias", false)?;
    Ok(ModelSpec { final_norm: norm, head_bias, names: mixtral::NAMES, ..model })
}
