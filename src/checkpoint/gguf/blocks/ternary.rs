//! Blocks of 256 values that are `-d`, 0 or `d`.

use super::{f16, one_scale, two_bits};
use crate::checkpoint::gguf::block::Block;

/// Digits in base 3, five to a byte: `d (t - 1)`.
pub fn tq1_0(bytes: &[u8], block: &mut Block) {
    one_scale(block, 256, f16(bytes, 52));
    let (first, rest) = block.codes.split_at_mut(160);
    let (second, third) = rest.split_at_mut(80);
    digits(&bytes[..32], first);
    digits(&bytes[32..48], second);
    digits(&bytes[48..52], third);
}

/// The first digit of every byte, then the second, and so on.
fn digits(bytes: &[u8], codes: &mut [i8]) {
    let mut power = 1u8;
    for plane in codes.chunks_exact_mut(bytes.len()) {
        for (code, byte) in plane.iter_mut().zip(bytes) {
            // A byte is the fraction that its digits are after the point, of 256. So each digit is what times 3 goes beyond the point.
            let digit = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
            *code = digit as i8 - 1;
        }
        power = power.wrapping_mul(3);
    }
}

/// `d (q - 1)` with two bits a value. The fourth code is `2 d`.
pub fn tq2_0(bytes: &[u8], block: &mut Block) {
    one_scale(block, 256, f16(bytes, 64));
    for (n, code) in block.codes.iter_mut().enumerate() {
        *code = two_bits(&bytes[..64], n) as i8 - 1;
    }
}
