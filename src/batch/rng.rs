//! rng: one uniform number per (seed, position), the same on every device.
//!
//! Source: PCG-RXS-M-XS 32, Jarzynski and Olano 2020, "Hash Functions for GPU Rendering".

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
