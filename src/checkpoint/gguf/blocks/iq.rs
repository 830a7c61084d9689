//! Blocks of 256 values that name rows of four or eight small integers.
//!
//! ggml writes scales as `d (1/2 + s) / 4` and values of IQ1 as `d (2 s + 1) (g + 1/8)`. Here fractions are part of the scale, so that codes
//! are integers. No product has more bits than f32 holds, so it makes no difference.

use super::{f16, grids};
use crate::checkpoint::gguf::block::{Block, GROUP};

/// Values in a row that share a scale in most of these types.
const PART: usize = 32;
/// Of a block.
const PARTS: usize = 8;

/// `d (2 s + 1)`
fn odd_multiple(d: f32, s: u8) -> f32 {
    d * f32::from(2 * s + 1)
}

/// Four bits of number `n`: the lower half of each byte first.
fn nibble(bytes: &[u8], n: usize) -> u8 {
    bytes[n / 2] >> (4 * (n % 2)) & 15
}

/// Scales of 16 values each, of four bits.
fn scales_of_groups(d: f32, bytes: &[u8], block: &mut Block) {
    for (group, scale) in block.scales.iter_mut().enumerate() {
        *scale = odd_multiple(d, nibble(bytes, group));
    }
}

fn set_scale(block: &mut Block, part: usize, scale: f32) {
    block.scales[PART / GROUP * part..][..PART / GROUP].fill(scale);
}

/// All eight signs of a row where seven are stored: an even number of them is negative.
fn even_signs(seven: u8) -> u8 {
    seven | (seven.count_ones() as u8 & 1) << 7
}

fn negate(codes: &mut [i8], signs: u8) {
    for (n, code) in codes.iter_mut().enumerate() {
        if signs >> n & 1 == 1 {
            *code = -*code;
        }
    }
}

/// Four times seven signs of a part, and its scale in the upper four bits.
struct SignsAndScale(u32);

