//! One file per architecture: from its `config.json` to a [`ModelSpec`].
//!
//! To add one: a file here that holds its `Arch`, and one line in [`ARCHS`].

mod afmoe;
mod arctic;
mod bailing_moe;
mod common;
mod dbrx;
mod deepseek;
mod deepseek_v2;
mod deepseek_v3;
mod dots1;
mod ernie4_5_moe;
mod exaone_moe;
mod flex_olmo;
mod foreign;
mod gemma4_moe;
mod glm4_moe;
mod glm4_moe_lite;
mod gpt_oss;
mod granitemoe;
mod granitemoehybrid;
mod grok1;
mod hunyuan_v1_moe;
mod hy_v3;
mod jamba;
mod jetmoe;
mod kimi_linear;
mod latent;
mod lfm2_moe;
mod llama;
mod llama4;
mod llama_moe;
mod longcat_flash;
mod mellum;
mod mimo_v2_flash;
mod minimax;
mod minimax_m2;
mod mixtral;
mod nemotron_h;
mod olmoe;
mod phimoe;
mod qwen2_moe;
mod qwen3;
mod qwen3_moe;
mod qwen3_next;
mod qwen3_vl_moe;
mod solar_open;
mod yuan;

use super::{ConfigJson, ModelSpec};
use crate::Result;

/// One entry of [`ARCHS`].
#[derive(Debug)]
pub struct Arch {
    /// Becomes [`ModelSpec::family`].
    pub name: &'static str,
    /// The values of `model_type` that it reads.
    pub model_types: &'static [&'static str],
    /// Published models that it runs.
    pub covers: &'static str,
    /// Reads and validates the whole of `config.json`.
    pub parse: fn(&ConfigJson) -> Result<ModelSpec>,
}

/// Every architecture.
pub static ARCHS: &[&Arch] = &[
    &mixtral::MIXTRAL,
    &qwen2_moe::QWEN2_MOE,
    &qwen3_moe::QWEN3_MOE,
    &olmoe::OLMOE,
    &flex_olmo::FLEX_OLMO,
    &granitemoe::GRANITEMOE,
    &granitemoehybrid::GRANITEMOEHYBRID,
    &phimoe::PHIMOE,
    &dbrx::DBRX,
    &gpt_oss::GPT_OSS,
    &llama4::LLAMA4,
    &deepseek::DEEPSEEK,
    &deepseek_v2::DEEPSEEK_V2,
    &deepseek_v3::DEEPSEEK_V3,
    &glm4_moe::GLM4_MOE,
    &glm4_moe_lite::GLM4_MOE_LITE,
    &minimax_m2::MINIMAX_M2,
    &ernie4_5_moe::ERNIE4_5_MOE,
    &hunyuan_v1_moe::HUNYUAN_V1_MOE,
    &dots1::DOTS1,
    &bailing_moe::BAILING_MOE,
    &afmoe::AFMOE,
    &arctic::ARCTIC,
    &mimo_v2_flash::MIMO_V2_FLASH,
    &llama_moe::LLAMA_MOE,
    &grok1::GROK1,
    &longcat_flash::LONGCAT_FLASH,
    &gemma4_moe::GEMMA4_MOE,
    &jetmoe::JETMOE,
    &yuan::YUAN,
    &solar_open::SOLAR_OPEN,
    &exaone_moe::EXAONE_MOE,
    &mellum::MELLUM,
    &hy_v3::HY_V3,
    &qwen3_vl_moe::QWEN3_VL_MOE,
    &lfm2_moe::LFM2_MOE,
    &nemotron_h::NEMOTRON_H,
    &qwen3_next::QWEN3_NEXT,
    &qwen3_next::QWEN3_5_MOE,
    &kimi_linear::KIMI_LINEAR,
    &minimax::MINIMAX,
    &jamba::JAMBA,
    &llama::LLAMA,
    &qwen3::QWEN3,
];

/// The largest values that are believed. They are a few times those of the largest published model, and small enough that
/// no count of parameters or bytes made from them leaves 63 bits, and that no list of tensors made from them fills a memory.
mod limits {
    pub const VOCAB_SIZE: usize = 1 << 22;
    pub const HIDDEN_SIZE: usize = 1 << 17;
    pub const INTERMEDIATE_SIZE: usize = 1 << 20;
    pub const POSITIONS: usize = (1 << 31) - 1;
    pub const LAYERS: usize = 1024;
    pub const HEADS: usize = 1024;
    pub const HEAD_DIM: usize = 1024;
    /// Positions of a short convolution: a kernel keeps so many per slot of its state.
    pub const CONVOLUTION: usize = 8;
    /// Rows and columns of the state of a head: an invocation keeps a part of a column in registers.
    pub const STATE_DIM: usize = 256;
    /// The router keeps logits, selection and chosen scores of all experts in 16 KiB of workgroup memory.
    pub const EXPERTS: usize = 1024;
    pub const SHARED_EXPERTS: usize = 64;
    /// Experts of all layers together.
    pub const ALL_EXPERTS: usize = 1 << 17;
}

/// The key of `config.json` that says that layers and experts of the checkpoint may stay unused.
pub const CUT_ON_PURPOSE: &str = "allow_unused_weights";

impl ModelSpec {
    /// Reads the text of a `config.json` by the architecture that its `model_type` names; `file` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Json`](crate::Error::Json), [`Error::Config`](crate::Error::Config) or
    /// [`Error::ForeignQuantization`](crate::Error::ForeignQuantization), or one of
    /// [`Error::UnknownArchitecture`](crate::Error::UnknownArchitecture), [`Error::Dense`](crate::Error::Dense) and
    /// [`Error::NotYet`](crate::Error::NotYet). Never panics, whatever the text.
    pub fn parse(text: &str, file: &str) -> Result<ModelSpec> {
        let config = ConfigJson::parse(text, file)?;
        let model_type = config.str("model_type")?;
        let Some(arch) = ARCHS.iter().find(|arch| arch.model_types.contains(&model_type)) else {
            return Err(foreign::unknown(model_type, ARCHS.iter().flat_map(|arch| arch.model_types).copied().collect()));
        };
        foreign::check_quantization(&config)?;
        let mut spec = (arch.parse)(&config)?;
        common::check_score_function(&config, &spec)?;
        spec.names.float8_block = common::float8_block(&config)?;
        spec.may_be_cut = config.bool_or(CUT_ON_PURPOSE, false)?;
        Ok(spec)
    }
}
