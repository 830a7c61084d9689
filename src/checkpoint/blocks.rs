//! Blocks of GGUF files in the formats of the device, value by value.

use super::gguf::{BlockType, Codes};
use crate::quant::{GgmlBlocks, Quant, QuantFormat};
use crate::tensor::Dtype;

/// Blocks that one of our formats holds as it is, by the name of their type.
const KEPT: [(&str, GgmlBlocks); 9] = [
    ("Q4_0", GgmlBlocks::Q4_0),
    ("Q4_1", GgmlBlocks::Q4_1),
    ("Q5_0", GgmlBlocks::Q5_0),
    ("Q8_0", GgmlBlocks::Q8_0),
    ("Q4_K", GgmlBlocks::Q4K),
    ("Q5_K", GgmlBlocks::Q5K),
    ("Q6_K", GgmlBlocks::Q6K),
    ("IQ4_NL", GgmlBlocks::Iq4Nl),
    ("MXFP4", GgmlBlocks::Mxfp4),
];

fn kept(block: &BlockType) -> Option<GgmlBlocks> {
    KEPT.iter().find(|(name, _)| *name == block.name).map(|(_, kept)| *kept)
}

/// The narrowest format that holds such blocks exactly.
pub(super) fn held_in(block: &'static BlockType) -> Quant {
    match block.dtype() {
        Some(dtype) => QuantFormat::exact_for(dtype),
        None => kept(block).map_or_else(|| common(&[block]), GgmlBlocks::quant),
    }
}

/// The narrowest format that holds blocks of all these types exactly.
pub(super) fn common(blocks: &[&BlockType]) -> Quant {
    if blocks.iter().any(|block| block.dtype().is_some()) {
        return QuantFormat::exact_for(Dtype::F32);
    }
    QuantFormat::of_codes(blocks.iter().any(|block| block.has_minimum))
}

/// Packs parts whose rows take turns, if `quant` keeps their blocks as they are.
///
/// # Errors
/// As [`pack`], and before it which of the parts.
pub(super) fn pack_turns(
    block: &'static BlockType,
    parts: &[&[u8]],
    cols: usize,
    quant: Quant,
) -> Option<Result<Vec<u8>, (usize, usize)>> {
    let kept = kept(block).filter(|kept| kept.quant() == quant)?;
    let bad = |(part, bytes): (usize, &&[u8])| Some((part, kept.first_not_finite(bytes)?));
    Some(parts.iter().enumerate().find_map(bad).map_or_else(|| Ok(kept.pack(parts, cols)), Err))
}

/// Packs `bytes`, rows of `cols` values in blocks, in `quant`: [`held_in`] or [`common`] of their type.
///
/// # Errors
/// The index of a value that is infinite or not a number.
pub(super) fn pack(block: &'static BlockType, bytes: &[u8], cols: usize, quant: Quant) -> Result<Vec<u8>, usize> {
    if let Some(kept) = kept(block).filter(|kept| kept.quant() == quant) {
        return kept.first_not_finite(bytes).map_or_else(|| Ok(kept.pack(&[bytes], cols)), Err);
    }
    if [false, true].map(QuantFormat::of_codes).contains(&quant) {
        let mut codes = Codes::default();
        block.codes(bytes, &mut codes)?;
        let minima = (quant == QuantFormat::of_codes(true)).then_some(&codes.minimums[..]);
        return Ok(QuantFormat::pack_codes(&codes.codes, &codes.scales, minima, cols));
    }
    let mut values = Vec::new();
    block.widen(bytes, &mut values)?;
    Ok(quant.pack(&values, cols))
}
