//! How blocks of values move from one place in their rows to another.

/// Where the values of one side lie: element `(t, a, b, c)` is at `first + t token + a outer + b inner + c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strides {
    pub first: usize,
    pub token: usize,
    pub outer: usize,
    pub inner: usize,
}

/// What moves: `outer * inner` blocks of `len` values per token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Regroup {
    pub outer: usize,
    pub inner: usize,
    pub len: usize,
    pub x: Strides,
    pub y: Strides,
    /// Add so many times what `x` holds, instead of replacing.
    pub add: Option<f32>,
}

impl Strides {
    /// Index of the first value of block `(a, b)` of row `t`.
    pub fn place(&self, t: usize, a: usize, b: usize) -> usize {
        self.first + t * self.token + a * self.outer + b * self.inner
    }
}
