//! norm: y = weight * (x - mean) / sqrt(mean((x - mean)^2) + eps) + bias, row by row; RMSNorm takes the mean as zero.
//!
//! ```text
//! x         [num_tokens, cols] f32  in
//! weight    [1, cols] f32           in   [2, cols] where there is a bias: row 1
//! y         [num_tokens, cols] f32  out
//! ```
//!
//! Sources: Zhang and Sennrich 2019, arXiv 1910.07467; Ba et al. 2016, arXiv 1607.06450.

use super::dot;
use crate::spec::{NormKind, NormSpec};

pub fn norm(spec: &NormSpec, x: &[f32], weight: &[f32]) -> Vec<f32> {
    let cols = weight.len() / (1 + usize::from(spec.bias));
    let (weight, bias) = weight.split_at(cols);
    let mut y = Vec::with_capacity(x.len());
    for x in x.chunks_exact(cols) {
        // x is row t here
        let mean = match spec.kind {
            NormKind::Rms => 0.0,
            NormKind::Layer => x.iter().copied().map(f64::from).sum::<f64>() / cols as f64,
        };
        let variance = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / cols as f64;
        let scale = 1.0 / (variance + f64::from(spec.eps)).sqrt();
        y.extend(x.iter().zip(weight).enumerate().map(|(c, (x, weight))| {
            let bias = bias.get(c).copied().map_or(0.0, f64::from);
            ((f64::from(*x) - mean) * scale * f64::from(*weight) + bias) as f32
        }));
    }
    y
}

/// RMSNorm of one row in place, without a weight where there is none.
pub(super) fn rms_norm_row(x: &mut [f32], weight: Option<&[f32]>, eps: f32) {
    let scale = 1.0 / (dot(x, x) / x.len() as f64 + f64::from(eps)).sqrt();
    for (c, x) in x.iter_mut().enumerate() {
        *x = (f64::from(*x) * scale * weight.map_or(1.0, |weight| f64::from(weight[c]))) as f32;
    }
}
