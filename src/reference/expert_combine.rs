//! expert_combine: `x[token] += ` the sum over its top_k assignments of `weight * y[assignment]`.
//!
//! ```text
//! y         [num_tokens * top_k, hidden] f32  in
//! weights   [num_tokens, top_k] f32           in   ones where the routing weights went into the experts
//! x         [num_tokens, hidden] f32          in, out
//! ```

pub fn expert_combine(y: &[f32], weights: &[f32], top_k: usize, x: &mut [f32]) {
    let num_tokens = weights.len() / top_k;
    let Some(hidden_size) = x.len().checked_div(num_tokens) else { return };
    for (t, x) in x.chunks_exact_mut(hidden_size).enumerate() {
        // x is x[t] here
        for (c, x) in x.iter_mut().enumerate() {
            let assignments = t * top_k..(t + 1) * top_k;
            let sum: f64 = assignments.map(|a| f64::from(weights[a]) * f64::from(y[a * hidden_size + c])).sum();
            *x = (f64::from(*x) + sum) as f32; // x[t, c]
        }
    }
}
