//! 32-bit IEEE floats: four weights per 16-byte word.

use super::{BLOCK, MaxError, PackedRow, Planes, QuantFormat};
use crate::tensor::Dtype;

pub static F32: QuantFormat = QuantFormat {
    name: "f32",
    flag: "WEIGHT_F32",
    value_bits: 32,
    high_bits: 0,
    scale_bits: 0,
    block_len: BLOCK,
    group_len: BLOCK,
    has_offset: false,
    keeps_head: false,
    max_error: MaxError::OfValue(0.0),
    pack_row,
    unpack_row,
};

fn pack_row(row: &[f32], planes: &mut Planes) {
    planes.values.extend(row.iter().flat_map(|value| value.to_le_bytes()));
}

fn unpack_row(row: &PackedRow, out: &mut Vec<f32>) {
    Dtype::F32.widen_into(row.values, out);
}
