//! How weights lie in device memory, and keys and values.
//!
//! A format packs a matrix of `[rows, cols]` into 16-byte words, row after row. Every row is padded with zeros to a multiple of
//! [`ROW_ALIGN`] columns, one block, so that kernels read whole blocks and never ask where a row ends. A row is a plane of values; in formats
//! of five and six bits, whose values are nibbles, a plane of what they have beyond four bits; and, in the formats that scale their blocks, a
//! plane of scales. All are whole words. Each format names the WGSL flag that selects its unpacking in `shaders/lib/weights.wgsl`.

mod bf16;
mod cache;
mod choice;
mod f16;
mod f32;
mod fp8;
mod ggml;
mod i8m;
mod i8s;
mod mxfp4;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_k;
mod q6_k;
mod q8_0;
mod superblock;

pub use bf16::BF16;
pub use cache::{CacheChoice, CacheFormat};
pub use choice::{QuantChoice, WeightClass};
pub use f16::F16;
pub use f32::F32;
pub use fp8::{FP8, decode_e4m3};
pub use ggml::GgmlBlocks;
pub(crate) use ggml::IQ4_VALUES;
pub use i8m::I8M;
pub use i8s::I8S;
pub use mxfp4::MXFP4;
pub use q4_0::Q4_0;
pub use q4_1::Q4_1;
pub use q4_k::Q4_K;
pub use q5_k::Q5_K;
pub use q6_k::Q6_K;
pub use q8_0::Q8_0;

use crate::platform;
use crate::tensor::Dtype;

/// Columns are padded to a multiple of this, in weights and in activations.
pub const ROW_ALIGN: usize = 32;

/// `len` rounded up to [`ROW_ALIGN`].
pub fn padded(len: usize) -> usize {
    len.next_multiple_of(ROW_ALIGN)
}

/// Values that share a scale, in most formats.
pub const BLOCK: usize = ROW_ALIGN;
/// Values of a superblock, whose scales have a scale of their own.
pub const SUPERBLOCK: usize = 8 * BLOCK;

/// One entry of [`QUANTS`].
#[derive(Debug)]
pub struct QuantFormat {
    /// As given to `--quant`.
    pub name: &'static str,
    /// Defined while composing a kernel that reads weights of this format.
    pub flag: &'static str,
    /// Bits of one value: 32, 16, 8, 6, 5 or 4.
    pub value_bits: usize,
    /// How many of them lie in a plane of their own: those of six and five bits beyond four.
    pub high_bits: usize,
    /// Bits that a block has besides its values.
    pub scale_bits: usize,
    /// Columns of a row that share them: a multiple of [`BLOCK`], or half of it.
    pub block_len: usize,
    /// Columns of a row that share one scale: the same, or a part of it.
    pub group_len: usize,
    /// A stored value of zero stands for something else, and the padding for anything.
    pub has_offset: bool,
    /// As the format of all matrices it spares the head, which stays as stored: no norm follows that dampens its error, and with eight bits
    /// everywhere it makes most of that of the logits, which decides between tokens that are nearly as likely.
    pub keeps_head: bool,
    pub max_error: MaxError,
    /// One row of `padded(cols)` values to its planes.
    pack_row: fn(&[f32], &mut Planes),
    /// The inverse, to `padded(cols)` values.
    unpack_row: fn(&PackedRow, &mut Vec<f32>),
}

/// How far `unpack(pack(w))` may be from `w`, for values in the format's normal range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxError {
    /// Relative to the value.
    OfValue(f32),
    /// Relative to the largest magnitude of the value's block.
    OfBlock(f32),
}

/// The planes of a row that is being packed.
struct Planes<'a> {
    values: Plane<'a>,
    high: Plane<'a>,
    scales: Plane<'a>,
}

/// The bytes of a plane, and how many of them have been written; the others are zero.
struct Plane<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl<'a> Plane<'a> {
    fn new(bytes: &'a mut [u8]) -> Self {
        Plane { bytes, len: 0 }
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    /// The next `len` bytes, to be written.
    fn next(&mut self, len: usize) -> &mut [u8] {
        self.len += len;
        &mut self.bytes[self.len - len..self.len]
    }

    fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.next(bytes.len()).copy_from_slice(bytes);
    }

    fn extend(&mut self, bytes: impl IntoIterator<Item = u8>) {
        bytes.into_iter().for_each(|byte| self.push(byte));
    }
}

/// The planes of a packed row, each as long as its values or longer.
struct PackedRow<'a> {
    values: &'a [u8],
    high: &'a [u8],
    scales: &'a [u8],
}

