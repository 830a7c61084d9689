//! grad_embed: adds to the gradient of the embedding, for each token that occurs, the sum of its rows in their order.
//!
//! ```text
//! tokens  [num_tokens] u32          in   as `spans` and `order` of [`sorted`] have them
//! dx      [num_tokens, cols] f32    in
//! dtable  [vocab, cols] f32         in, out
//! ```

/// The rows of each token that occurs, by token: `(token, first index into the order, count, 0)`, as many as there are rows, and the order.
pub fn sorted(tokens: &[u32]) -> (Vec<[u32; 4]>, Vec<u32>) {
    let mut order: Vec<u32> = (0..tokens.len() as u32).collect();
    order.sort_by_key(|&row| (tokens[row as usize], row));
    let mut spans = Vec::new();
    let mut first = 0;
    for run in order.chunk_by(|&a, &b| tokens[a as usize] == tokens[b as usize]) {
        spans.push([tokens[run[0] as usize], first, run.len() as u32, 0]);
        first += run.len() as u32;
    }
    spans.resize(tokens.len(), [0; 4]);
    (spans, order)
}

pub fn grad_embed(tokens: &[u32], dx: &[f32], scale: f32, dtable: &mut [f32]) {
    let cols = dx.len() / tokens.len();
    let mut sums = vec![0.0; dtable.len()];
    for (token, dx) in tokens.iter().zip(dx.chunks_exact(cols)) {
        let sums = &mut sums[*token as usize * cols..][..cols];
        sums.iter_mut().zip(dx).for_each(|(sum, dx)| *sum += f64::from(*dx));
    }
    dtable.iter_mut().zip(sums).for_each(|(value, sum)| *value = (f64::from(*value) + f64::from(scale) * sum) as f32);
}
