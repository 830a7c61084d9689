//! How weights lie in device memory.
//!
//! A format packs a matrix of `[rows, cols]` into 16-byte words, row after row. Every row is padded with zeros to a multiple of
//! [`ROW_ALIGN`] columns, so that kernels read whole chunks and never ask where a row ends. Each format names the WGSL flag that
//! selects its unpacking in `shaders/lib/weights.wgsl`.

mod bf16;
mod f16;
mod f32;

use crate::tensor::Dtype;

/// Columns are padded to a multiple of this, in weights and in activations.
pub const ROW_ALIGN: usize = 32;

/// `len` rounded up to [`ROW_ALIGN`].
pub fn padded(len: usize) -> usize {
    len.next_multiple_of(ROW_ALIGN)
}

/// One entry of [`QUANTS`].
#[derive(Debug)]
pub struct QuantFormat {
    /// As given to `--quant`.
    pub name: &'static str,
    /// Defined while composing a kernel that reads weights of this format.
    pub flag: &'static str,
    pub bits_per_weight: f64,
    /// `|unpack(pack(w)) - w| <= max_relative_error * |w|` for every normal value in the format's range.
    pub max_relative_error: f32,
    /// One row of `padded(cols)` values to bytes.
    pack_row: fn(&[f32], &mut Vec<u8>),
    /// The inverse, to `padded(cols)` values.
    unpack_row: fn(&[u8], &mut Vec<f32>),
}

/// Every format, widest first.
pub static QUANTS: &[&QuantFormat] = &[&f32::F32, &f16::F16, &bf16::BF16];

/// A handle to one of [`QUANTS`], compared by name.
pub type Quant = &'static QuantFormat;

impl PartialEq for QuantFormat {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for QuantFormat {}

impl QuantFormat {
    /// Looks a format up by its name.
    pub fn find(name: &str) -> Option<Quant> {
        QUANTS.iter().copied().find(|quant| quant.name == name)
    }

    /// The format that keeps values of `dtype` exactly.
    pub fn exact_for(dtype: Dtype) -> Quant {
        match dtype {
            Dtype::F32 => &f32::F32,
            Dtype::F16 => &f16::F16,
            Dtype::Bf16 => &bf16::BF16,
        }
    }

    /// Bytes of one packed row; a multiple of 16.
    pub fn row_bytes(&self, cols: usize) -> usize {
        (padded(cols) as f64 * self.bits_per_weight / 8.0) as usize
    }

    /// Packs `values [rows, cols]`, row after row, each row padded.
    ///
    /// # Panics
    /// If `values` is not a whole number of rows.
    pub fn pack(&self, values: &[f32], cols: usize) -> Vec<u8> {
        assert!(cols > 0 && values.len().is_multiple_of(cols), "{} values are no rows of {cols}", values.len());
        let rows = values.len() / cols;
        let mut bytes = Vec::with_capacity(rows * self.row_bytes(cols));
        let mut row = vec![0.0; padded(cols)];
        for source in values.chunks_exact(cols) {
            row[..cols].copy_from_slice(source);
            (self.pack_row)(&row, &mut bytes);
        }
        bytes
    }

    /// The inverse of [`pack`](Self::pack), without the padding.
    ///
    /// # Panics
    /// If `bytes` is not a whole number of rows.
    pub fn unpack(&self, bytes: &[u8], cols: usize) -> Vec<f32> {
        let row_bytes = self.row_bytes(cols);
        assert!(bytes.len().is_multiple_of(row_bytes), "{} bytes are no rows of {row_bytes}", bytes.len());
        let mut values = Vec::with_capacity(bytes.len() / row_bytes * cols);
        let mut row = Vec::with_capacity(padded(cols));
        for source in bytes.chunks_exact(row_bytes) {
            row.clear();
            (self.unpack_row)(source, &mut row);
            values.extend_from_slice(&row[..cols]);
        }
        values
    }
}
