//! The tokens that may come next, from logits.

/// A token that may come next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    pub id: u32,
    /// From the softmax over the whole vocabulary, at temperature 1.
    pub probability: f64,
}

impl Candidate {
    /// The `count` likeliest of `logits`, the likeliest first, of equal ones the lower id. Fewer where there are fewer.
    pub fn likeliest(logits: &[f32], count: usize) -> Vec<Candidate> {
        let count = count.min(logits.len());
        if count == 0 {
            return Vec::new();
        }
        let max = logits.iter().fold(f64::NEG_INFINITY, |max, &logit| max.max(f64::from(logit)));
        let weight = |id: u32| (f64::from(logits[id as usize]) - max).exp();
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        let total: f64 = ids.iter().map(|&id| weight(id)).sum();
        let better = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        ids.select_nth_unstable_by(count - 1, better);
        ids.truncate(count);
        ids.sort_unstable_by(better);
        ids.into_iter().map(|id| Candidate { id, probability: weight(id) / total }).collect()
    }
}
