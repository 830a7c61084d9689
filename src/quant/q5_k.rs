//! Superblocks of eight blocks of 32 values of 5 bits: `w = d s q - dmin m`, the values of `Q5_K` of ggml. The fifth bits of a block are one `u32`, and the scales
//! of a superblock one word.

use super::{BLOCK, MaxError, PackedRow, Planes, QuantFormat, SUPERBLOCK, superblock};

pub static Q5_K: QuantFormat = QuantFormat {
    name: "q5_k",
    flag: "WEIGHT_Q5_K",
    value_bits: 5,
    high_bits: HIGH_BITS,
    scale_bits: 128,
    block_len: SUPERBLOCK,
    group_len: BLOCK,
    has_offset: true,
    keeps_head: false,
    max_error: MaxError::OfBlock(3.4e-2),
    pack_row,
    unpack_row,
};

const HIGH_BITS: usize = 1;

fn pack_row(row: &[f32], planes: &mut Planes) {
    superblock::pack_row(row, HIGH_BITS, planes);
}

fn unpack_row(row: &PackedRow, out: &mut Vec<f32>) {
    superblock::unpack_row(row, HIGH_BITS, out);
}