/// Every format, widest first.
pub static QUANTS: &[&QuantFormat] = &[&F32, &F16, &BF16, &I8M, &I8S, &Q8_0, &FP8, &Q6_K, &Q5_K, &Q4_1, &Q4_K, &Q4_0, &MXFP4];

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

    /// Bits of a value in the first plane.
    pub fn word_bits(&self) -> usize {
        self.value_bits - self.high_bits
    }

    /// Bytes of the plane of values; a multiple of 16.
    pub fn value_bytes(&self, cols: usize) -> usize {
        padded(cols) * self.word_bits() / 8
    }

    /// Where the plane of scales begins in a packed row; a multiple of 16.
    pub fn scales_offset(&self, cols: usize) -> usize {
        self.value_bytes(cols) + (padded(cols) * self.high_bits / 8).next_multiple_of(16)
    }

    /// Bytes of one packed row; a multiple of 16.
    pub fn row_bytes(&self, cols: usize) -> usize {
        self.scales_offset(cols) + (padded(cols).div_ceil(self.block_len) * self.scale_bits / 8).next_multiple_of(16)
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

    /// The format of [`pack_codes`](Self::pack_codes).
    pub fn of_codes(have_minima: bool) -> Quant {
        if have_minima { &I8M } else { &I8S }
    }

    /// Packs codes with scales that are given, as [`I8M`] where there are minima and as [`I8S`] where not: a weight is `scale * code + minimum`, with one
    /// scale and one minimum for each 16 columns of a row. `codes [rows, cols]`, the others `[rows, cols / 16 rounded up]`.
    ///
    /// # Panics
    /// If `codes` is not a whole number of rows, or there are not as many scales and minima as that.
    pub fn pack_codes(codes: &[i8], scales: &[f32], minima: Option<&[f32]>, cols: usize) -> Vec<u8> {
        assert!(cols > 0 && codes.len().is_multiple_of(cols), "{} codes are no rows of {cols}", codes.len());
        let groups = cols.div_ceil(i8s::GROUP);
        let num_rows = codes.len() / cols;
        assert_eq!(scales.len(), num_rows * groups, "a scale for each 16 columns");
        assert!(minima.is_none_or(|minima| minima.len() == scales.len()), "a minimum for each scale");
        Self::of_codes(minima.is_some()).pack_rows(num_rows, cols, |row, planes| {
            planes.values.extend_from_slice(bytemuck::cast_slice(&codes[row * cols..][..cols]));
            for group in row * groups..(row + 1) * groups {
                planes.scales.extend(scales[group].to_le_bytes());
                planes.scales.extend(minima.iter().flat_map(|minima| minima[group].to_le_bytes()));
            }
        })
    }

    fn pack_rows(&self, num_rows: usize, cols: usize, pack_row: impl Fn(usize, &mut Planes) + Sync) -> Vec<u8> {
        let row_bytes = self.row_bytes(cols);
        let mut bytes = vec![0; num_rows * row_bytes];
        platform::for_each_row(&mut bytes, row_bytes, |row, bytes| {
            let (first, scales) = bytes.split_at_mut(self.scales_offset(cols));
            let (values, high) = first.split_at_mut(self.value_bytes(cols));
            let [values, high, scales] = [values, high, scales].map(Plane::new);
            pack_row(row, &mut Planes { values, high, scales });
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
            let (first, scales) = source.split_at(self.scales_offset(cols));
            let (of_values, high) = first.split_at(self.value_bytes(cols));
            row.clear();
            (self.unpack_row)(&PackedRow { values: of_values, high, scales }, &mut row);
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

/// The smallest float of 16 significant bits that is at least a positive `value`: its products with codes of eight bits are exact.
fn short_above(value: f32) -> f32 {
    f32::from_bits((value.to_bits() + 0xff) & !0xff)
}

/// The smallest f16 that is at least `value`, which is not negative; of those beyond the largest that.
fn f16_above(value: f32) -> half::f16 {
    let largest = half::f16::MAX;
    let nearest = half::f16::from_f32(value.min(largest.to_f32()));
    if nearest.to_f32() < value && nearest < largest { half::f16::from_bits(nearest.to_bits() + 1) } else { nearest }
}

/// Appends blocks of 32 values of 4 bits: a `u32` holds eight values, the first four in the low halves of its bytes.
fn push_nibbles(steps: &[u8], out: &mut Plane<'_>) {
    let (eights, fours) = (steps.as_chunks().0, out.next(steps.len() / 2).as_chunks_mut().0);
    for (four, eight) in fours.iter_mut().zip(eights) {
        let nibbles = u64::from_le_bytes(*eight) & 0x0F0F_0F0F_0F0F_0F0F;
        // The last four come to lie beside the first four, a nibble higher.
        *four = ((nibbles | nibbles >> 28) as u32).to_le_bytes();
    }
}

/// The inverse of [`push_nibbles`] for one block of bytes.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.chunks_exact(4).flat_map(|four| four.iter().map(|byte| byte & 15).chain(four.iter().map(|byte| byte >> 4)))
}

/// Appends what blocks of 32 values have beyond four bits, one bit or two: a `u32` holds as many quads of values as it can, value i of a quad in
/// byte i.
fn push_high(steps: &[u8], bits: usize, out: &mut Plane<'_>) {
    let per_byte = 8 / bits;
    let mask = u32::from_le_bytes([(1 << bits) - 1; 4]);
    let fours = out.next(steps.len() / per_byte).as_chunks_mut().0;
    for (four, quads) in fours.iter_mut().zip(steps.chunks_exact(4 * per_byte)) {
        // No quad is shifted out of its bytes.
        let quad = |(index, quad): (usize, &[u8; 4])| (u32::from_le_bytes(*quad) >> 4 & mask) << (index * bits);
        *four = quads.as_chunks().0.iter().enumerate().map(quad).fold(0, |all, quad| all | quad).to_le_bytes();
    }
}

/// The inverse of [`push_high`], for the bytes of whole blocks.
fn high(bytes: &[u8], bits: usize) -> impl Iterator<Item = u8> {
    let per_byte = 8 / bits;
    bytes
        .chunks_exact(4)
        .flat_map(move |four| (0..4 * per_byte).map(move |value| four[value % 4] >> (value / 4 * bits) & ((1 << bits) - 1)))
}

fn read_f16(bytes: &[u8], index: usize) -> f32 {
    half::f16::from_le_bytes([bytes[index * 2], bytes[index * 2 + 1]]).to_f32()
}

fn read_f32(bytes: &[u8], index: usize) -> f32 {
    f32::from_le_bytes([0, 1, 2, 3].map(|byte| bytes[index * 4 + byte]))
}
