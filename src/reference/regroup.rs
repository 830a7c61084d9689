//! regroup: blocks of values to another place, row by row: copied, or added `scale` times.
//!
//! ```text
//! x  [num_tokens, ..] f32  in
//! y  [num_tokens, ..] f32  out   y[t, a, b, c] = x[t, a, b, c], each by its own strides
//! ```

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
    fn place(&self, t: usize, a: usize, b: usize) -> usize {
        self.first + t * self.token + a * self.outer + b * self.inner
    }
}

pub fn regroup(shape: &Regroup, num_tokens: usize, x: &[f32], y: &mut [f32]) {
    for t in 0..num_tokens {
        for block in 0..shape.outer * shape.inner {
            let (a, b) = (block / shape.inner, block % shape.inner);
            let from = &x[shape.x.place(t, a, b)..][..shape.len];
            let to = &mut y[shape.y.place(t, a, b)..][..shape.len];
            match shape.add {
                None => to.copy_from_slice(from),
                Some(scale) => to.iter_mut().zip(from).for_each(|(y, x)| *y += scale * x),
            }
        }
    }
}
