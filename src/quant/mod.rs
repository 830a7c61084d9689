//! How weights lie in device memory, and keys and values.
//!
//! A format packs a matrix of `[rows, cols]` into 16-byte words, row after row. Every row is padded with zeros to a multiple of
//! [`ROW_ALIGN`] columns, one block, so that kernels read whole blocks and never ask where a row ends. A row is a plane of values and, in
//! the formats that scale their blocks, a plane of scales; both are whole words. Each format names the WGSL flag that selects its unpacking
//! in `shaders/lib/weights.wgsl`.

mod bf16;
mod cache;
mod choice;
mod f16;
mod f32;
mod fp8;
mod mxfp4;
mod q4_0;
mod q4_1;
mod q8_0;

pub use bf16::BF16;
pub use cache::{CacheChoice, CacheFormat};
pub use choice::{QuantChoice, WeightClass};
pub use f16::F16;
pub use f32::F32;
pub use fp8::{FP8, decode_e4m3};
pub use mxfp4::MXFP4;
pub use q4_0::Q4_0;
pub use q4_1::Q4_1;
pub use q8_0::Q8_0;

use crate::platform;
use crate::tensor::Dtype;

/// Columns are padded to a multiple of this, in weights and in activations.
pub const ROW_ALIGN: usize = 32;

/// `len` rounded up to [`ROW_ALIGN`].
pub fn padded(len: usize) -> usize {
    len.next_multiple_of(ROW_ALIGN)
}

/// Values that share a scale, in most formats; in the others a multiple of this.
pub const BLOCK: usize = ROW_ALIGN;

/// One entry of [`QUANTS`].
#[derive(Debug)]
pub struct QuantFormat {
    /// As given to `--quant`.
    pub name: &'static str,
    /// Defined while composing a kernel that reads weights of this format.
    pub flag: &'static str,
    /// Bits of one value: 32, 16, 8 or 4.
    pub value_bits: usize,
    /// Bits that a block has besides its values.
    pub scale_bits: usize,
    /// Columns of a row that share it: a multiple of [`BLOCK`].
    pub block_len: usize,
    /// A stored value of zero stands for something else, and the padding for anything.
    pub has_offset: bool,
    /// As the format of all matrices it spares the head, which stays as stored: no norm follows that dampens its error, and with eight bits
    /// everywhere it makes most of that of the logits, which decides between tokens that are nearly as likely.
    pub keeps_head: bool,
    pub max_error: MaxError,
    /// One row of `padded(cols)` values to its planes.
    pack_row: fn(&[f32], &mut Planes),
    /// The inverse, from the values and the scales to `padded(cols)` values.
    unpack_row: fn(&[u8], &[u8], &mut Vec<f32>),
}

/// How far `unpack(pack(w))` may be from `w`, for values in the format's normal range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxError {
    /// Relative to the value.
    OfValue(f32),
    /// Relative to the largest magnitude of the value's block.
    OfBlock(f32),
}

/// A packed row while it is made.
#[derive(Debug, Default)]
struct Planes {
    values: Vec<u8>,
    scales: Vec<u8>,
}

