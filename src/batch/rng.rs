//! rng: one uniform number per (seed, position), the same on every device.
//!
//! Source: PCG-RXS-M-XS 32, Jarzynski and Olano 2020, "Hash Functions for GPU Rendering".

use std::f64::consts::TAU;

/// A bijection of the 32-bit words without visible structure.
pub fn pcg(input: u32) -> u32 {
    let state = input.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
    (word >> 22) ^ word
}

/// In [0, 1): the upper 24 bits, which an f32 holds exactly.
pub fn uniform_f32(seed: u32, position: u32) -> f32 {
    (pcg(pcg(seed) ^ position) >> 8) as f32 * (-24.0f32).exp2()
}

/// A normal number of variance one: Box and Muller 1958. The functions are those of a library in plain Rust, so that every machine draws the same.
pub fn normal(seed: u32, index: u32) -> f64 {
    let [a, b] = [0, 1].map(|part| f64::from(uniform_f32(pcg(seed ^ part), index)));
    // From (0, 1]: the logarithm of zero is no number.
    libm::sqrt(-2.0 * libm::log(1.0 - a)) * libm::cos(TAU * b)
}

/// The numbers below `count` in an order that is drawn.
pub fn shuffled(seed: u32, count: usize) -> Vec<usize> {
    let key = pcg(seed);
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|index| (pcg(key ^ *index as u32), *index));
    order
}
