//! What `q4_k` and `q5_k` share: eight blocks of 32 values, `w = d s q - dmin m` with six bits for the s and the m of each block. Its scales are one
//! word, whose parts are
//!
//! 1. d as an f16, and -dmin as another;
//! 2. the lower four bits of every s, a nibble each;
//! 3. the lower four bits of every m;
//! 4. a nibble of the upper two bits of both, those of s first.
//!
//! ggml has the same twelve bytes in an order that takes the first four blocks apart otherwise than the last four.

use super::{BLOCK, PackedRow, Planes, SUPERBLOCK, f16_above, high, nibbles, push_high, push_nibbles, scaled};
use half::f16;

/// Bytes of [`Superblock::word`].
const WORD: usize = 16;
/// The largest of a scale of six bits.
const MOST: f32 = 63.0;

/// The scales of up to eight blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Superblock {
    pub d: f16,
    pub dmin: f16,
    pub scales: [u8; 8],
    pub minima: [u8; 8],
}

impl Superblock {
    /// Scales under which every value has a step of 0 to `steps` that is as near as half of one: nothing is cut off, so all are rounded up.
    fn of(values: &[f32], steps: f32) -> Self {
        let mut found = Superblock::default();
        let ends = |block: &[f32]| block.iter().fold((0f32, f32::MIN), |(min, max), &value| (min.min(value), max.max(value)));
        let largest = values.iter().fold(0f32, |largest, value| largest.max(-value));
        found.dmin = f16_above(largest / MOST);
        for (minimum, block) in found.minima.iter_mut().zip(values.chunks_exact(BLOCK)) {
            *minimum = scaled(-ends(block).0, found.dmin.to_f32()).ceil().min(MOST) as u8;
        }
        let step = |found: &Superblock, index: usize, block: &[f32]| (ends(block).1 - found.offset(index)).max(0.0) / steps;
        let blocks = || values.chunks_exact(BLOCK).enumerate();
        found.d = f16_above(blocks().map(|(index, block)| step(&found, index, block)).fold(0.0, f32::max) / MOST);
        for (index, block) in blocks() {
            found.scales[index] = scaled(step(&found, index, block), found.d.to_f32()).ceil().min(MOST) as u8;
        }
        found
    }

    /// What a step of a block is worth.
    fn step(&self, block: usize) -> f32 {
        self.d.to_f32() * f32::from(self.scales[block])
    }

    /// What a step of zero stands for.
    fn offset(&self, block: usize) -> f32 {
        -self.dmin.to_f32() * f32::from(self.minima[block])
    }

    /// As it lies in the plane of scales.
    pub fn word(&self) -> [u8; WORD] {
        let nibbles = |nibble: &dyn Fn(usize) -> u8| (0..8).map(|block| u32::from(nibble(block)) << (4 * block)).sum::<u32>();
        let parts = [
            u32::from(self.d.to_bits()) | u32::from((-self.dmin).to_bits()) << 16,
            nibbles(&|block| self.scales[block] & 15),
            nibbles(&|block| self.minima[block] & 15),
            nibbles(&|block| self.scales[block] >> 4 | self.minima[block] >> 4 << 2),
        ];
        bytemuck::cast(parts.map(u32::to_le_bytes))
    }

    fn read(word: &[u8; WORD]) -> Self {
        let [factors, scales, minima, upper] = bytemuck::cast::<[u8; WORD], [[u8; 4]; 4]>(*word).map(u32::from_le_bytes);
        let nibble = |part: u32, block: usize| (part >> (4 * block)) as u8 & 15;
        Superblock {
            d: f16::from_bits(factors as u16),
            dmin: -f16::from_bits((factors >> 16) as u16),
            scales: std::array::from_fn(|block| nibble(scales, block) | (nibble(upper, block) & 3) << 4),
            minima: std::array::from_fn(|block| nibble(minima, block) | nibble(upper, block) >> 2 << 4),
        }
    }

    /// Appends the superblock with the steps of its values, at most 256 of them, that have `high_bits` beyond four.
    pub fn push(&self, steps: &[u8], high_bits: usize, planes: &mut Planes) {
        push_nibbles(steps, &mut planes.values);
        if high_bits > 0 {
            push_high(steps, high_bits, &mut planes.high);
        }
        planes.scales.extend(self.word());
    }
}

/// Packs a row of steps with `high_bits` beyond four.
pub(super) fn pack_row(row: &[f32], high_bits: usize, planes: &mut Planes) {
    let most = ((16 << high_bits) - 1) as f32;
    for values in row.chunks(SUPERBLOCK) {
        let superblock = Superblock::of(values, most);
        let step = |(index, &value): (usize, &f32)| {
            let block = index / BLOCK;
            scaled(value - superblock.offset(block), superblock.step(block)).round().clamp(0.0, most) as u8
        };
        superblock.push(&values.iter().enumerate().map(step).collect::<Vec<_>>(), high_bits, planes);
    }
}

/// The inverse of [`pack_row`].
pub(super) fn unpack_row(row: &PackedRow, high_bits: usize, out: &mut Vec<f32>) {
    let mut steps: Vec<u8> = nibbles(row.values).collect();
    if high_bits > 0 {
        steps.iter_mut().zip(high(row.high, high_bits)).for_each(|(step, high)| *step |= high << 4);
    }
    for (word, steps) in row.scales.as_chunks().0.iter().zip(steps.chunks(SUPERBLOCK)) {
        let superblock = Superblock::read(word);
        for (block, steps) in steps.chunks_exact(BLOCK).enumerate() {
            let (scale, offset) = (superblock.step(block), superblock.offset(block));
            out.extend(steps.iter().map(|&step| scale * f32::from(step) + offset));
        }
    }
}
