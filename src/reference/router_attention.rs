//! router_attention: logits of the experts from a query, a key and a value of each: `logit[i] = sum over j of softmax_j(q[i] k[j]) v[j]`.
//!
//! ```text
//! qkv     [num_tokens, 3 num_experts] f32  in   queries, then keys, then values
//! logits  [num_tokens, num_experts] f32    out
//! ```
//!
//! Source: Wu et al. 2024, arXiv 2405.17976, section 3.2.

pub fn router_attention(qkv: &[f32], num_experts: usize) -> Vec<f32> {
    let mut logits = Vec::with_capacity(qkv.len() / 3);
    for qkv in qkv.chunks_exact(3 * num_experts) {
        // qkv is qkv[t] here
        let (q, kv) = qkv.split_at(num_experts);
        let (k, v) = kv.split_at(num_experts);
        for q in q {
            let scores: Vec<f64> = k.iter().map(|k| f64::from(*q) * f64::from(*k)).collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let exponentials: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
            let sum: f64 = exponentials.iter().zip(v).map(|(exponential, v)| exponential * f64::from(*v)).sum();
            logits.push((sum / exponentials.iter().sum::<f64>()) as f32);
        }
    }
    logits
}
