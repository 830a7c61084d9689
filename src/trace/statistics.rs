//! Statistics of a trace. Each is a plain function, so that it can be checked by hand.

use super::Trace;
use serde::Serialize;
use std::collections::BTreeMap;

/// Tokens that [`Statistics`] lists for each expert, and frequent tokens that it lists the experts of.
const TOKENS_PER_EXPERT: usize = 6;
const FREQUENT_TOKENS: usize = 24;
/// Rarer tokens say little about an expert.
const LEAST_COUNT: u64 = 3;

/// Everything that a report shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Statistics {
    pub tokens: usize,
    /// Tokens of each domain.
    pub domains: Vec<(String, usize)>,
    pub layers: Vec<LayerStatistics>,
    /// The most frequent tokens, the most frequent first.
    pub preferences: Vec<TokenPreference>,
}

/// One layer with `E` experts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerStatistics {
    /// Index in the model.
    pub layer: usize,
    pub experts_per_token: usize,
    /// `[E]`: assignments.
    pub loads: Vec<u64>,
    pub balance: Balance,
    /// Share of a token's experts that the token before it had too, on average; `None` without consecutive tokens.
    pub overlap: Option<f64>,
    /// What `overlap` would be if every token drew its experts by load alone.
    pub chance_overlap: f64,
    /// `[E][E]`: tokens that had both experts; the diagonal is the load.
    pub coactivation: Vec<Vec<u64>>,
    /// One per domain.
    pub domains: Vec<DomainLayer>,
    /// `[E]`: the tokens that each expert got beyond its share, the clearest first.
    pub expert_tokens: Vec<Vec<ExpertToken>>,
}

/// How evenly experts are used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Balance {
    /// Load of the busiest expert over that of the idlest; `None` where that has none.
    pub ratio: Option<f64>,
    /// Coefficient of variation: standard deviation over mean.
    pub variation: f64,
    /// 1 for equal loads, 0 for one expert that does everything.
    pub entropy: f64,
    /// Experts that were never chosen.
    pub dead: usize,
}

/// One domain in one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DomainLayer {
    /// `[E]`: assignments of its tokens.
    pub loads: Vec<u64>,
    /// [`divergence`] of its load from the load of all domains together.
    pub divergence: f64,
}

/// A token in the eyes of an expert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExpertToken {
    pub text: String,
    /// Times that the expert got it, of the times that it occurred.
    pub count: u64,
    pub total: u64,
}

/// The experts of a token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenPreference {
    pub text: String,
    pub count: u64,
    /// One per layer: the expert that it went to most, and the share of its occurrences that did.
    pub favourites: Vec<(usize, f64)>,
}

/// Shares that add up to 1; zeros where nothing was counted.
pub fn shares(loads: &[u64]) -> Vec<f64> {
    let total = loads.iter().sum::<u64>().max(1) as f64;
    loads.iter().map(|&load| load as f64 / total).collect()
}

/// How evenly `loads` are spread. All zeros count as one expert's work.
pub fn balance(loads: &[u64]) -> Balance {
    let total: u64 = loads.iter().sum();
    let mean = total as f64 / loads.len().max(1) as f64;
    let variance = loads.iter().map(|&load| (load as f64 - mean).powi(2)).sum::<f64>() / loads.len().max(1) as f64;
    let (busiest, idlest) = (loads.iter().max().copied().unwrap_or(0), loads.iter().min().copied().unwrap_or(0));
    let bits: f64 = shares(loads).into_iter().filter(|&share| share > 0.0).map(|share| -share * share.log2()).sum();
    Balance {
        ratio: (idlest > 0).then(|| busiest as f64 / idlest as f64),
        variation: if mean > 0.0 { variance.sqrt() / mean } else { 0.0 },
        // A single expert is as even as can be.
        entropy: if loads.len() > 1 { bits / (loads.len() as f64).log2() } else { 1.0 },
        dead: loads.iter().filter(|&&load| load == 0).count(),
    }
}

/// Jensen-Shannon divergence of two loads, in bits: 0 for the same shares, 1 for nothing in common.
pub fn divergence(a: &[u64], b: &[u64]) -> f64 {
    let (a, b) = (shares(a), shares(b));
    let to_middle = |from: &[f64], other: &[f64]| -> f64 {
        let each = from.iter().zip(other).filter(|(share, _)| **share > 0.0);
        each.map(|(share, other)| share * (share / ((share + other) / 2.0)).log2()).sum()
    };
    ((to_middle(&a, &b) + to_middle(&b, &a)) / 2.0).max(0.0)
}

impl Statistics {
    pub fn of(trace: &Trace) -> Self {
        let mut domains: Vec<(String, usize)> = trace.domains.iter().map(|name| (name.clone(), 0)).collect();
        trace.tokens.iter().for_each(|token| domains[token.domain].1 += 1);
        let texts = by_text(trace);
        Statistics {
            tokens: trace.tokens.len(),
            domains,
            layers: (0..trace.layers.len()).map(|layer| of_layer(trace, layer, &texts)).collect(),
            preferences: preferences(trace, &texts),
        }
    }
}

