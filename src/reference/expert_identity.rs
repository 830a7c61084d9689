//! expert_identity: `x[token] += ` the sum of the weights of its assignments to experts without weights, times `input[token]`.
//!
//! ```text
//! input     [num_tokens, hidden] f32   in   what the experts read
//! ids       [num_tokens, top_k] u32    in   from `num_weighted` on: an expert that gives back what it is given
//! weights   [num_tokens, top_k] f32    in
//! x         [num_tokens, hidden] f32   in, out
//! ```

pub fn expert_identity(input: &[f32], (ids, weights): (&[u32], &[f32]), num_weighted: usize, top_k: usize, x: &mut [f32]) {
    let Some(hidden_size) = x.len().checked_div(ids.len() / top_k) else { return };
    for (t, x) in x.chunks_exact_mut(hidden_size).enumerate() {
        // x is x[t] here
        let assignments = t * top_k..(t + 1) * top_k;
        let weight: f64 = assignments.filter(|&a| ids[a] as usize >= num_weighted).map(|a| f64::from(weights[a])).sum();
        for (x, input) in x.iter_mut().zip(&input[t * hidden_size..]) {
            *x = (f64::from(*x) + weight * f64::from(*input)) as f32;
        }
    }
}
