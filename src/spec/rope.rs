//! Rotary position embeddings.

/// Rotary position embedding of the first `dims` of each head: Su et al. 2021, arXiv 2104.09864.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeSpec {
    pub theta: f64,
    /// Even; the other dimensions pass through.
    pub dims: usize,
    pub pairing: RopePairing,
    pub scaling: RopeScaling,
}

/// Which two dimensions turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePairing {
    /// `(i, i + dims / 2)`, as in Llama.
    Half,
    /// `(2i, 2i + 1)`, as in GPT-J.
    Interleaved,
}

/// How the frequencies are changed for longer contexts.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    None,
    Linear {
        factor: f64,
    },
    /// Source: `_compute_llama3_parameters` of transformers.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_positions: usize,
    },
    /// Peng et al. 2023, arXiv 2309.00071. `attention_factor` multiplies cosine and sine.
    Yarn {
        factor: f64,
        beta_fast: f64,
        beta_slow: f64,
        original_positions: usize,
        truncate: bool,
        attention_factor: f64,
    },
    /// Ding et al. 2024, arXiv 2402.13753: one divisor per pair, chosen by the total length. Each `mscale` multiplies cosine and sine.
    Long {
        short: Vec<f64>,
        long: Vec<f64>,
        short_mscale: f64,
        long_mscale: f64,
        original_positions: usize,
    },
    /// Only so many pairs turn, the fastest ones; the others stay where they are. Source: `_compute_proportional_rope_parameters` of
    /// transformers.
    Proportional {
        pairs: usize,
    },
}
