//! F8_E4M3 in blocks: four exponent bits, three of the mantissa, no infinity, and one factor for a block of rows and columns.
//! Source: Micikevicius et al. 2022, arXiv 2209.05433, as stored by DeepSeek-V3.

use std::sync::LazyLock;

pub(super) const DTYPE: safetensors::Dtype = safetensors::Dtype::F8_E4M3;

/// By code; the sign is the highest bit.
static VALUES: LazyLock<[f32; 256]> = LazyLock::new(|| std::array::from_fn(|code| value(code as u8)));

/// Name of the tensor with the factors of the matrix `name`.
pub(super) fn scales_of(name: &str) -> String {
    format!("{name}_scale_inv")
}

fn value(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let magnitude = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 8.0 * 2f32.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if code & 128 == 0 { magnitude } else { -magnitude }
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
    /// Widens `codes`, the elements of the matrix from `first` on. Each is code times factor, rounded once to f32.
    pub fn widen_into(&self, first: u64, codes: &[u8], out: &mut Vec<f32>) {
        let scales_per_row = self.cols.div_ceil(self.block[1]);
        let (mut row, mut col) = ((first / self.cols as u64) as usize, (first % self.cols as u64) as usize);
        for code in codes {
            let scale = self.values[row / self.block[0] * scales_per_row + col / self.block[1]];
            out.push(VALUES[usize::from(*code)] * scale);
            col += 1;
            if col == self.cols {
                (row, col) = (row + 1, 0);
            }
        }
    }
}
