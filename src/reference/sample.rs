//! sample: the next token of a sequence.
//!
//! ```text
//! sampling  the caller's choices             in
//! logits    [vocab_size] f32                 in
//! seen      [seen_words(vocab_size)] u32     in   one bit per token of the sequence so far
//! position  of the last token so far         in
//! token     the chosen one                   out
//! ```
//!
//! Order of the filters as in transformers: repetition penalty, temperature, top-k, top-p, min-p. Tokens that tie with the last one kept
//! are kept. The draw walks the kept tokens in the order of their ids.
//!
//! Source: Keskar et al. 2019, arXiv 1909.05858 (penalty); Holtzman et al. 2019, arXiv 1904.09751 (top-p).

use crate::batch::Sampling;
use crate::batch::rng::uniform_f32;

/// The next token, and how nearly it was another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    pub token: u32,
    /// How much some logit, or some probability, would have to change for a different choice; ties in the input do not count.
    pub margin: f64,
}

/// A token that may still be chosen.
struct Candidate {
    token: u32,
    /// `(logit - maximum) / temperature`
    value: f64,
    /// `exp(value)`: its probability but for a factor.
    mass: f64,
}

/// # Panics
/// If `logits` is empty.
pub fn sample(sampling: &Sampling, logits: &[f32], seen: &[u32], position: u32) -> Choice {
    let (order, penalized) = ordered(sampling, logits, seen);
    let best = order[0];
    let top = penalized[best as usize];
    if sampling.temperature <= 0.0 {
        let next = order.iter().map(|token| penalized[*token as usize]).find(|logit| *logit < top);
        return Choice { token: best, margin: next.map_or(f64::INFINITY, |next| top - next) };
    }
    let (mut kept, margin) = filtered(sampling, &order, &penalized);
    let drawn = draw(&mut kept, uniform_f32(sampling.seed, position));
    Choice { margin: margin.min(drawn.margin), ..drawn }
}

/// The probability of each token.
///
/// # Panics
/// If `logits` is empty.
pub fn probabilities(sampling: &Sampling, logits: &[f32], seen: &[u32]) -> Vec<f64> {
    let (order, penalized) = ordered(sampling, logits, seen);
    let mut probabilities = vec![0.0; logits.len()];
    if sampling.temperature <= 0.0 {
        probabilities[order[0] as usize] = 1.0;
        return probabilities;
    }
    let (kept, _) = filtered(sampling, &order, &penalized);
    let total: f64 = kept.iter().map(|candidate| candidate.mass).sum();
    for candidate in kept {
        probabilities[candidate.token as usize] = candidate.mass / total;
    }
    probabilities
}

/// All tokens, best first and lowest id first, and their logits after the penalty.
fn ordered(sampling: &Sampling, logits: &[f32], seen: &[u32]) -> (Vec<u32>, Vec<f64>) {
    let penalized = penalized(sampling, logits, seen);
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|a, b| penalized[*b as usize].total_cmp(&penalized[*a as usize]).then(a.cmp(b)));
    (order, penalized)
}

/// What the filters leave, and how nearly it was something else.
fn filtered(sampling: &Sampling, order: &[u32], penalized: &[f64]) -> (Vec<Candidate>, f64) {
    let top = penalized[order[0] as usize];
    let mut kept: Vec<Candidate> = Vec::with_capacity(order.len());
    for &token in order {
        let value = (penalized[token as usize] - top) / f64::from(sampling.temperature);
        kept.push(Candidate { token, value, mass: value.exp() });
    }
    let margin = keep_top_k(&mut kept, sampling.top_k).min(keep_top_p(&mut kept, sampling.top_p));
    let margin = margin.min(keep_min_p(&mut kept, sampling.min_p));
    (kept, margin)
}

/// Makes the tokens that occurred before less likely.
fn penalized(sampling: &Sampling, logits: &[f32], seen: &[u32]) -> Vec<f64> {
    (0u32..).zip(logits).map(|(token, &logit)| penalize(sampling, seen, token, logit)).collect()
}

fn penalize(sampling: &Sampling, seen: &[u32], token: u32, logit: f32) -> f64 {
    let (logit, penalty) = (f64::from(logit), f64::from(sampling.repeat_penalty));
    match seen[token as usize / 32] >> (token % 32) & 1 {
        0 => logit,
        _ if logit < 0.0 => logit * penalty,
        _ => logit / penalty,
    }
}

/// Keeps the first `len`, and what ties with the last of them. Returns the gap to the next one.
fn keep_first(kept: &mut Vec<Candidate>, len: usize) -> f64 {
    let last = kept[len - 1].value;
    let len = kept.partition_point(|candidate| candidate.value >= last);
    let gap = kept.get(len).map_or(f64::INFINITY, |next| last - next.value);
    kept.truncate(len);
    gap
}

fn keep_top_k(kept: &mut Vec<Candidate>, top_k: u32) -> f64 {
    let top_k = top_k as usize;
    if top_k == 0 || top_k >= kept.len() { f64::INFINITY } else { keep_first(kept, top_k) }
}

/// Keeps the smallest set of likeliest tokens with at least the share `top_p` of the mass. The margin is in probability.
fn keep_top_p(kept: &mut Vec<Candidate>, top_p: f32) -> f64 {
    if top_p >= 1.0 {
        return f64::INFINITY;
    }
    let total: f64 = kept.iter().map(|candidate| candidate.mass).sum();
    let (mut share, mut before) = (0.0, 0.0);
    let mut len = 0;
    while len < kept.len() && share < f64::from(top_p) {
        before = share;
        share += kept[len].mass / total;
        len += 1;
    }
    let (above, below) = (share - f64::from(top_p), f64::from(top_p) - before);
    keep_first(kept, len.max(1));
    // The best token is kept whatever the share.
    match len {
        0 => f64::INFINITY,
        1 => above,
        _ => above.min(below),
    }
}

/// Keeps what is at least `min_p` times as likely as the best. The margin is in that ratio.
fn keep_min_p(kept: &mut Vec<Candidate>, min_p: f32) -> f64 {
    if min_p <= 0.0 {
        return f64::INFINITY;
    }
    let min_p = f64::from(min_p);
    // The best token has a mass of 1 and is kept whatever the bound.
    let others = kept.iter().filter(|candidate| candidate.mass < 1.0);
    let margin = others.map(|candidate| (candidate.mass - min_p).abs()).fold(f64::INFINITY, f64::min);
    kept.retain(|candidate| candidate.mass >= min_p.min(1.0));
    margin
}

/// Draws with probability proportional to the mass: the token in whose share of [0, 1), by ascending id, the number falls.
fn draw(kept: &mut [Candidate], uniform_number: f32) -> Choice {
    kept.sort_by_key(|candidate| candidate.token);
    let total: f64 = kept.iter().map(|candidate| candidate.mass).sum();
    let goal = f64::from(uniform_number);
    let mut before = 0.0;
    for candidate in kept.iter() {
        let reached = before + candidate.mass / total;
        if goal < reached {
            // The ends of [0, 1) are no borders to another token.
            let below = if before > 0.0 { goal - before } else { f64::INFINITY };
            let above = if reached < 1.0 - 1e-12 { reached - goal } else { f64::INFINITY };
            return Choice { token: candidate.token, margin: below.min(above) };
        }
        before = reached;
    }
    // Only rounding leads here.
    let last = kept.last().expect("the best token is always kept");
    Choice { token: last.token, margin: 0.0 }
}
