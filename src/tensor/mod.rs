//! Tensors in host memory, as they stand in a checkpoint.

mod dtype;

pub use dtype::Dtype;

use std::borrow::Cow;

/// A dense row-major tensor of `shape`, little-endian.
#[derive(Debug, Clone)]
pub struct Tensor<'a> {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Cow<'a, [u8]>,
}

/// Rows of a weight matrix, widened to f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    pub rows: usize,
    pub cols: usize,
    /// `[rows, cols]`
    pub values: Vec<f32>,
}
