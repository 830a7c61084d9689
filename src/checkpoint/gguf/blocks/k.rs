//! Blocks of 256 values whose groups of 16 or 32 have small scales of their own, times one for the whole.

use super::{f16, halves, two_bits};
use crate::checkpoint::gguf::block::{Block, GROUP};
use crate::quant::IQ4_VALUES;

/// Groups of 16 in a block.
const GROUPS: usize = 16;

/// `d s q - dmin m`, where a byte has the scale of 16 values low and their minimum high.
pub fn q2_k(bytes: &[u8], block: &mut Block) {
    let (d, dmin) = (f16(bytes, 80), f16(bytes, 82));
    for (group, byte) in bytes[..GROUPS].iter().enumerate() {
        block.scales[group] = d * f32::from(byte & 15);
        block.minimums[group] = -(dmin * f32::from(byte >> 4));
    }
    for (n, code) in block.codes.iter_mut().enumerate() {
        *code = two_bits(&bytes[16..80], n) as i8;
    }
}

/// `d (s - 32) (q - 4)`, where the third bit of q has a plane of its own.
pub fn q3_k(bytes: &[u8], block: &mut Block) {
    let d = f16(bytes, 108);
    let scales = &bytes[96..108];
    for group in 0..GROUPS {
        let low = scales[group % 8] >> (4 * (group / 8)) & 15;
        let high = scales[8 + group % 4] >> (2 * (group / 4)) & 3;
        block.scales[group] = d * (f32::from(low | high << 4) - 32.0);
    }
    for (n, code) in block.codes.iter_mut().enumerate() {
        let third = bytes[n % 32] >> (n / 32) & 1;
        *code = (two_bits(&bytes[32..96], n) | third << 2) as i8 - 4;
    }
}

/// Scales and minimums of 32 values each, `d s` and `-dmin m`, from the first 16 bytes of a block.
fn read_scales(bytes: &[u8], block: &mut Block) {
    let (d, dmin) = (f16(bytes, 0), f16(bytes, 2));
    let packed = &bytes[4..16];
    for j in 0..8 {
        // Six bits each: those of the first four in bytes of their own, whose upper two bits are left for the last four.
        let (scale, minimum) = if j < 4 {
            (packed[j] & 63, packed[j + 4] & 63)
        } else {
            (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)
        };
        block.scales[2 * j..][..2].fill(d * f32::from(scale));
        block.minimums[2 * j..][..2].fill(-(dmin * f32::from(minimum)));
    }
}

/// `d s q - dmin m`
pub fn q4_k(bytes: &[u8], block: &mut Block) {
    read_scales(bytes, block);
    for (bytes, codes) in bytes[16..].chunks_exact(32).zip(block.codes.chunks_exact_mut(64)) {
        halves(bytes, codes, |q| q as i8);
    }
}

/// `d s q - dmin m`, where the fifth bit of q has a plane of its own.
pub fn q5_k(bytes: &[u8], block: &mut Block) {
    read_scales(bytes, block);
    for (bytes, codes) in bytes[48..].chunks_exact(32).zip(block.codes.chunks_exact_mut(64)) {
        halves(bytes, codes, |q| q as i8);
    }
    for (n, code) in block.codes.iter_mut().enumerate() {
        *code |= ((bytes[16 + n % 32] >> (n / 32) & 1) << 4) as i8;
    }
}

/// `d s (q - 32)` with six bits a value.
pub fn q6_k(bytes: &[u8], block: &mut Block) {
    let d = f16(bytes, 208);
    for group in 0..GROUPS {
        block.scales[group] = d * f32::from(bytes[192 + group] as i8);
    }
    for (n, code) in block.codes.iter_mut().enumerate() {
        let (half, k, l) = (n / 128, n % 128 / 32, n % 32);
        let low = bytes[64 * half + 32 * (k % 2) + l] >> (4 * (k / 2)) & 15;
        let high = bytes[128 + 32 * half + l] >> (2 * k) & 3;
        *code = (low | high << 4) as i8 - 32;
    }
}

/// `d (s - 32) T[q]`, with a scale for 32 values.
pub fn iq4_xs(bytes: &[u8], block: &mut Block) {
    let d = f16(bytes, 0);
    let high = u16::from_le_bytes([bytes[2], bytes[3]]);
    for j in 0..8 {
        let low = bytes[4 + j / 2] >> (4 * (j % 2)) & 15;
        let scale = low | ((high >> (2 * j) & 3) << 4) as u8;
        block.scales[2 * j..][..2].fill(d * (f32::from(scale) - 32.0));
        halves(&bytes[8 + GROUP * j..][..GROUP], &mut block.codes[32 * j..][..32], |q| IQ4_VALUES[usize::from(q)]);
    }
}