/// Every format, widest first.
pub static QUANTS: &[&QuantFormat] = &[&F32, &F16, &BF16, &Q8_0, &FP8, &Q4_1, &Q4_0, &MXFP4];

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

    /// The format of gpt-oss's experts.
    pub fn mxfp4() -> Quant {
        &mxfp4::MXFP4
    }

    /// The format of checkpoints in block FP8.
    pub fn fp8() -> Quant {
        &fp8::FP8
    }

    /// What the head takes where this is the format of all matrices, and the head is stored in 16 bits as nearly every checkpoint has it.
    pub fn usual_head(&'static self) -> Quant {
        if self.keeps_head { &bf16::BF16 } else { self }
    }

    /// Bits of a value with its share of the scale.
    pub fn bits_per_weight(&self) -> f64 {
        self.value_bits as f64 + self.scale_bits as f64 / self.block_len as f64
    }

    /// Bytes of the plane of values; a multiple of 16.
    pub fn value_bytes(&self, cols: usize) -> usize {
        padded(cols) * self.value_bits / 8
    }

    /// Bytes of one packed row; a multiple of 16.
    pub fn row_bytes(&self, cols: usize) -> usize {
        self.value_bytes(cols) + (padded(cols).div_ceil(self.block_len) * self.scale_bits / 8).next_multiple_of(16)
    }

    /// Packs `values [rows, cols]`, row after row, each row padded.
    ///
    /// # Panics
    /// If `values` is not a whole number of rows.
    pub fn pack(&self, values: &[f32], cols: usize) -> Vec<u8> {
        assert!(cols > 0 && values.len().is_multiple_of(cols), "{} values are no rows of {cols}", values.len());
        self.pack_rows(values.len() / cols, cols, |row, planes| (self.pack_row)(&padded_row(values, row, cols), planes))
    }

    /// Packs rows of [`fp8`](Self::fp8) with factors that are given: `values [rows, cols]` without factors, each of them a value of the format,
    /// and the factor of each in `scales [rows, cols]`, the same throughout a block of columns.
    ///
    /// # Panics
    /// If `values` is not a whole number of rows, or `scales` not as long.
    pub fn pack_fp8(values: &[f32], scales: &[f32], cols: usize) -> Vec<u8> {
        assert!(cols > 0 && values.len().is_multiple_of(cols), "{} values are no rows of {cols}", values.len());
        assert_eq!(values.len(), scales.len(), "a factor for each value");
        Self::fp8().pack_rows(values.len() / cols, cols, |row, planes| {
            fp8::pack_row_as_stored(&padded_row(values, row, cols), &scales[row * cols..][..cols], planes);
        })
    }

    fn pack_rows(&self, num_rows: usize, cols: usize, pack_row: impl Fn(usize, &mut Planes) + Sync) -> Vec<u8> {
        let row_bytes = self.row_bytes(cols);
        let mut bytes = vec![0; num_rows * row_bytes];
        platform::for_each_row(&mut bytes, row_bytes, |row, bytes| {
            let mut planes = Planes::default();
            pack_row(row, &mut planes);
            let (for_values, for_scales) = bytes.split_at_mut(self.value_bytes(cols));
            for_values.copy_from_slice(&planes.values);
            for_scales[..planes.scales.len()].copy_from_slice(&planes.scales);
        });
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
            let (of_values, of_scales) = source.split_at(self.value_bytes(cols));
            row.clear();
            (self.unpack_row)(of_values, of_scales, &mut row);
            values.extend_from_slice(&row[..cols]);
        }
        values
    }
}

/// One row of `values`, with its padding.
fn padded_row(values: &[f32], row: usize, cols: usize) -> Vec<f32> {
    let mut padded_row = vec![0.0; padded(cols)];
    padded_row[..cols].copy_from_slice(&values[row * cols..][..cols]);
    padded_row
}

/// The value of largest magnitude, with its sign.
fn extreme(block: &[f32]) -> f32 {
    block.iter().fold(0.0, |extreme: f32, &value| if value.abs() > extreme.abs() { value } else { extreme })
}

/// `value / scale`, or zero in a block of zeros.
fn scaled(value: f32, scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { value / scale }
}

/// Appends 32 values of 4 bits: a `u32` holds eight values, the first four in the low halves of its bytes.
fn push_nibbles(nibbles: &[u8], out: &mut Vec<u8>) {
    for eight in nibbles.chunks_exact(8) {
        out.extend((0..4).map(|i| eight[i] | eight[i + 4] << 4));
    }
}

/// The inverse of [`push_nibbles`] for one block of bytes.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.chunks_exact(4).flat_map(|four| four.iter().map(|byte| byte & 15).chain(four.iter().map(|byte| byte >> 4)))
}

fn read_f16(bytes: &[u8], index: usize) -> f32 {
    half::f16::from_le_bytes([bytes[index * 2], bytes[index * 2 + 1]]).to_f32()
}
