//! How a token is chosen, and which tokens occurred before.

/// The caller's choices, as in `shaders/sample.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Sampling {
    /// 0: the best token.
    pub temperature: f32,
    /// 0: off.
    pub top_k: u32,
    /// 1: off.
    pub top_p: f32,
    /// 0: off.
    pub min_p: f32,
    /// 1: off.
    pub repeat_penalty: f32,
    pub seed: u32,
    pub padding: [u32; 2],
}

impl Sampling {
    pub const GREEDY: Self =
        Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repeat_penalty: 1.0, seed: 0, padding: [0; 2] };
}

/// 32-bit words that hold one bit per token of the vocabulary.
pub fn seen_words(vocab_size: usize) -> usize {
    vocab_size.div_ceil(32)
}

/// Sets the bit of `token`.
pub fn mark_seen(seen: &mut [u32], token: u32) {
    seen[token as usize / 32] |= 1 << (token % 32);
}
