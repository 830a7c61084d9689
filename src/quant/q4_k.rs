//! Superblocks of eight blocks of 32 values of 4 bits: `w = d s q - dmin m`, the values of `Q4_K` of ggml. The scales of a superblock are one word.

use super::{BLOCK, MaxError, PackedRow, Planes, QuantFormat, SUPERBLOCK, superblock};

pub static Q4_K: QuantFormat = QuantFormat {
    name: "q4_k",
    flag: "WEIGHT_Q4_K",
    value_bits: 4,
    high_bits: HIGH_BITS,
    scale_bits: 128,
    block_len: SUPERBLOCK,
    group_len: BLOCK,
    has_offset: true,
    keeps_head: false,
    max_error: MaxError::OfBlock(6.9e-2),
    pack_row,
    unpack_row,
};

const HIGH_BITS: usize = 0;

fn pack_row(row: &[f32], planes: &mut Planes) {
    superblock::pack_row(row, HIGH_BITS, planes);
}

fn unpack_row(row: &PackedRow, out: &mut Vec<f32>) {
    superblock::unpack_row(row, HIGH_BITS, out);
}
