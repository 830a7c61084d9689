//! The merges of a SentencePiece model, which stores scores instead.

use std::cmp::Reverse;
use std::collections::HashMap;

/// A token that may be merged from two others.
#[derive(Debug, Clone, Copy)]
pub struct Scored<'a> {
    pub text: &'a str,
    pub score: f64,
}

/// A token that is longer than this in bytes is no result of merging: the longest that are have less than 100.
const MAX_BYTES: usize = 256;

/// Every split of every token into two others, by the score of the whole, highest first.
///
/// Source: how SentencePiece merges, Kudo and Richardson 2018, arXiv 1808.06226; the order among splits of one token is that of transformers,
/// the longer left part first.
pub fn merges<'a>(tokens: &[Scored<'a>]) -> Vec<(&'a str, &'a str)> {
    let known: HashMap<&str, ()> = tokens.iter().map(|token| (token.text, ())).collect();
    let mut splits = Vec::new();
    for token in tokens.iter().filter(|token| token.text.len() <= MAX_BYTES) {
        for (chars, (at, _)) in token.text.char_indices().enumerate().skip(1) {
            let (left, right) = token.text.split_at(at);
            if known.contains_key(left) && known.contains_key(right) {
                splits.push((token.score, chars, left, right));
            }
        }
    }
    splits.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| Reverse(a.1).cmp(&Reverse(b.1))));
    splits.into_iter().map(|(_, _, left, right)| (left, right)).collect()
}
