//! lfu: how often an expert was used, where every use counts less the longer ago it was.

use super::{Policy, PolicySetup};
use std::cmp::Ordering;

/// After so many tokens a use counts half.
pub const HALF_LIFE: u64 = 32;

/// The worth of an expert is the sum of `2^(t / HALF_LIFE)` over the tokens `t` that used it. Today's worth would be this, divided by
/// `2^(now / HALF_LIFE)`; all of them would be, so they are compared as they are, and none ever has to be aged.
#[derive(Debug)]
pub(super) struct Lfu {
    /// `[experts]`
    worth: Vec<Worth>,
    /// `2^(i / HALF_LIFE)`
    fractions: Vec<f64>,
}

/// `mantissa * 2^exponent`, with a mantissa from 1 to 2, or zero. An f64 alone would overflow after 32 thousand tokens. Only operations that are
/// exact or rounded the same way everywhere are used: a page and a program evict the same experts.
#[derive(Debug, Clone, Copy)]
struct Worth {
    exponent: i64,
    mantissa: f64,
}

impl Worth {
    const ZERO: Worth = Worth { exponent: i64::MIN, mantissa: 0.0 };

    fn new(exponent: i64, mantissa: f64) -> Self {
        let (mut exponent, mut mantissa) = (exponent, mantissa);
        while mantissa >= 2.0 {
            mantissa /= 2.0;
            exponent += 1;
        }
        Worth { exponent, mantissa }
    }

    fn plus(self, other: Worth) -> Worth {
        let (large, small) = if self.cmp(other) == Ordering::Less { (other, self) } else { (self, other) };
        // Beyond the digits of an f64 nothing is added; zero is farther away than anything.
        match large.exponent.saturating_sub(small.exponent) {
            distance @ 0..=60 => Worth::new(large.exponent, large.mantissa + small.mantissa / (1u64 << distance) as f64),
            _ => large,
        }
    }

    fn cmp(self, other: Worth) -> Ordering {
        self.exponent.cmp(&other.exponent).then(self.mantissa.total_cmp(&other.mantissa))
    }
}

impl Lfu {
    pub(super) fn new(setup: &PolicySetup<'_>) -> Self {
        // The root of a number is rounded the same way everywhere, unlike its powers.
        let mut step = 2f64;
        for _ in 0..HALF_LIFE.trailing_zeros() {
            step = step.sqrt();
        }
        let fractions = std::iter::successors(Some(1.0), |fraction| Some(fraction * step)).take(HALF_LIFE as usize);
        Lfu { worth: vec![Worth::ZERO; setup.experts], fractions: fractions.collect() }
    }
}

// The roots above need it.
const _: () = assert!(HALF_LIFE.is_power_of_two());

impl Policy for Lfu {
    fn used(&mut self, expert: usize, tokens: u32, now: u64) {
        if tokens > 0 {
            let (whole, part) = ((now / HALF_LIFE) as i64, (now % HALF_LIFE) as usize);
            let use_now = Worth::new(whole, self.fractions[part] * f64::from(tokens));
            self.worth[expert] = self.worth[expert].plus(use_now);
        }
    }

    fn victim(&self, candidates: &[usize], _: u64) -> usize {
        // The first of equal ones.
        let least = candidates.iter().copied().min_by(|&a, &b| self.worth[a].cmp(self.worth[b]));
        least.expect("there is a candidate")
    }
}
