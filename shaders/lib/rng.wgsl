// rng: one uniform number per (seed, position), the same on every device.
// source    PCG-RXS-M-XS 32, Jarzynski and Olano 2020, "Hash Functions for GPU Rendering"
// twin      src/reference/rng.rs

fn pcg(input: u32) -> u32 {
    let state = input * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

// In [0, 1): the upper 24 bits, which an f32 holds exactly.
fn uniform_f32(seed: u32, position: u32) -> f32 {
    return f32(pcg(pcg(seed) ^ position) >> 8u) * 0x1p-24f;
}
