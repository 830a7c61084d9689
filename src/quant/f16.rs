//! 16-bit IEEE floats: eight weights per 16-byte word, the lower half of each `u32` first. Rounded to nearest even; beyond 65504 infinite.

use super::{BLOCK, MaxError, PackedRow, Planes, QuantFormat};
use crate::tensor::Dtype;

pub static F16: QuantFormat = QuantFormat {
    name: "f16",
    flag: "WEIGHT_F16",
    value_bits: 16,
    high_bits: 0,
    scale_bits: 0,
    block_len: BLOCK,
    group_len: BLOCK,
    has_offset: false,
    keeps_head: false,
    max_error: MaxError::OfValue(4.9e-4),
    pack_row,
    unpack_row,
};

fn pack_row(row: &[f32], planes: &mut Planes) {
    planes.values.extend(row.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()));
}

fn unpack_row(row: &PackedRow, out: &mut Vec<f32>) {
    Dtype::F16.widen_into(row.values, out);
}
