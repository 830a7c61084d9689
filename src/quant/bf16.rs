//! The upper half of a 32-bit float: eight weights per 16-byte word, the lower half of each `u32` first. Rounded to nearest even.

use super::{BLOCK, MaxError, PackedRow, Planes, QuantFormat};
use crate::tensor::Dtype;

pub static BF16: QuantFormat = QuantFormat {
    name: "bf16",
    flag: "WEIGHT_BF16",
    value_bits: 16,
    high_bits: 0,
    scale_bits: 0,
    block_len: BLOCK,
    group_len: BLOCK,
    has_offset: false,
    keeps_head: false,
    max_error: MaxError::OfValue(4e-3),
    pack_row,
    unpack_row,
};

fn pack_row(row: &[f32], planes: &mut Planes) {
    planes.values.extend(row.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()));
}

fn unpack_row(row: &PackedRow, out: &mut Vec<f32>) {
    Dtype::Bf16.widen_into(row.values, out);
}