impl SignsAndScale {
    fn read(bytes: &[u8], at: usize) -> Self {
        SignsAndScale(u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
    }

    fn signs(&self, row: usize) -> u8 {
        even_signs((self.0 >> (7 * row) & 127) as u8)
    }

    fn scale(&self) -> u8 {
        (self.0 >> 28) as u8
    }
}

/// `d (s + 1/2) / 4 g`, where each part has four numbers of rows, their signs and a scale.
pub fn iq2_xxs(bytes: &[u8], block: &mut Block) {
    let d = f16(bytes, 0) / 8.0;
    for (part, bytes) in bytes[2..].chunks_exact(8).enumerate() {
        let rest = SignsAndScale::read(bytes, 4);
        set_scale(block, part, odd_multiple(d, rest.scale()));
        for (row, codes) in block.codes[PART * part..][..PART].chunks_exact_mut(8).enumerate() {
            codes.copy_from_slice(&grids::IQ2_XXS[usize::from(bytes[row])]);
            negate(codes, rest.signs(row));
        }
    }
}

/// `d (s + 1/2) / 4 g`, where the number of a row has nine bits, and its signs are beside it.
pub fn iq2_xs(bytes: &[u8], block: &mut Block) {
    scales_of_groups(f16(bytes, 0) / 8.0, &bytes[66..], block);
    for (bytes, codes) in bytes[2..66].chunks_exact(2).zip(block.codes.chunks_exact_mut(8)) {
        let row = u16::from_le_bytes([bytes[0], bytes[1]]);
        codes.copy_from_slice(&grids::IQ2_XS[usize::from(row & 511)]);
        negate(codes, even_signs((row >> 9) as u8));
    }
}

/// `d (s + 1/2) / 4 g`, where the number of a row has ten bits, two of them in a plane of their own.
pub fn iq2_s(bytes: &[u8], block: &mut Block) {
    scales_of_groups(f16(bytes, 0) / 8.0, &bytes[74..], block);
    for (row, codes) in block.codes.chunks_exact_mut(8).enumerate() {
        let high = bytes[66 + row / 4] >> (2 * (row % 4)) & 3;
        codes.copy_from_slice(&grids::IQ2_S[usize::from(high) << 8 | usize::from(bytes[2 + row])]);
        negate(codes, bytes[34 + row]);
    }
}

/// `d (s + 1/2) / 2 g`, where rows have four values, and signs and scales come after their numbers.
pub fn iq3_xxs(bytes: &[u8], block: &mut Block) {
    let d = f16(bytes, 0) / 4.0;
    for part in 0..PARTS {
        let rest = SignsAndScale::read(bytes, 66 + 4 * part);
        set_scale(block, part, odd_multiple(d, rest.scale()));
        for (pair, codes) in block.codes[PART * part..][..PART].chunks_exact_mut(8).enumerate() {
            for (row, codes) in codes.chunks_exact_mut(4).enumerate() {
                codes.copy_from_slice(&grids::IQ3_XXS[usize::from(bytes[2 + 8 * part + 2 * pair + row])]);
            }
            negate(codes, rest.signs(pair));
        }
    }
}

/// `d (2 s + 1) g`, where the number of a row of four has nine bits, one of them in a plane of its own.
pub fn iq3_s(bytes: &[u8], block: &mut Block) {
    let d = f16(bytes, 0);
    for part in 0..PARTS {
        set_scale(block, part, odd_multiple(d, nibble(&bytes[106..], part)));
    }
    for (row, codes) in block.codes.chunks_exact_mut(4).enumerate() {
        let high = bytes[66 + row / 8] >> (row % 8) & 1;
        codes.copy_from_slice(&grids::IQ3_S[usize::from(high) << 8 | usize::from(bytes[2 + row])]);
    }
    for (codes, signs) in block.codes.chunks_exact_mut(8).zip(&bytes[74..106]) {
        negate(codes, *signs);
    }
}

/// Eight codes of IQ1, in eighths: `8 g + 1` or, where the fourth bit of `high` is set, `8 g - 1`. Its other bits belong to the number of the row.
fn eighths(low: u8, high: u8, codes: &mut [i8]) {
    let delta = if high & 8 == 0 { 1 } else { -1 };
    let row = &grids::IQ1[usize::from(high & 7) << 8 | usize::from(low)];
    for (code, value) in codes.iter_mut().zip(row) {
        *code = 8 * value + delta;
    }
}

/// `d (2 s + 1) (g + 1/8)` or `d (2 s + 1) (g - 1/8)`, with a scale and a sign of the eighth for each part.
pub fn iq1_s(bytes: &[u8], block: &mut Block) {
    let d = f16(bytes, 0) / 8.0;
    for part in 0..PARTS {
        let rest = u16::from_le_bytes([bytes[34 + 2 * part], bytes[35 + 2 * part]]);
        set_scale(block, part, odd_multiple(d, (rest >> 12 & 7) as u8));
        for (row, codes) in block.codes[PART * part..][..PART].chunks_exact_mut(8).enumerate() {
            let high = rest >> (3 * row) & 7 | rest >> 15 << 3;
            eighths(bytes[2 + 4 * part + row], high as u8, codes);
        }
    }
}

/// As [`iq1_s`], with a scale for 16 values and a sign for eight. Above each four scales lie four bits of `d`.
pub fn iq1_m(bytes: &[u8], block: &mut Block) {
    let words: [u16; 4] = std::array::from_fn(|n| u16::from_le_bytes([bytes[48 + 2 * n], bytes[49 + 2 * n]]));
    let d = words.iter().enumerate().fold(0u16, |d, (n, word)| d | word >> 12 << (4 * n));
    let d = f16(&d.to_le_bytes(), 0) / 8.0;
    for (group, scale) in block.scales.iter_mut().enumerate() {
        *scale = odd_multiple(d, (words[group / 4] >> (3 * (group % 4)) & 7) as u8);
    }
    for (row, codes) in block.codes.chunks_exact_mut(8).enumerate() {
        eighths(bytes[row], nibble(&bytes[32..], row), codes);
    }
}
