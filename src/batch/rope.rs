//! The rotary table that `qkv` reads, on every device: [context, dims / 2] of (cosine, sine).

use crate::spec::{RopeScaling, RopeSpec};
use std::f64::consts::TAU;

/// Pair `i` of a head turns by `position * theta^(-2 i / dims)`, as the scaling changes it. `total_len` is the length of the
/// sequences that the table is for: where the scaling depends on it, keys of a shorter sequence are not those of a longer one.
///
/// Source: Su et al. 2021, arXiv 2104.09864.
pub fn rope_table(spec: &RopeSpec, context: usize, total_len: usize) -> Vec<[f32; 2]> {
    rope_turns(spec, context, total_len).into_iter().map(|turn| turn.map(|value| value as f32)).collect()
}

/// The same before it is rounded.
pub fn rope_turns(spec: &RopeSpec, context: usize, total_len: usize) -> Vec<[f64; 2]> {
    let (frequencies, magnitude) = scaled(spec, total_len);
    let angles = (0..context).flat_map(|position| frequencies.iter().map(move |frequency| position as f64 * frequency));
    angles.map(|angle| [magnitude * angle.cos(), magnitude * angle.sin()]).collect()
}

/// The frequency of each pair, and what multiplies cosine and sine.
fn scaled(spec: &RopeSpec, total_len: usize) -> (Vec<f64>, f64) {
    let plain = (0..spec.dims / 2).map(|i| spec.theta.powf(-2.0 * i as f64 / spec.dims as f64));
    match &spec.scaling {
        RopeScaling::None => (plain.collect(), 1.0),
        RopeScaling::Proportional { pairs } => {
            (plain.enumerate().map(|(i, frequency)| if i < *pairs { frequency } else { 0.0 }).collect(), 1.0)
        }
        RopeScaling::Linear { factor } => (plain.map(|frequency| frequency / factor).collect(), 1.0),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions } => {
            let (low, high) = (*low_freq_factor, *high_freq_factor);
            let changed = |frequency: f64| {
                // Turns over the original context.
                let turns = *original_positions as f64 * frequency / TAU;
                if turns > high {
                    frequency
                } else if turns < low {
                    frequency / factor
                } else {
                    let kept = if high > low { (turns - low) / (high - low) } else { 0.0 };
                    (1.0 - kept) * frequency / factor + kept * frequency
                }
            };
            (plain.map(changed).collect(), 1.0)
        }
        RopeScaling::Yarn { attention_factor, .. } => {
            let changed = plain.enumerate().map(|(i, frequency)| yarn(spec, i, frequency));
            (changed.collect(), *attention_factor)
        }
        RopeScaling::Long { short, long, short_mscale, long_mscale, original_positions } => {
            let (divisors, mscale) = if total_len > *original_positions { (long, long_mscale) } else { (short, short_mscale) };
            (plain.zip(divisors).map(|(frequency, divisor)| frequency / divisor).collect(), *mscale)
        }
    }
}

/// Fast pairs keep their frequency, slow ones are divided by the factor, those between are mixed.
fn yarn(spec: &RopeSpec, pair: usize, frequency: f64) -> f64 {
    let RopeScaling::Yarn { factor, beta_fast, beta_slow, original_positions, truncate, .. } = spec.scaling else {
        return frequency;
    };
    let last = spec.dims as f64 - 1.0;
    // The pair that turns so often over the original context.
    let pair_of = |turns: f64| spec.dims as f64 * (original_positions as f64 / (turns * TAU)).ln() / (2.0 * spec.theta.ln());
    let (mut first, mut end) = (pair_of(beta_fast), pair_of(beta_slow));
    if truncate {
        (first, end) = (first.floor(), end.ceil());
    }
    (first, end) = (first.max(0.0), end.min(last));
    if first == end {
        end += 0.001;
    }
    let divided = ((pair as f64 - first) / (end - first)).clamp(0.0, 1.0);
    frequency / factor * divided + frequency * (1.0 - divided)
}
