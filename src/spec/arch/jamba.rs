//! Jamba: Lieber et al. 2024, arXiv 2403.19887. Defaults are those of `JambaConfig` in transformers. Its state-space layers can be counted,
//! not run.

use super::common::{self, Defaults};
use super::{Arch, limits};
use crate::Result;
use crate::gating::RouterSpec;
use crate::spec::{BlockSpec, ConfigJson, MambaSpec, ModelSpec, MoeSpec};

pub(super) static JAMBA: Arch = Arch {
    name: "jamba",
    model_types: &["jamba"],
    covers: "Jamba v0.1, 1.5 Mini and 1.5 Large: counted by `inspect`, not run yet",
    parse,
};

const DEFAULTS: Defaults = Defaults { max_positions: 262_144, ..Defaults::LLAMA };

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    let is_attention = every(config, "attn_layer_period", "attn_layer_offset", (8, 4))?;
    let is_sparse = every(config, "expert_layer_period", "expert_layer_offset", (2, 1))?;
    let attention = common::heads(config)?;
    let mamba = mamba(config)?;
    let mlp = common::silu_mlp(config, "intermediate_size")?;
    let router: RouterSpec = common::router(config, "num_experts", ("num_experts_per_tok", Some(2)))?;
    let moe = MoeSpec { router, expert: mlp, shared: None, output_bias: false };
    common::model(config, JAMBA.name, &DEFAULTS, |layer| {
        let mixer = if is_attention(layer) { BlockSpec::Attention(attention.clone()) } else { BlockSpec::Mamba(mamba) };
        Ok((mixer, if is_sparse(layer) { BlockSpec::Experts(moe.clone()) } else { BlockSpec::Mlp(mlp) }))
    })
}

/// One layer of each period, the one at the offset.
fn every(config: &ConfigJson, period: &str, offset: &str, defaults: (usize, usize)) -> Result<impl Fn(usize) -> bool + use<>> {
    let step = config.usize_or(period, defaults.0, limits::LAYERS)?;
    let first = config.count_or(offset, defaults.1, step - 1)?;
    Ok(move |layer: usize| layer % step == first)
}

fn mamba(config: &ConfigJson) -> Result<MambaSpec> {
    let hidden_size = common::hidden_size(config)?;
    let step_rank = match config.has("mamba_dt_rank") && config.str("mamba_dt_rank").is_ok_and(|rank| rank == "auto") {
        true => hidden_size.div_ceil(16),
        false => config.usize_or("mamba_dt_rank", hidden_size.div_ceil(16), limits::HIDDEN_SIZE)?,
    };
    Ok(MambaSpec {
        inner_size: hidden_size * config.usize_or("mamba_expand", 2, 16)?,
        state_size: config.usize_or("mamba_d_state", 16, limits::HEAD_DIM)?,
        conv_len: config.usize_or("mamba_d_conv", 4, limits::HEAD_DIM)?,
        step_rank,
        conv_bias: config.bool_or("mamba_conv_bias", true)?,
        proj_bias: config.bool_or("mamba_proj_bias", false)?,
        inner_norms: true,
    })
}
