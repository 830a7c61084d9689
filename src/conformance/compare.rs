//! What counts as equal.

use half::f16;

/// How far a kernel may be from its twin, and why so far. Both bounds hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Largest difference of any element.
    pub max_abs: f32,
    /// Sum of squared differences over sum of squared expected values.
    pub nmse: f64,
    pub why: &'static str,
}

/// How one element is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// A float within the tolerance of the case.
    Close,
    /// Two f16 within the tolerance of the case and one step of an f16, whose rounding begins from values that close.
    Halves,
    /// Equal to the last bit: an integer, or memory that the kernel must leave alone.
    Exact,
    /// Too close to call, says the twin.
    Free,
}

/// What a buffer has to hold, element by element.
#[derive(Debug, Clone, Default)]
pub(super) struct Expected {
    bits: Vec<u32>,
    rules: Vec<Rule>,
}

/// The share of elements that may be too close to call.
const MAX_FREE_SHARE: f64 = 0.1;

impl Expected {
    pub fn len(&self) -> usize {
        self.bits.len()
    }

    pub fn push(&mut self, bits: u32, rule: Rule) {
        self.bits.push(bits);
        self.rules.push(rule);
    }

    pub fn set(&mut self, index: usize, bits: u32, rule: Rule) {
        self.bits[index] = bits;
        self.rules[index] = rule;
    }
}

/// The comparison of all outputs of a case.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub max_abs_error: f32,
    pub nmse: f64,
    /// What is wrong first; empty if nothing is.
    pub detail: String,
    squared_error: f64,
    squared_expected: f64,
}

impl Comparison {
    /// The outcome of a case that could not be compared.
    pub fn failed(detail: String) -> Self {
        Comparison { max_abs_error: f32::INFINITY, nmse: f64::INFINITY, detail, ..Default::default() }
    }

    /// Compares one buffer.
    pub fn add(&mut self, name: &str, found: &[u32], expected: &Expected, tolerance: &Tolerance) {
        let (mut free, mut halves, mut other_way) = (0, 0, 0);
        for (index, ((&found, &bits), rule)) in found.iter().zip(&expected.bits).zip(&expected.rules).enumerate() {
            match rule {
                Rule::Free => free += 1,
                Rule::Exact if found != bits => {
                    self.note(format!("{name}[{index}]: expected exactly {bits:#x}, found {found:#x}"));
                }
                Rule::Exact => {}
                Rule::Halves => {
                    for half in 0..2 {
                        let pair = [found, bits].map(|word| f16::from_bits((word >> (16 * half)) as u16).to_f32());
                        halves += 1;
                        other_way += i32::from(self.add_half(name, 2 * index + half, pair, tolerance));
                    }
                }
                Rule::Close => self.add_float(name, index, [f32::from_bits(found), f32::from_bits(bits)], tolerance),
            }
        }
        self.nmse = if self.squared_error == 0.0 { 0.0 } else { self.squared_error / self.squared_expected };
        if self.nmse > tolerance.nmse || self.nmse.is_nan() {
            self.note(format!("{name}: normalised squared error {:.1e}, allowed {:.1e}", self.nmse, tolerance.nmse));
        }
        if f64::from(other_way) > MAX_FREE_SHARE * f64::from(halves) {
            self.note(format!("{name}: {other_way} of {halves} f16 are rounded the other way"));
        }
        if free as f64 > MAX_FREE_SHARE * expected.len() as f64 {
            self.note(format!("{name}: {free} of {} elements are too close to call", expected.len()));
        }
    }

    fn add_float(&mut self, name: &str, index: usize, [found, expected]: [f32; 2], tolerance: &Tolerance) {
        let error = if found == expected { 0.0 } else { (found - expected).abs() };
        let error = if error.is_nan() { f32::INFINITY } else { error };
        if error > tolerance.max_abs {
            self.note(format!("{name}[{index}]: expected {expected}, found {found}, allowed {:.1e}", tolerance.max_abs));
        }
        self.max_abs_error = self.max_abs_error.max(error);
        self.squared_error += f64::from(error).powi(2);
        self.squared_expected += f64::from(expected).powi(2);
    }

    /// Returns whether it was rounded the other way: next to the middle of two f16, a value may become either.
    fn add_half(&mut self, name: &str, index: usize, [found, expected]: [f32; 2], tolerance: &Tolerance) -> bool {
        if found != expected && (found - expected).abs() <= half_step(expected) {
            return true;
        }
        self.add_float(name, index, [found, expected], tolerance);
        false
    }

    fn note(&mut self, problem: String) {
        if self.detail.is_empty() {
            self.detail = problem;
        }
    }
}

/// From a finite f16 to the next larger magnitude, of the largest one to the one before.
fn half_step(value: f32) -> f32 {
    let bits = f16::from_f32(value.abs()).to_bits().min(f16::MAX.to_bits() - 1);
    f16::from_bits(bits + 1).to_f32() - f16::from_bits(bits).to_f32()
}
