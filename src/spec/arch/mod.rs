//! One file per architecture: from its `config.json` to a [`ModelSpec`].
//!
//! To add one: a file here that holds its `Arch`, and one line in [`ARCHS`].

mod mixtral;

use super::{ConfigJson, ModelSpec};
use crate::{Error, Result};

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
pub static ARCHS: &[&Arch] = &[&mixtral::MIXTRAL];

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
    pub const EXPERTS: usize = 4096;
    /// Experts of all layers together.
    pub const ALL_EXPERTS: usize = 1 << 17;
}

impl ModelSpec {
    /// Reads the text of a `config.json` by the architecture that its `model_type` names; `file` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::Config`] or [`Error::UnknownArchitecture`]. Never panics, whatever the text.
    pub fn parse(text: &str, file: &str) -> Result<ModelSpec> {
        let config = ConfigJson::parse(text, file)?;
        let model_type = config.str("model_type")?;
        match ARCHS.iter().find(|arch| arch.model_types.contains(&model_type)) {
            Some(arch) => (arch.parse)(&config),
            None => Err(Error::UnknownArchitecture {
                model_type: model_type.to_owned(),
                known: ARCHS.iter().flat_map(|arch| arch.model_types).copied().collect(),
            }),
        }
    }
}
