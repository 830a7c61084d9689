//! How evenly experts are used.

use super::NONE;

/// The load of the experts of one layer, from their assignments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Balance {
    /// How much more than the mean the busiest expert has: 0 where all have equally many.
    pub max_violation: f64,
    /// The mean distance from the mean, in means.
    pub mean_violation: f64,
    /// Standard deviation over mean.
    pub cv: f64,
    /// Of the shares, 1 where all are equal.
    pub entropy: f64,
    /// Jain's fairness: 1 where all are equal, one over the number of experts where one has all.
    pub jain: f64,
    pub max_share: f64,
    /// Experts without any assignment.
    pub dead: usize,
}

/// An expert with less than this share of the mean counts as dead, over many steps.
const DEAD_SHARE: f64 = 0.01;

impl Balance {
    /// Without any assignment everything is balanced, and every expert is dead.
    pub fn of(counts: &[usize]) -> Balance {
        let total: usize = counts.iter().sum();
        let (len, mean) = (counts.len() as f64, total as f64 / counts.len() as f64);
        let dead = counts.iter().filter(|count| **count == 0).count();
        if total == 0 {
            return Balance {
                max_violation: 0.0,
                mean_violation: 0.0,
                cv: 0.0,
                entropy: 1.0,
                jain: 1.0,
                max_share: 1.0 / len,
                dead,
            };
        }
        let numbers = || counts.iter().map(|&count| count as f64);
        let squares: f64 = numbers().map(|count| count * count).sum();
        let most = numbers().fold(0.0, f64::max);
        let entropy: f64 =
            numbers().filter(|count| *count > 0.0).map(|count| -(count / total as f64) * (count / total as f64).ln()).sum();
        Balance {
            max_violation: most / mean - 1.0,
            mean_violation: numbers().map(|count| (count - mean).abs()).sum::<f64>() / len / mean,
            cv: (numbers().map(|count| (count - mean).powi(2)).sum::<f64>() / len).sqrt() / mean,
            entropy: if counts.len() == 1 { 1.0 } else { entropy / len.ln() },
            jain: (total as f64).powi(2) / (len * squares),
            max_share: most / total as f64,
            dead,
        }
    }
}

/// Experts that got less than a hundredth of the mean, from counts summed over many steps.
pub fn nearly_dead(counts: &[usize]) -> usize {
    let mean = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
    counts.iter().filter(|count| (**count as f64) < DEAD_SHARE * mean || **count == 0).count()
}

/// The share of the assignments that were dropped; 0 where there are none.
pub fn drop_rate(expert_ids: &[u32], kept: &[bool]) -> f64 {
    let live = || expert_ids.iter().zip(kept).filter(|(id, _)| **id != NONE);
    let dropped = live().filter(|(_, kept)| !**kept).count();
    dropped as f64 / live().count().max(1) as f64
}

/// The share of the tokens that no expert computes.
pub fn unserved_rate(kept: &[bool], width: usize) -> f64 {
    let rows = kept.chunks_exact(width);
    let num_tokens = rows.len().max(1);
    rows.filter(|row| !row.contains(&true)).count() as f64 / num_tokens as f64
}

/// How much the experts of one fixed batch have changed between two looks at it: the mean share of a token's experts that are new.
pub fn churn(before: &[u32], after: &[u32], width: usize) -> f64 {
    let changed = |(before, after): (&[u32], &[u32])| {
        let chosen = before.iter().filter(|id| **id != NONE).count();
        let is_same = |(rank, id): (usize, &u32)| *id != NONE && after.contains(id) && !before[..rank].contains(id);
        let same = before.iter().enumerate().filter(|&pair| is_same(pair)).count();
        1.0 - same as f64 / chosen.max(1) as f64
    };
    let rows = before.chunks_exact(width).zip(after.chunks_exact(width));
    let num_tokens = (before.len() / width).max(1);
    rows.map(changed).sum::<f64>() / num_tokens as f64
}
