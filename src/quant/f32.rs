//! 32-bit IEEE floats: four weights per 16-byte word.

use super::QuantFormat;
use crate::tensor::Dtype;

pub(super) static F32: QuantFormat =
    QuantFormat { name: "f32", flag: "WEIGHT_F32", bits_per_weight: 32.0, max_relative_error: 0.0, pack_row, unpack_row };

fn pack_row(row: &[f32], out: &mut Vec<u8>) {
    out.extend(row.iter().flat_map(|value| value.to_le_bytes()));
}

fn unpack_row(bytes: &[u8], out: &mut Vec<f32>) {
    Dtype::F32.widen_into(bytes, out);
}
