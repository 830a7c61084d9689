//! Superblocks of sixteen groups of 16 values of 6 bits: `w = d s q` with q from -32 to 31 and eight bits for the s of each group, the values of `Q6_K` of
//! ggml. The lower four bits of a value are a nibble; the upper two, of two's complement, lie in the second plane. The plane of scales has a word for
//! the sixteen s of each superblock, and then an f16 for each.

use super::{
    MaxError, PackedRow, Planes, QuantFormat, SUPERBLOCK, extreme, f16_above, high, nibbles, push_high, push_nibbles, read_f16,
    scaled,
};
use half::f16;

pub static Q6_K: QuantFormat = QuantFormat {
    name: "q6_k",
    flag: "WEIGHT_Q6_K",
    value_bits: 6,
    high_bits: HIGH_BITS,
    scale_bits: 16 * 8 + 16,
    block_len: SUPERBLOCK,
    group_len: GROUP,
    has_offset: false,
    keeps_head: false,
    max_error: MaxError::OfBlock(1.7e-2),
    pack_row,
    unpack_row,
};

const HIGH_BITS: usize = 2;
/// Values that share an s.
const GROUP: usize = 16;
/// Groups of a superblock.
const GROUPS: usize = SUPERBLOCK / GROUP;

/// What at most 256 values stand for.
pub(super) struct Superblock<'a> {
    pub d: f16,
    /// Of groups that are not there: zero.
    pub scales: [i8; GROUPS],
    /// From -32 to 31.
    pub steps: &'a [i8],
}

/// Packs a row of superblocks, of which only the last may be shorter than the others.
pub(super) fn push_row<'a>(row: impl Iterator<Item = Superblock<'a>>, planes: &mut Planes) {
    let mut factors = Vec::new();
    for Superblock { d, scales, steps } in row {
        let steps: &[u8] = bytemuck::cast_slice(steps);
        push_nibbles(steps, &mut planes.values);
        push_high(steps, HIGH_BITS, &mut planes.high);
        planes.scales.extend(scales.map(|scale| scale as u8));
        factors.extend(d.to_le_bytes());
    }
    planes.scales.extend(factors);
}

/// Scales are rounded up, so that no value is cut off.
fn pack_row(row: &[f32], planes: &mut Planes) {
    let mut packed = Vec::new();
    for values in row.chunks(SUPERBLOCK) {
        let step = |group: &[f32]| extreme(group).abs() / 31.0;
        let d = f16_above(step(values) / 127.0);
        let mut scales = [0; GROUPS];
        let mut steps = Vec::with_capacity(values.len());
        for (scale, group) in scales.iter_mut().zip(values.chunks_exact(GROUP)) {
            *scale = scaled(step(group), d.to_f32()).ceil().min(127.0) as i8;
            let factor = d.to_f32() * f32::from(*scale);
            steps.extend(group.iter().map(|&value| scaled(value, factor).round().clamp(-32.0, 31.0) as i8));
        }
        packed.push((d, scales, steps));
    }
    push_row(packed.iter().map(|(d, scales, steps)| Superblock { d: *d, scales: *scales, steps }), planes);
}

fn unpack_row(row: &PackedRow, out: &mut Vec<f32>) {
    // Six bits of two's complement, at the upper end of a byte and back.
    let steps: Vec<i8> =
        nibbles(row.values).zip(high(row.high, HIGH_BITS)).map(|(low, high)| ((high << 6 | low << 2) as i8) >> 2).collect();
    let factors = &row.scales[steps.len().div_ceil(SUPERBLOCK) * GROUPS..];
    for (index, group) in steps.chunks_exact(GROUP).enumerate() {
        let scale = read_f16(factors, index / GROUPS) * f32::from(row.scales[index] as i8);
        out.extend(group.iter().map(|&step| scale * f32::from(step)));
    }
}
