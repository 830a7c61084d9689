//! attention_merge: what the splits of one token's attention come to together.
//!
//! ```text
//! partials  [num_heads, splits, value_dim + 4] f32  in   of each split: values that are not yet divided by the sum of their weights; then
//!                                                        its highest score, that sum, and two values without a meaning
//! sinks     [num_heads] f32                         in   where there are some: one more score per head, without a value
//! y         [num_heads, value_dim] f32              out
//! ```
//!
//! Source: Dao, Haziza, Massa and Sizov 2023, Flash-Decoding for long-context inference.

/// What goes in, in the shapes of the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub splits: usize,
    pub value_dim: usize,
    pub partials: &'a [f32],
    pub sinks: Option<&'a [f32]>,
}

/// Returns `y`.
pub fn attention_merge(inputs: &Inputs) -> Vec<f32> {
    let Inputs { splits, value_dim, partials, sinks } = *inputs;
    let stride = value_dim + 4;
    let mut y = Vec::with_capacity(partials.len() / (splits * stride) * value_dim);
    for (h, of_head) in partials.chunks_exact(splits * stride).enumerate() {
        // partials[h]
        let sink = sinks.map_or(f64::NEG_INFINITY, |sinks| f64::from(sinks[h]));
        let tops = of_head.chunks_exact(stride).map(|of_split| f64::from(of_split[value_dim]));
        let top = tops.fold(sink, f64::max);
        let mut total = (sink - top).exp();
        let mut sums = vec![0.0; value_dim];
        for of_split in of_head.chunks_exact(stride) {
            let share = (f64::from(of_split[value_dim]) - top).exp();
            total += share * f64::from(of_split[value_dim + 1]);
            sums.iter_mut().zip(of_split).for_each(|(sum, value)| *sum += share * f64::from(*value));
        }
        y.extend(sums.into_iter().map(|sum| (sum / total) as f32));
    }
    y
}
