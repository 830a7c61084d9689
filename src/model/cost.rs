//! What one token takes, from shapes and formats alone.

use super::formats::Formats;
use crate::checkpoint::WeightStore;
use crate::error::Result;
use crate::quant::QuantChoice;
use crate::spec::{ModelSpec, Role, WeightKey};

/// Bytes of all weights on a device, and what one token takes, without a device.
///
/// # Errors
/// As [`QuantChoice::for_tied_embeddings`].
pub fn footprint(source: &WeightStore, spec: &ModelSpec, quant: QuantChoice) -> Result<(u64, TokenCost)> {
    let formats = Formats::of_model(source, spec, quant)?;
    Ok((formats.total_bytes(spec), TokenCost::of(&formats, spec)))
}

/// Names of the formats that the matrices take under a choice, that of the most bytes first, and the bytes of all weights.
///
/// # Errors
/// As [`footprint`].
pub fn format_names(source: &WeightStore, spec: &ModelSpec, quant: QuantChoice) -> Result<(Vec<&'static str>, u64)> {
    let formats = Formats::of_model(source, spec, quant)?;
    Ok((formats.names(spec), formats.total_bytes(spec)))
}

/// Bytes that one expert takes on a device, for each layer with a router: its matrices and their biases.
///
/// # Errors
/// As [`footprint`].
pub fn expert_bytes(source: &WeightStore, spec: &ModelSpec, quant: QuantChoice) -> Result<Vec<u64>> {
    let formats = Formats::of_model(source, spec, quant)?;
    Ok(spec.moe_layers().map(|(layer, _)| formats.expert_bytes(spec, layer)).collect())
}

/// Work of one token, attention over earlier tokens apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenCost {
    /// Bytes of the weights that a decode step reads: all but the experts that are not chosen and the embedding of other tokens.
    pub weight_bytes: u64,
    /// Bytes of a state that does not grow with the text, read and written.
    pub state_bytes: u64,
    /// Two per weight of the matrices that a token goes through, the head apart.
    pub flops: u64,
    /// The same for the head, which only the last token of a prompt goes through.
    pub head_flops: u64,
}

impl TokenCost {
    pub(super) fn of(formats: &Formats, spec: &ModelSpec) -> Self {
        let mut cost = TokenCost { state_bytes: 2 * spec.state_bytes(), ..TokenCost::default() };
        for key in WeightKey::all(spec).filter(|&key| is_active(spec, key)) {
            let (rows, cols) = key.shape(spec);
            let bytes: u64 = formats.bytes_of(key, spec).iter().map(|(_, bytes)| bytes).sum();
            let flops = 2 * rows as u64 * cols as u64;
            let row_bytes = bytes / rows as u64;
            match key.role {
                Role::Embedding if spec.tied_embeddings => {
                    cost.weight_bytes += row_bytes + bytes;
                    cost.head_flops += flops;
                }
                Role::Embedding => cost.weight_bytes += row_bytes,
                Role::Head => {
                    cost.weight_bytes += bytes;
                    cost.head_flops += flops;
                }
                _ => {
                    cost.weight_bytes += bytes;
                    // A vector has one row and is added, or multiplied by, once.
                    cost.flops += if rows > 2 { flops } else { 0 };
                }
            }
        }
        cost
    }
}

/// Every expert of a layer has the same shape, so the first ones stand for those that a token chooses.
fn is_active(spec: &ModelSpec, key: WeightKey) -> bool {
    key.expert < key.weight(spec).used()
}
