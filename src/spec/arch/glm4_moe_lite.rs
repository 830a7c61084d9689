//! GLM-4.7-Flash: GLM-4.5's router with DeepSeek-V3's attention. Defaults are those of `Glm4MoeLiteConfig` in transformers.

use super::common::Defaults;
use super::{Arch, deepseek_v3};
use crate::Result;
use crate::spec::{ConfigJson, ModelSpec};

pub(super) static GLM4_MOE_LITE: Arch =
    Arch { name: "glm4_moe_lite", model_types: &["glm4_moe_lite"], covers: "GLM-4.7-Flash", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 202_752, rms_norm_eps: 1e-5, ..Defaults::LLAMA };

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    deepseek_v3::parse_as(config, GLM4_MOE_LITE.name, &DEFAULTS, 1)
}