/// The tokens of each text, by index in the trace. Tokens without a text of their own are left out.
fn by_text(trace: &Trace) -> BTreeMap<&str, Vec<usize>> {
    let mut texts: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, token) in trace.tokens.iter().enumerate().filter(|(_, token)| !token.text.is_empty()) {
        texts.entry(&token.text).or_default().push(index);
    }
    texts
}

fn of_layer(trace: &Trace, layer: usize, texts: &BTreeMap<&str, Vec<usize>>) -> LayerStatistics {
    let spec = trace.layers[layer];
    let mut coactivation = vec![vec![0; spec.experts]; spec.experts];
    let mut by_domain = vec![vec![0; spec.experts]; trace.domains.len()];
    for (index, token) in trace.tokens.iter().enumerate() {
        let (chosen, _) = trace.chosen(index, layer);
        for &expert in chosen {
            by_domain[token.domain][expert as usize] += 1;
            chosen.iter().for_each(|&other| coactivation[expert as usize][other as usize] += 1);
        }
    }
    let loads: Vec<u64> = (0..spec.experts).map(|expert| coactivation[expert][expert]).collect();
    let of_token = |load: u64| load as f64 / trace.tokens.len().max(1) as f64;
    LayerStatistics {
        layer: spec.layer,
        experts_per_token: spec.experts_per_token,
        balance: balance(&loads),
        overlap: overlap(trace, layer),
        chance_overlap: loads.iter().map(|&load| of_token(load).powi(2)).sum::<f64>() / spec.experts_per_token as f64,
        domains: by_domain
            .into_iter()
            .map(|domain| DomainLayer { divergence: divergence(&domain, &loads), loads: domain })
            .collect(),
        expert_tokens: (0..spec.experts).map(|expert| expert_tokens(trace, layer, expert, &loads, texts)).collect(),
        coactivation,
        loads,
    }
}

fn overlap(trace: &Trace, layer: usize) -> Option<f64> {
    let (mut shared, mut pairs) = (0, 0);
    for (index, pair) in trace.tokens.windows(2).enumerate() {
        if pair[0].domain != pair[1].domain || pair[0].position + 1 != pair[1].position {
            continue;
        }
        let (before, _) = trace.chosen(index, layer);
        let (chosen, _) = trace.chosen(index + 1, layer);
        shared += chosen.iter().filter(|expert| before.contains(expert)).count();
        pairs += 1;
    }
    (pairs > 0).then(|| shared as f64 / (pairs * trace.layers[layer].experts_per_token) as f64)
}

/// The tokens that `expert` got most beyond what its load alone would have given it.
fn expert_tokens(
    trace: &Trace,
    layer: usize,
    expert: usize,
    loads: &[u64],
    texts: &BTreeMap<&str, Vec<usize>>,
) -> Vec<ExpertToken> {
    let share = loads[expert] as f64 / trace.tokens.len().max(1) as f64;
    let mut found: Vec<(f64, ExpertToken)> = Vec::new();
    for (text, indices) in texts {
        let has = |index: &&usize| trace.chosen(**index, layer).0.contains(&(expert as u32));
        let (count, total) = (indices.iter().filter(has).count() as u64, indices.len() as u64);
        let excess = count as f64 - share * total as f64;
        if count >= LEAST_COUNT && excess > 0.0 {
            found.push((excess, ExpertToken { text: (*text).to_owned(), count, total }));
        }
    }
    // Stable: equal ones stay in the order of their texts.
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found.into_iter().take(TOKENS_PER_EXPERT).map(|(_, token)| token).collect()
}

fn preferences(trace: &Trace, texts: &BTreeMap<&str, Vec<usize>>) -> Vec<TokenPreference> {
    let mut frequent: Vec<(&&str, &Vec<usize>)> = texts.iter().collect();
    frequent.sort_by_key(|(_, indices)| std::cmp::Reverse(indices.len()));
    let favourite = |indices: &[usize], layer: usize| {
        let mut loads = vec![0u64; trace.layers[layer].experts];
        indices.iter().flat_map(|&index| trace.chosen(index, layer).0).for_each(|&expert| loads[expert as usize] += 1);
        // The lower expert of equal ones.
        let best = (0..loads.len()).rev().max_by_key(|&expert| loads[expert]).unwrap_or(0);
        (best, loads[best] as f64 / indices.len() as f64)
    };
    let of_token = |(text, indices): (&&str, &Vec<usize>)| TokenPreference {
        text: (**text).to_owned(),
        count: indices.len() as u64,
        favourites: (0..trace.layers.len()).map(|layer| favourite(indices, layer)).collect(),
    };
    frequent.into_iter().take(FREQUENT_TOKENS).map(of_token).collect()
}
