//! The upper half of a 32-bit float: eight weights per 16-byte word, the lower half of each `u32` first. Rounded to nearest even.

use super::QuantFormat;
use crate::tensor::Dtype;

pub(super) static BF16: QuantFormat =
    QuantFormat { name: "bf16", flag: "WEIGHT_BF16", bits_per_weight: 16.0, max_relative_error: 4e-3, pack_row, unpack_row };

fn pack_row(row: &[f32], out: &mut Vec<u8>) {
    out.extend(row.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()));
}

fn unpack_row(bytes: &[u8], out: &mut Vec<f32>) {
    Dtype::Bf16.widen_into(bytes, out);
}
