//! Numbers on the command line, refused in plain words, and as other programs spell "off".

use std::num::{NonZeroU64, NonZeroUsize};

/// A whole number from 0 on.
pub fn whole(text: &str) -> Result<usize, String> {
    text.trim().parse().map_err(|_| format!("expected a whole number from 0 on{}", near(text)))
}

/// A whole number from 1 on.
pub fn positive(text: &str) -> Result<NonZeroUsize, String> {
    text.trim().parse().map_err(|_| format!("expected a whole number from 1 on{}", near(text)))
}

/// As [`positive`], in 64 bits.
pub fn positive_u64(text: &str) -> Result<NonZeroU64, String> {
    text.trim().parse().map_err(|_| format!("expected a whole number from 1 on{}", near(text)))
}

/// A token id.
pub fn token_id(text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_| format!("expected a token id, which is a whole number from 0 on{}", near(text)))
}

/// A number of tokens to write from 1 on; -1, as elsewhere, is as many as the context holds.
pub fn token_count(text: &str) -> Result<NonZeroUsize, String> {
    match text.trim() {
        "-1" => Ok(NonZeroUsize::MAX),
        other => positive(other).map_err(|problem| format!("{problem}; -1 is as many as the context holds")),
    }
}

/// How many of the likeliest tokens are drawn from: 0, or -1 as elsewhere, is all of them.
pub fn top_k(text: &str) -> Result<usize, String> {
    match text.trim() {
        "-1" => Ok(0),
        other => whole(other).map_err(|problem| format!("{problem}; 0 or -1 is off")),
    }
}

/// A seed; `None` for one from the clock, which other programs write -1.
pub fn seed(text: &str) -> Result<Seed, String> {
    match text.trim() {
        "-1" | "random" => Ok(Seed(None)),
        other => {
            let seed = other.parse().map_err(|_| "expected a whole number from 0 on; -1 is another one each time".to_owned())?;
            Ok(Seed(Some(seed)))
        }
    }
}

/// What [`seed`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub Option<u64>);

/// A temperature: 0 always takes the likeliest token.
pub fn temperature(text: &str) -> Result<f32, String> {
    real(text, "expected a number from 0 on; 0 always takes the likeliest token, 1 is as trained", |number| number >= 0.0)
}

/// What a router's logits are divided by.
pub fn router_temperature(text: &str) -> Result<f32, String> {
    real(text, "router temperature: expected 0.01 to 100; 1 is as trained", |number| (0.01..=100.0).contains(&number))
}

/// A probability that the tokens drawn from have together.
pub fn top_p(text: &str) -> Result<f32, String> {
    real(text, "expected a number above 0, at most 1; 1 is off", |number| number > 0.0 && number <= 1.0)
}

/// A share of the likeliest token's probability.
pub fn min_p(text: &str) -> Result<f32, String> {
    real(text, "expected a number from 0 to 1; 0 is off", |number| (0.0..=1.0).contains(&number))
}

/// A factor against repetition.
pub fn repeat_penalty(text: &str) -> Result<f32, String> {
    real(text, "expected a number above 0; 1 is off", |number| number > 0.0)
}

/// Numbers of 10^9 bytes.
pub fn above_zero(text: &str) -> Result<f64, String> {
    let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| format!("expected a number above zero{}", decimal_comma(text)))
}

fn real(text: &str, expected: &str, allowed: impl Fn(f32) -> bool) -> Result<f32, String> {
    let number = text.trim().parse::<f32>().ok().filter(|number| number.is_finite() && allowed(*number));
    number.ok_or_else(|| format!("{expected}{}", decimal_comma(text)))
}

fn decimal_comma(text: &str) -> &'static str {
    if text.replacen(',', ".", 1).trim().parse::<f32>().is_ok() && text.contains(',') {
        "; write a point, not a comma"
    } else {
        ""
    }
}

/// What may have been meant.
fn near(text: &str) -> String {
    let text = text.trim();
    let plain: String = text.chars().filter(|&character| !matches!(character, '_' | ',' | '\'' | ' ')).collect();
    if plain != text && !plain.is_empty() && plain.chars().all(|character| character.is_ascii_digit()) {
        return format!(": write {plain}");
    }
    let number = text.get(..text.len().saturating_sub(1)).and_then(|number| number.parse::<usize>().ok());
    match (number, text.chars().last()) {
        (Some(number), Some('k' | 'K')) => format!(": write {} or {}", number.saturating_mul(1000), number.saturating_mul(1024)),
        _ if !text.is_empty() && text.chars().all(|character| character.is_ascii_digit()) && text != "0" => {
            ", and a smaller one".to_owned()
        }
        _ => String::new(),
    }
}

/// `25.4 GFLOP`, and smaller units for the smallest models.
pub fn human_flops(flops: u64) -> String {
    let (unit, name) = match flops {
        1_000_000_000.. => (1e9, "GFLOP"),
        1_000_000.. => (1e6, "MFLOP"),
        _ => (1e3, "kFLOP"),
    };
    format!("{:.1} {name}", flops as f64 / unit)
}
