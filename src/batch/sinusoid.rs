//! The rows that a model of M2M100's kind adds to its embeddings.

/// `[context, hidden_size]`: row `i` has the sines and then the cosines of `(first + i) * 10000^(-j / (half - 1))`, for `j < half = hidden_size / 2`; an odd
/// last column is zero. `first` is what the position of a text's first token is called: one more than the padding token in M2M100.
///
/// Frequencies and angles are rounded to f32, as the models were trained: a large position would show the difference.
/// Source: `M2M100SinusoidalPositionalEmbedding` of transformers.
pub fn sinusoids(first: usize, context: usize, hidden_size: usize) -> Vec<f32> {
    let half = hidden_size / 2;
    let step = (10_000f64.ln() / (half.max(2) - 1) as f64) as f32;
    let frequencies: Vec<f32> = (0..half).map(|j| f64::from(j as f32 * -step).exp() as f32).collect();
    let mut table = Vec::with_capacity(context * hidden_size);
    for position in first..first + context {
        let angle = |frequency: &f32| f64::from(position as f32 * frequency);
        table.extend(frequencies.iter().map(|frequency| angle(frequency).sin() as f32));
        table.extend(frequencies.iter().map(|frequency| angle(frequency).cos() as f32));
        table.resize(table.len() + hidden_size % 2, 0.0);
    }
    table
}
