//! FlexOlmo: Shi et al. 2025, arXiv 2507.07024. Defaults are those of `FlexOlmoConfig` in transformers.

use super::common::{self, Defaults};
use super::{Arch, olmoe};
use crate::Result;
use crate::spec::{BlockSpec, ConfigJson, ModelSpec, Residual};

pub(super) static FLEX_OLMO: Arch = Arch { name: "flex_olmo", model_types: &["flex_olmo"], covers: "FlexOlmo-7x7B-1T", parse };

const DEFAULTS: Defaults = Defaults { max_positions: 4096, rope_theta: 500_000.0, ..Defaults::LLAMA };

fn parse(config: &ConfigJson) -> Result<ModelSpec> {
    let (attention, moe) = olmoe::block(config, &DEFAULTS, 5)?;
    let mut model =
        common::model(config, FLEX_OLMO.name, &DEFAULTS, |_| Ok((attention.clone(), BlockSpec::Experts(moe.clone()))))?;
    model.layers.iter_mut().for_each(|layer| layer.residual = Residual::Post);
    Ok(model)
}
