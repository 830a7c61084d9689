//! Mixtral: Jiang et al. 2024, arXiv 2401.04088. Defaults are those of `MixtralConfig` in transformers.

use super::common::{self, Defaults};
use super::{Arch, limits};
use crate::Result;
use crate::gating::{Normalize, RouterSpec};
use crate::spec::{BlockSpec, ConfigJson, ExpertStorage, Mask, ModelSpec, MoeSpec, TensorNames};

pub(super) static MIXTRAL: Arch = Arch {
    name: "mixtral",
    model_types: &["mixtral"],
    covers: "Mixtral 8x7B and 8x22B, WizardLM-2 8x22B, Nous-Hermes-2 Mixtral, Dolphin Mixtral",
    parse,
};

const DEFAULTS: Defaults = Defaults { max_positions: 131_072, rms_norm_eps: 1e-5, rope_theta: 1e6, ..Defaults::LLAMA };

pub(super) const NAMES: TensorNames = TensorNames {
    router: "model.layers.{l}.block_sparse_moe.gate.weight",
    experts: ExpertStorage::Each {
        gate: "model.layers.{l}.block_sparse_moe.experts.{e}.w1.weight",
        up: "model.layers.{l}.block_sparse_moe.experts.{e}.w3.weight",
        down: "model.layers.{l}.block_sparse_moe.experts.{e}.w2.weight",
    },
    ..TensorNames::LLAMA
};

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    let mut attention = common::attention(config, &DEFAULTS)?;
    attention.mask = config.opt_usize("sliding_window", limits::POSITIONS)?.map_or(Mask::Causal, Mask::Window);
    let router = RouterSpec {
        normalize: Normalize::Sum { floor: 0.0 },
        ..common::router(config, "num_local_experts", ("num_experts_per_tok", Some(2)))?
    };
    let moe = MoeSpec { router, expert: common::silu_mlp(config, "intermediate_size")?, shared: None, output_bias: false };
    let model = common::model(config, MIXTRAL.name, &DEFAULTS, |_| Ok((attention.clone(), BlockSpec::Experts(moe.clone()))))?;
    Ok(ModelSpec { names: NAMES, ..model })
}
