//! What a model takes with a `--quant` that is more than one format for all matrices, and the format of its KV cache.

use moebius::Result;
use moebius::checkpoint::{ModelFiles, Synthetic, WeightStore};
use moebius::model::{cache_format, footprint};
use moebius::quant::{CacheChoice, CacheFormat, QuantChoice, QuantFormat};
use moebius::spec::ModelSpec;

/// Bytes of weights under a choice of formats.
pub struct Chosen {
    /// As written on the command line.
    pub name: String,
    pub weight_bytes: u64,
    /// Those that a decode step reads.
    pub active_weight_bytes: u64,
}

/// What the model takes under a choice of formats, and which one its KV cache takes. Weights whose class is not named are as they are stored
/// in `files`; where there are none, in 16 bits.
pub async fn weigh(
    (quant, cache): (QuantChoice, CacheChoice),
    files: Option<&ModelFiles>,
    spec: &ModelSpec,
) -> Result<(Option<Chosen>, CacheFormat)> {
    let checkpoint = match files {
        Some(files) => files.weights().await.ok(),
        None => None,
    };
    let store = checkpoint.map_or_else(|| WeightStore::Synthetic(Synthetic::new(spec)), WeightStore::Checkpoint);
    Ok((Chosen::of(quant, &store, spec)?, cache_format(&store, spec, quant, cache)))
}

impl Chosen {
    /// `None` where the table of formats has it. What is stored in blocks of several types has a row of its own.
    fn of(choice: QuantChoice, store: &WeightStore, spec: &ModelSpec) -> Result<Option<Self>> {
        let in_blocks = matches!(store, WeightStore::Checkpoint(checkpoint) if checkpoint.has_blocks());
        let name = if choice.is_as_stored() { "as in the file".to_owned() } else { choice.to_string() };
        if (choice.is_as_stored() && !in_blocks) || QuantFormat::find(&name).is_some() {
            return Ok(None);
        }
        let (weight_bytes, token) = footprint(store, spec, choice)?;
        Ok(Some(Chosen { name, weight_bytes, active_weight_bytes: token.weight_bytes }))
    }
}
