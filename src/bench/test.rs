//! The tests, in the vocabulary of llama-bench, and what comes out of one.

use super::roofs::Roofs;
use crate::gpu::Counts;
use crate::model::TokenCost;

/// One thing to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Test {
    pub work: Work,
    /// Tokens that the KV cache holds before the clock starts.
    pub depth: usize,
}

/// What runs while the clock does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A prompt of so many tokens.
    Prefill(usize),
    /// So many tokens, one by one, each the most likely.
    Decode(usize),
    /// So many tokens, one by one, drawn as the checkpoint asks.
    Sample(usize),
}

impl Test {
    /// `pp512`, `tg128`, `tg128s`, `tg128@d1024`.
    pub fn name(&self) -> String {
        let work = match self.work {
            Work::Prefill(tokens) => format!("pp{tokens}"),
            Work::Decode(tokens) => format!("tg{tokens}"),
            Work::Sample(tokens) => format!("tg{tokens}s"),
        };
        if self.depth == 0 { work } else { format!("{work}@d{}", self.depth) }
    }

    /// Tokens that are counted.
    pub fn tokens(&self) -> usize {
        match self.work {
            Work::Prefill(tokens) | Work::Decode(tokens) | Work::Sample(tokens) => tokens,
        }
    }

    /// Positions of the KV cache that it takes. A first token is there before any other can be generated.
    pub fn positions(&self) -> usize {
        match self.work {
            Work::Prefill(tokens) => self.depth + tokens,
            Work::Decode(tokens) | Work::Sample(tokens) => self.depth.max(1) + tokens,
        }
    }
}

/// What a test gave.
#[derive(Debug, Clone, PartialEq)]
pub struct TestReport {
    pub test: Test,
    /// Tokens per second of each repetition.
    pub samples: Vec<f64>,
    /// Counted on the device, not computed.
    pub dispatches_per_token: f64,
    pub submits_per_token: f64,
    pub readbacks_per_token: f64,
    /// Bytes of the weights that one token reads: see [`TokenCost`].
    pub weight_bytes_per_token: u64,
    /// Bytes of a state that one token reads and writes; 0 for most models.
    pub state_bytes_per_token: u64,
    /// Bytes of weights and state read per second, over what the device can read; only when decoding, because the tokens of a prompt share what is
    /// read.
    pub read_roof_share: Option<f64>,
    /// Multiply-adds with weights over what the device can do; only of prefill. Attention over earlier tokens is not counted.
    pub fma_roof_share: Option<f64>,
}

impl TestReport {
    pub(super) fn new(test: Test, samples: Vec<f64>, counts: Counts, cost: TokenCost, roofs: &Roofs) -> Self {
        let tokens = test.tokens() as f64;
        let per_token = |count: u64| count as f64 / (tokens * samples.len() as f64);
        let (mean, _) = mean_and_deviation(&samples);
        let flops = cost.flops as f64 + cost.head_flops as f64 / tokens;
        TestReport {
            test,
            dispatches_per_token: per_token(counts.dispatches),
            submits_per_token: per_token(counts.submits),
            readbacks_per_token: per_token(counts.readbacks),
            weight_bytes_per_token: cost.weight_bytes,
            state_bytes_per_token: cost.state_bytes,
            read_roof_share: match test.work {
                Work::Decode(_) | Work::Sample(_) => {
                    Some(mean * (cost.weight_bytes + cost.state_bytes) as f64 / (roofs.read_gb_s * 1e9))
                }
                Work::Prefill(_) => None,
            },
            fma_roof_share: match test.work {
                Work::Prefill(_) => Some(mean * flops / (roofs.fma_gflop_s * 1e9)),
                Work::Decode(_) | Work::Sample(_) => None,
            },
            samples,
        }
    }

    /// Mean over the repetitions.
    pub fn tokens_per_second(&self) -> f64 {
        mean_and_deviation(&self.samples).0
    }

    /// Standard deviation of the repetitions; 0 for one.
    pub fn stddev(&self) -> f64 {
        mean_and_deviation(&self.samples).1
    }
}

/// The middle one, of an even number the higher of the two in the middle.
///
/// # Panics
/// If there are none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn mean_and_deviation(samples: &[f64]) -> (f64, f64) {
    let len = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / len;
    if samples.len() < 2 {
        return (mean, 0.0);
    }
    let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
    (mean, (squares / (len - 1.0)).sqrt())
}
