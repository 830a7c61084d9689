//! Blocks of 32 floats of 4 bits (E2M1) times a power of two (E8M0): the MXFP4 of gpt-oss, kept bit for bit. The scales of four blocks
//! share a `u32`.
//!
//! Source: OCP Microscaling Formats (MX) Specification v1.0, section 5.3.3.

use super::{BLOCK, MaxError, PackedRow, Planes, QuantFormat, extreme, nibbles, push_nibbles};

pub static MXFP4: QuantFormat = QuantFormat {
    name: "mxfp4",
    flag: "WEIGHT_MXFP4",
    value_bits: 4,
    high_bits: 0,
    scale_bits: 8,
    block_len: BLOCK,
    group_len: BLOCK,
    has_offset: false,
    keeps_head: false,
    // Halfway between 4 and 6, where 5 is the largest.
    max_error: MaxError::OfBlock(0.201),
    pack_row,
    unpack_row,
};

/// Magnitudes by the lower three bits, doubled to be integers.
const DOUBLED: [u8; 8] = [0, 1, 2, 3, 4, 6, 8, 12];

/// Half of the power of two that a stored exponent stands for.
fn half_scale(exponent: u8) -> f32 {
    f32::from_bits(u32::from(exponent) << 23) * 0.5
}

/// The exponent under which the largest magnitude is at most 6.
fn exponent(largest: f32) -> u8 {
    if largest == 0.0 {
        return 127;
    }
    let floor = largest.log2().floor() as i32 - 2;
    let too_large = largest > 6.0 * (floor as f32).exp2();
    (127 + floor + i32::from(too_large)).clamp(1, 254) as u8
}

/// The nearest code; of two as near, the one with an even last bit.
fn encode(doubled: f32) -> u8 {
    let distance = |code: &u8| (f32::from(DOUBLED[usize::from(*code)]) - doubled.abs()).abs();
    let code = (0..8).min_by(|a, b| distance(a).total_cmp(&distance(b)).then((a & 1).cmp(&(b & 1)))).unwrap_or(0);
    code | if doubled.is_sign_negative() { 8 } else { 0 }
}

fn pack_row(row: &[f32], planes: &mut Planes) {
    for block in row.chunks_exact(BLOCK) {
        let exponent = exponent(extreme(block).abs());
        let scale = half_scale(exponent);
        push_nibbles(&block.iter().map(|&value| encode(value / scale)).collect::<Vec<_>>(), &mut planes.values);
        planes.scales.push(exponent);
    }
}

fn unpack_row(row: &PackedRow, out: &mut Vec<f32>) {
    for (&exponent, block) in row.scales.iter().zip(row.values.chunks_exact(BLOCK / 2)) {
        let scale = half_scale(exponent);
        let value = |code: u8| f32::from(DOUBLED[usize::from(code & 7)]) * if code & 8 == 0 { scale } else { -scale };
        out.extend(nibbles(block).map(value));
    }
}
