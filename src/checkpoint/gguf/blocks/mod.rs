//! What the bytes of each type of blocks mean. Fractions of 16 bits are little-endian.

mod grids;
mod iq;
mod k;
mod short;
mod ternary;

pub(super) use iq::{iq1_m, iq1_s, iq2_s, iq2_xs, iq2_xxs, iq3_s, iq3_xxs};
pub(super) use k::{iq4_xs, q2_k, q3_k, q4_k, q5_k, q6_k};
pub(super) use short::{iq4_nl, mxfp4, nvfp4, q1_0, q2_0, q4_0, q4_1, q5_0, q5_1, q8_0};
pub(super) use ternary::{tq1_0, tq2_0};

use super::block::{Block, GROUP};

fn f16(bytes: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Codes of four bits: the low halves of all bytes, then the high ones.
fn halves(bytes: &[u8], codes: &mut [i8], code: impl Fn(u8) -> i8) {
    let (low, high) = codes.split_at_mut(bytes.len());
    for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
        *low = code(byte & 15);
        *high = code(byte >> 4);
    }
}

/// Two bits of value `n`, where 32 bytes hold 128 values: the lowest bits of each byte first.
fn two_bits(bytes: &[u8], n: usize) -> u8 {
    bytes[32 * (n / 128) + n % 32] >> (2 * (n % 128 / 32)) & 3
}

/// Gives the first `len` values of a block one scale.
fn one_scale(block: &mut Block, len: usize, scale: f32) {
    block.scales[..len / GROUP].fill(scale);
}
