//! Qwen3, dense: Qwen Team 2025, arXiv 2505.09388. Defaults are those of `Qwen3Config` in transformers.

use super::Arch;
use super::common::{self, Defaults};
use crate::Result;
use crate::spec::{AttentionSpec, BlockSpec, ConfigJson, Mask, ModelSpec};

pub(super) static QWEN3: Arch = Arch { name: "qwen3", model_types: &["qwen3"], covers: "Qwen3 0.6B to 32B, all dense", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 32_768, ..Defaults::LLAMA };
const LAYER_TYPES: &[&str] = &["sliding_attention", "full_attention"];

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    let window = common::late_window(config)?;
    let kinds = common::layer_kinds(config, "layer_types", LAYER_TYPES)?;
    let attention = common::head_normed_attention(config, &DEFAULTS)?;
    let mlp = common::silu_mlp(config, "intermediate_size")?;
    common::model(config, QWEN3.name, &DEFAULTS, |layer| {
        let mask = match window {
            Some((window, first)) => {
                let is_windowed = kinds.as_ref().map_or(layer >= first, |kinds| kinds[layer] == LAYER_TYPES[0]);
                if is_windowed { Mask::Window(window) } else { Mask::Causal }
            }
            None => Mask::Causal,
        };
        Ok((AttentionSpec { mask, ..attention.clone() }, BlockSpec::Mlp(mlp)))
    })
}
