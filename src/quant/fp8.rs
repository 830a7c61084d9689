//! Floats of 8 bits (E4M3: four exponent bits, three of the mantissa, no infinity) times one f32 for 128 columns of a row: the block FP8 of
//! DeepSeek-V3, kept bit for bit. A block of 128 rows and columns there is 128 rows here, each with the factor of the block.
//!
//! Source: Micikevicius et al. 2022, arXiv 2209.05433.

use super::{MaxError, PackedRow, Planes, QuantFormat, extreme};
use std::sync::LazyLock;

pub static FP8: QuantFormat = QuantFormat {
    name: "fp8",
    flag: "WEIGHT_FP8",
    value_bits: 8,
    high_bits: 0,
    scale_bits: 32,
    block_len: BLOCK_LEN,
    group_len: BLOCK_LEN,
    has_offset: false,
    keeps_head: false,
    // Between 416 and 448, in a block whose largest takes a factor rounded up.
    max_error: MaxError::OfBlock(3.7e-2),
    pack_row,
    unpack_row,
};

const BLOCK_LEN: usize = 128;
/// The largest value without its factor.
const LARGEST: f32 = 448.0;
/// Exponent of the smallest value with a full mantissa.
const MIN_EXPONENT: i32 = -6;

/// By code; the sign is the highest bit.
static VALUES: LazyLock<[f32; 256]> = LazyLock::new(|| std::array::from_fn(|code| value(code as u8)));

fn value(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let magnitude = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 8.0 * 2f32.powi(MIN_EXPONENT),
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if code & 128 == 0 { magnitude } else { -magnitude }
}

/// The value of a code without its factor; of two codes, 127 and 255, not a number.
pub fn decode_e4m3(code: u8) -> f32 {
    VALUES[usize::from(code)]
}

/// The code nearest to a value of at most 448; of two as near, the one with an even last bit.
fn encode_e4m3(value: f32) -> u8 {
    let magnitude = value.abs().min(LARGEST);
    let exponent = ((magnitude.to_bits() >> 23) as i32 - 127).max(MIN_EXPONENT);
    // 8 to 16 steps of the exponent's eighth, or fewer below the smallest exponent. 16 are 8 of the next.
    let steps = (magnitude / 2f32.powi(exponent - 3)).round_ties_even() as i32;
    let code = ((exponent - MIN_EXPONENT) * 8 + steps) as u8;
    code | if value.is_sign_negative() { 128 } else { 0 }
}

/// The factor under which the largest magnitude is at most 448, rounded up to 16 bits so that every product is exact.
fn scale(largest: f32) -> f32 {
    let scale = (largest / LARGEST).max(f32::MIN_POSITIVE);
    f32::from_bits((scale.to_bits() + 0xffff) & 0xffff_0000)
}

fn pack_row(row: &[f32], planes: &mut Planes) {
    for block in row.chunks(BLOCK_LEN) {
        let scale = scale(extreme(block).abs());
        planes.values.extend(block.iter().map(|&value| encode_e4m3(value / scale)));
        planes.scales.extend(scale.to_le_bytes());
    }
}

/// A row of values without their factors, and the factor of each, of which every block of columns has one.
pub(super) fn pack_row_as_stored(values: &[f32], scales: &[f32], planes: &mut Planes) {
    planes.values.extend(values.iter().map(|&value| encode_e4m3(value)));
    for block in scales.chunks(BLOCK_LEN) {
        debug_assert!(block.iter().all(|scale| *scale == block[0]), "one factor for each block of columns");
        planes.scales.extend(block[0].to_le_bytes());
    }
}

fn unpack_row(row: &PackedRow, out: &mut Vec<f32>) {
    for (scale, block) in row.scales.as_chunks().0.iter().zip(row.values.chunks(BLOCK_LEN)) {
        let scale = f32::from_le_bytes(*scale);
        out.extend(block.iter().map(|&code| decode_e4m3(code) * scale));
    }
}
