//! Blocks of 32 to 128 values with one scale, or few.

use super::{f16, halves, one_scale};
use crate::checkpoint::gguf::block::{Block, GROUP};
use crate::quant::IQ4_VALUES;

/// `d (q - 8)`
pub fn q4_0(bytes: &[u8], block: &mut Block) {
    one_scale(block, 32, f16(bytes, 0));
    halves(&bytes[2..18], &mut block.codes[..32], |q| q as i8 - 8);
}

/// `d q + m`
pub fn q4_1(bytes: &[u8], block: &mut Block) {
    one_scale(block, 32, f16(bytes, 0));
    block.minimums[..32 / GROUP].fill(f16(bytes, 2));
    halves(&bytes[4..20], &mut block.codes[..32], |q| q as i8);
}

/// Adds the fifth bits to 32 codes of four, and `offset`.
fn add_fifth_bits(bytes: &[u8], codes: &mut [i8], offset: i8) {
    for (n, code) in codes.iter_mut().enumerate() {
        let bit = bytes[n / 8] >> (n % 8) & 1;
        *code += (bit << 4) as i8 + offset;
    }
}

/// `d (q - 16)`
pub fn q5_0(bytes: &[u8], block: &mut Block) {
    one_scale(block, 32, f16(bytes, 0));
    halves(&bytes[6..22], &mut block.codes[..32], |q| q as i8);
    add_fifth_bits(&bytes[2..6], &mut block.codes[..32], -16);
}

/// `d q + m`
pub fn q5_1(bytes: &[u8], block: &mut Block) {
    one_scale(block, 32, f16(bytes, 0));
    block.minimums[..32 / GROUP].fill(f16(bytes, 2));
    halves(&bytes[8..24], &mut block.codes[..32], |q| q as i8);
    add_fifth_bits(&bytes[4..8], &mut block.codes[..32], 0);
}

/// `d q`
pub fn q8_0(bytes: &[u8], block: &mut Block) {
    one_scale(block, 32, f16(bytes, 0));
    for (code, byte) in block.codes.iter_mut().zip(&bytes[2..34]) {
        *code = *byte as i8;
    }
}

/// `d T[q]`
pub fn iq4_nl(bytes: &[u8], block: &mut Block) {
    one_scale(block, 32, f16(bytes, 0));
    halves(&bytes[2..18], &mut block.codes[..32], |q| IQ4_VALUES[usize::from(q)]);
}

/// What a float of four bits (E2M1) stands for, doubled to be an integer.
fn doubled_e2m1(code: u8) -> i8 {
    const MAGNITUDES: [i8; 8] = [0, 1, 2, 3, 4, 6, 8, 12];
    let magnitude = MAGNITUDES[usize::from(code & 7)];
    if code & 8 == 0 { magnitude } else { -magnitude }
}

/// `2^(e - 127) E2M1`
pub fn mxfp4(bytes: &[u8], block: &mut Block) {
    // Half of the power of two, because codes are doubled. The exponents 0 and 1 make it subnormal.
    let half = match bytes[0] {
        exponent @ 0..2 => f32::from_bits(0x0020_0000 << exponent),
        exponent => f32::from_bits(u32::from(exponent - 1) << 23),
    };
    one_scale(block, 32, half);
    halves(&bytes[1..17], &mut block.codes[..32], doubled_e2m1);
}

/// `s E2M1`, where each 16 values have their scale, a float of eight bits without a sign.
pub fn nvfp4(bytes: &[u8], block: &mut Block) {
    for group in 0..4 {
        block.scales[group] = 0.5 * unsigned_e4m3(bytes[group]);
        halves(&bytes[4 + 8 * group..][..8], &mut block.codes[GROUP * group..][..GROUP], doubled_e2m1);
    }
}

/// The code that stands for no number is zero to ggml.
fn unsigned_e4m3(code: u8) -> f32 {
    let value = crate::quant::decode_e4m3(code & 127);
    if value.is_nan() { 0.0 } else { value }
}

/// `d` or `-d`
pub fn q1_0(bytes: &[u8], block: &mut Block) {
    one_scale(block, 128, f16(bytes, 0));
    for (n, code) in block.codes[..128].iter_mut().enumerate() {
        *code = if bytes[2 + n / 8] >> (n % 8) & 1 == 1 { 1 } else { -1 };
    }
}

/// `d (q - 1)`
pub fn q2_0(bytes: &[u8], block: &mut Block) {
    one_scale(block, 64, f16(bytes, 0));
    for (n, code) in block.codes[..64].iter_mut().enumerate() {
        *code = (bytes[2 + n / 4] >> (2 * (n % 4)) & 3) as i8 - 1;
    }
}
