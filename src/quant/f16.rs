//! 16-bit IEEE floats: eight weights per 16-byte word, the lower half of each `u32` first. Rounded to nearest even; beyond 65504 infinite.

use super::QuantFormat;
use crate::tensor::Dtype;

pub(super) static F16: QuantFormat =
    QuantFormat { name: "f16", flag: "WEIGHT_F16", bits_per_weight: 16.0, max_relative_error: 4.9e-4, pack_row, unpack_row };

fn pack_row(row: &[f32], out: &mut Vec<u8>) {
    out.extend(row.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()));
}

fn unpack_row(bytes: &[u8], out: &mut Vec<f32>) {
    Dtype::F16.widen_into(bytes, out);
}
