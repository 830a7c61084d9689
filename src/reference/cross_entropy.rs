//! cross_entropy: of each row of logits the loss of its target, and the gradient factor (softmax - one hot).
//!
//! ```text
//! logits   [num_tokens, vocab_size] f32   in
//! targets  [num_tokens] u32               in   all ones: nothing is learnt from this row
//! losses   [num_tokens] f32               out
//! dlogits  [num_tokens, vocab_size] f32   out
//! ```

/// A row that counts for nothing.
pub const NO_TARGET: u32 = u32::MAX;

/// Returns `losses` and `dlogits`.
pub fn cross_entropy(logits: &[f32], targets: &[u32], factor: f32) -> [Vec<f32>; 2] {
    let (mut losses, mut dlogits) = (Vec::new(), Vec::with_capacity(logits.len()));
    for (row, &wanted) in logits.chunks_exact(logits.len() / targets.len()).zip(targets) {
        if wanted == NO_TARGET {
            losses.push(0.0);
            dlogits.extend(row.iter().map(|_| 0.0));
            continue;
        }
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exponential = |logit: &f32| (f64::from(*logit) - f64::from(max)).exp();
        let total: f64 = row.iter().map(exponential).sum();
        losses.push((f64::from(max) + total.ln() - f64::from(row[wanted as usize])) as f32);
        let hit = |token: usize| if token == wanted as usize { 1.0 } else { 0.0 };
        let gradient = |(token, logit): (usize, &f32)| f64::from(factor) * (exponential(logit) / total - hit(token));
        dlogits.extend(row.iter().enumerate().map(|entry| gradient(entry) as f32));
    }
    [losses, dlogits]
}
