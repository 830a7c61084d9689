//! What many rules do with the numbers of one token, or of one expert.

use super::Real;

pub fn sum<R: Real>(values: impl IntoIterator<Item = R>) -> R {
    values.into_iter().fold(R::zero(), |sum, value| sum + value)
}

pub fn mean<R: Real>(values: &[R]) -> R {
    sum(values.iter().copied()) / values.len() as f64
}

pub fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    sum(a.iter().zip(b).map(|(&a, &b)| a * b))
}

pub fn values<R: Real>(row: &[R]) -> Vec<f64> {
    row.iter().map(|number| number.value()).collect()
}

fn largest<R: Real>(row: &[R]) -> f64 {
    row.iter().map(|number| number.value()).fold(f64::NEG_INFINITY, f64::max)
}

pub fn softmax<R: Real>(row: &[R]) -> Vec<R> {
    let largest = largest(row);
    let exponentials: Vec<R> = row.iter().map(|&logit| (logit - largest).exp()).collect();
    let total = sum(exponentials.iter().copied());
    exponentials.into_iter().map(|exponential| exponential / total).collect()
}

/// The softmax of the numbers where `live` holds, and zero elsewhere. At least one is live.
pub fn masked_softmax<R: Real>(row: &[R], live: impl Fn(usize) -> bool) -> Vec<R> {
    let chosen: Vec<usize> = (0..row.len()).filter(|&index| live(index)).collect();
    let shares = softmax(&chosen.iter().map(|&index| row[index]).collect::<Vec<_>>());
    let mut all = vec![R::zero(); row.len()];
    chosen.into_iter().zip(shares).for_each(|(index, share)| all[index] = share);
    all
}

pub fn log_sum_exp<R: Real>(row: &[R]) -> R {
    let largest = largest(row);
    sum(row.iter().map(|&logit| (logit - largest).exp())).ln() + largest
}

/// `-sum p ln p`. Where a share is exactly 0 its term is 0, as its limit is.
pub fn entropy<R: Real>(shares: &[R]) -> R {
    -sum(shares.iter().filter(|share| share.value() > 0.0).map(|&share| share * share.ln()))
}

/// The row times what makes it 1 long; a row shorter than `least` is divided by that.
pub fn normalized<R: Real>(row: &[R], least: f64) -> Vec<R> {
    let length = dot(row, row).sqrt();
    let length = if length.value() < least { R::of(least) } else { length };
    row.iter().map(|&number| number / length).collect()
}

/// Indices of `keys`, the greatest first; of equal ones the lower index first.
pub fn best_first(keys: &[f64]) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..keys.len()).collect();
    // The order has to be total for NaN, but minus zero equals zero: adding zero makes it so.
    indices.sort_by(|&a, &b| (keys[b] + 0.0).total_cmp(&(keys[a] + 0.0)).then(a.cmp(&b)));
    indices
}

/// The first `count` of [`best_first`].
pub fn top(keys: &[f64], count: usize) -> Vec<usize> {
    let mut best = best_first(keys);
    best.truncate(count);
    best
}
