//! Llama: Touvron et al. 2023, arXiv 2302.13971, dense: a baseline for experts, and what many small models are. Defaults are those of
//! `LlamaConfig` in transformers.

use super::Arch;
use super::common::{self, Defaults};
use crate::Result;
use crate::spec::{AttentionSpec, BlockSpec, ConfigJson, ModelSpec};

pub(super) static LLAMA: Arch =
    Arch { name: "llama", model_types: &["llama"], covers: "Llama 1 to 3.3, SmolLM, SmolLM2, TinyLlama, all dense", parse };

const DEFAULTS: Defaults = Defaults::LLAMA;

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    config.unsupported("mlp_bias", &false.into())?;
    let bias = config.bool_or("attention_bias", false)?;
    let attention = AttentionSpec { qkv_bias: bias, output_bias: bias, ..common::attention(config, &DEFAULTS)? };
    let mlp = common::silu_mlp(config, "intermediate_size")?;
    common::model(config, LLAMA.name, &DEFAULTS, |_| Ok((attention.clone(), BlockSpec::Mlp(mlp))))
}
