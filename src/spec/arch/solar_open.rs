//! Solar Open: Upstage 2025. Defaults are those of `SolarOpenConfig` in transformers.

use super::Arch;
use super::common::{self, Defaults};
use crate::Result;
use crate::spec::{AttentionSpec, BlockSpec, ConfigJson, ModelSpec, MoeSpec};

pub(super) static SOLAR_OPEN: Arch =
    Arch { name: "solar_open", model_types: &["solar_open"], covers: "Solar-Open-100B, 102B-A12B", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 131_072, rms_norm_eps: 1e-5, rope_theta: 1e6, ..Defaults::LLAMA };

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    let attention = AttentionSpec { qkv_bias: config.bool_or("attention_bias", false)?, ..common::attention(config, &DEFAULTS)? };
    let router = common::router(config, "n_routed_experts", ("num_experts_per_tok", Some(8)))?;
    let moe = MoeSpec {
        router: common::noaux_tc(config, router, true)?,
        expert: common::silu_mlp(config, "moe_intermediate_size")?,
        shared: common::shared(config, "n_shared_experts", 1, "moe_intermediate_size")?,
        output_bias: false,
    };
    common::model(config, SOLAR_OPEN.name, &DEFAULTS, |_| Ok((attention.clone(), BlockSpec::Experts(moe.clone()))))
}
