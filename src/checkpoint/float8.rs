//! F8_E4M3 in blocks, as stored by DeepSeek-V3: one factor for a block of rows and columns. The codes are those of [`crate::quant`]'s `fp8`.

use crate::quant::{QuantFormat, decode_e4m3};

pub(super) const DTYPE: safetensors::Dtype = safetensors::Dtype::F8_E4M3;

/// Name of the tensor with the factors of the matrix `name`.
pub(super) fn scales_of(name: &str) -> String {
    format!("{name}_scale_inv")
}

/// What is read of an element in eight bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Facet {
    /// Code times factor, rounded once to f32.
    Product,
    /// The code's value alone.
    Code,
    Factor,
}

/// The factors of one matrix.
pub(super) struct Scales {
    /// `[ceil(rows / block[0]), ceil(cols / block[1])]`
    pub values: Vec<f32>,
    /// Of the matrix.
    pub cols: usize,
    pub block: [usize; 2],
}

impl Scales {
    /// Appends a facet of each of `codes`, the elements of the matrix from `first` on.
    pub fn widen_into(&self, first: u64, codes: &[u8], facet: Facet, out: &mut Vec<f32>) {
        let scales_per_row = self.cols.div_ceil(self.block[1]);
        let (mut row, mut col) = ((first / self.cols as u64) as usize, (first % self.cols as u64) as usize);
        for code in codes {
            let scale = self.values[row / self.block[0] * scales_per_row + col / self.block[1]];
            out.push(match facet {
                Facet::Product => decode_e4m3(*code) * scale,
                Facet::Code => decode_e4m3(*code),
                Facet::Factor => scale,
            });
            col += 1;
            if col == self.cols {
                (row, col) = (row + 1, 0);
            }
        }
    }
}

/// Whether every run of columns that shares a factor on the device shares one here too. Column 0 of the weight is number `start` along the axis
/// of the stored matrix whose blocks are `block` long.
pub(super) fn keeps_blocks(start: usize, cols: usize, block: usize) -> bool {
    let len = QuantFormat::fp8().block_len;
    (0..cols).step_by(len).all(|first| {
        let last = cols.min(first + len) - 1;
        (start + first) / block == (start + last) / block
    })
}
