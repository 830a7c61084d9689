//! Blocks of ggml, as GGUF files have them, whose values one of our formats holds exactly: their bytes are put in our order, and nothing is quantised
//! anew. Floats are little-endian f16. Sixteen bytes of nibbles hold 32 values in halves: byte j has value j in its low half and value j + 16 in its
//! high half.
//!
//! | blocks | values | bytes, in this order | a value |
//! |---|---|---|---|
//! | Q4_0 | 32 | d, 16 of nibbles | `d (q - 8)` |
//! | Q4_1 | 32 | d, m, 16 of nibbles | `d q + m` |
//! | Q5_0 | 32 | d, a `u32` of fifth bits, 16 of nibbles | `d (q - 16)` |
//! | Q8_0 | 32 | d, 32 signed | `d q` |
//! | Q4_K | 256 | d, dmin, 12 of scales, 128 of nibbles | `d s q - dmin m` |
//! | Q5_K | 256 | d, dmin, 12 of scales, 32 of fifth bits, 128 of nibbles | `d s q - dmin m` |
//! | Q6_K | 256 | 128 of nibbles, 64 of two bits, 16 signed scales, d | `d s (q - 32)` |
//! | IQ4_NL | 32 | d, 16 of nibbles | `d` times an entry of a table |
//! | MXFP4 | 32 | exponent e, 16 of nibbles | `2^(e - 127)` E2M1 |

use super::superblock::Superblock;
use super::{MXFP4, Planes, Q4_0, Q4_1, Q4_K, Q5_K, Q6_K, Q8_0, Quant, push_nibbles, q6_k};
use half::f16;

/// A type of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgmlBlocks {
    Q4_0,
    Q4_1,
    Q5_0,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Mxfp4,
}

/// What the nibbles of IQ4_NL and IQ4_XS stand for.
pub(crate) const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl GgmlBlocks {
    pub const ALL: [GgmlBlocks; 9] = [
        GgmlBlocks::Q4_0,
        GgmlBlocks::Q4_1,
        GgmlBlocks::Q5_0,
        GgmlBlocks::Q8_0,
        GgmlBlocks::Q4K,
        GgmlBlocks::Q5K,
        GgmlBlocks::Q6K,
        GgmlBlocks::Iq4Nl,
        GgmlBlocks::Mxfp4,
    ];

    /// Values of a block.
    pub fn block_len(self) -> usize {
        match self {
            GgmlBlocks::Q4K | GgmlBlocks::Q5K | GgmlBlocks::Q6K => 256,
            _ => 32,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            GgmlBlocks::Q4_0 | GgmlBlocks::Iq4Nl => 18,
            GgmlBlocks::Q4_1 => 20,
            GgmlBlocks::Q5_0 => 22,
            GgmlBlocks::Q8_0 => 34,
            GgmlBlocks::Q4K => 144,
            GgmlBlocks::Q5K => 176,
            GgmlBlocks::Q6K => 210,
            GgmlBlocks::Mxfp4 => 17,
        }
    }

    /// The format that holds the values.
    pub fn quant(self) -> Quant {
        match self {
            GgmlBlocks::Q4_0 => &Q4_0,
            GgmlBlocks::Q4_1 => &Q4_1,
            GgmlBlocks::Q8_0 | GgmlBlocks::Q5_0 | GgmlBlocks::Iq4Nl => &Q8_0,
            GgmlBlocks::Q4K => &Q4_K,
            GgmlBlocks::Q5K => &Q5_K,
            GgmlBlocks::Q6K => &Q6_K,
            GgmlBlocks::Mxfp4 => &MXFP4,
        }
    }

    /// Packs blocks `[rows, cols]`, row after row without padding, in the format of [`quant`](Self::quant). The rows of several `parts` take turns.
    /// Values are kept to the last bit, but that MXFP4 below 2^-126 is zero.
    ///
    /// # Panics
    /// If `cols` is not a whole number of blocks, or a part not one of rows, or parts are not as long as each other.
    pub fn pack(self, parts: &[&[u8]], cols: usize) -> Vec<u8> {
        assert!(cols > 0 && cols.is_multiple_of(self.block_len()), "{cols} columns are no blocks of {}", self.block_len());
        let row_bytes = cols / self.block_len() * self.block_bytes();
        let len = parts.first().map_or(0, |part| part.len());
        assert!(len.is_multiple_of(row_bytes), "{len} bytes are no rows of {row_bytes}");
        assert!(parts.iter().all(|part| part.len() == len), "parts of different lengths cannot take turns");
        self.quant().pack_rows(len / row_bytes * parts.len(), cols, |row, planes| {
            let (part, row) = (parts[row % parts.len()], row / parts.len());
            self.pack_row(part[row * row_bytes..][..row_bytes].chunks_exact(self.block_bytes()), planes);
        })
    }

    fn pack_row<'a>(self, blocks: impl Iterator<Item = &'a [u8]>, planes: &mut Planes) {
        match self {
            GgmlBlocks::Q6K => return push_q6_k(blocks, planes),
            GgmlBlocks::Q4K => return blocks.for_each(|block| push_superblock(block, &block[16..], None, planes)),
            GgmlBlocks::Q5K => {
                return blocks.for_each(|block| push_superblock(block, &block[48..], Some(&block[16..48]), planes));
            }
            _ => {}
        }
        for block in blocks {
            let (scales, values) = block.split_at(self.block_bytes() - if self == GgmlBlocks::Q8_0 { 32 } else { 16 });
            match self {
                GgmlBlocks::Q8_0 => planes.values.extend_from_slice(values),
                GgmlBlocks::Q5_0 => planes.values.extend(with_fifth_bits(scales, values).map(|q| (q as i8 - 16) as u8)),
                GgmlBlocks::Iq4Nl => planes.values.extend(halves(values).map(|q| IQ4_VALUES[usize::from(q)] as u8)),
                _ => push_nibbles(&halves(values), &mut planes.values),
            }
            let kept = if self == GgmlBlocks::Q5_0 { 2 } else { scales.len() };
            planes.scales.extend_from_slice(&scales[..kept]);
        }
    }

    /// The index of the first value of a block whose scales are infinite or not a number: it would not be one either.
    pub fn first_not_finite(self, blocks: &[u8]) -> Option<usize> {
        let factors: &[usize] = match self {
            GgmlBlocks::Q4_0 | GgmlBlocks::Q5_0 | GgmlBlocks::Q8_0 | GgmlBlocks::Iq4Nl => &[0],
            GgmlBlocks::Q4_1 | GgmlBlocks::Q4K | GgmlBlocks::Q5K => &[0, 2],
            GgmlBlocks::Q6K => &[208],
            GgmlBlocks::Mxfp4 => &[],
        };
        let finite = |block: &[u8]| match self {
            GgmlBlocks::Mxfp4 => block[0] != 255,
            _ => factors.iter().all(|&at| read_f16(block, at).is_finite()),
        };
        blocks.chunks_exact(self.block_bytes()).position(|block| !finite(block)).map(|index| index * self.block_len())
    }
}

fn read_f16(bytes: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// 32 values of sixteen bytes of nibbles.
fn halves(bytes: &[u8]) -> [u8; 32] {
    std::array::from_fn(|index| bytes[index % 16] >> (index / 16 * 4) & 15)
}

/// The values of Q5_0: the scales are d and four bytes of bits.
fn with_fifth_bits(scales: &[u8], nibbles: &[u8]) -> [u8; 32] {
    let low = halves(nibbles);
    std::array::from_fn(|index| low[index] | (scales[2 + index / 8] >> (index % 8) & 1) << 4)
}

/// Q4_K and Q5_K. Of each 32 bytes the low halves are one block and the high halves the next; bit b of byte i is the fifth bit of value i of block b.
fn push_superblock(block: &[u8], nibbles: &[u8], fifth_bits: Option<&[u8]>, planes: &mut Planes) {
    let bytes = &block[4..16];
    let (mut scales, mut minima) = ([0; 8], [0; 8]);
    for j in 0..4 {
        (scales[j], minima[j]) = (bytes[j] & 63, bytes[j + 4] & 63);
        scales[j + 4] = bytes[j + 8] & 15 | bytes[j] >> 6 << 4;
        minima[j + 4] = bytes[j + 8] >> 4 | bytes[j + 4] >> 6 << 4;
    }
    let mut steps = [0; 256];
    for (bytes, steps) in nibbles.chunks_exact(32).zip(steps.chunks_exact_mut(64)) {
        let (low, high) = steps.split_at_mut(32);
        low.iter_mut().zip(bytes).for_each(|(step, byte)| *step = byte & 15);
        high.iter_mut().zip(bytes).for_each(|(step, byte)| *step = byte >> 4);
    }
    if let Some(bits) = fifth_bits {
        for (block, steps) in steps.chunks_exact_mut(32).enumerate() {
            steps.iter_mut().zip(bits).for_each(|(step, bits)| *step |= (bits >> block & 1) << 4);
        }
    }
    let high_bits = usize::from(fifth_bits.is_some());
    Superblock { d: read_f16(block, 0), dmin: read_f16(block, 2), scales, minima }.push(&steps, high_bits, planes);
}

/// Of each half of a block, 128 values, 64 bytes hold the low bits and 32 the high bits: of value 32 k + l those in half k / 2 of byte 32 (k % 2) + l,
/// and these from bit 2 k of byte l on.
fn push_q6_k<'a>(blocks: impl Iterator<Item = &'a [u8]>, planes: &mut Planes) {
    let steps_of = |block: &[u8]| {
        let mut steps = [0; 256];
        for (part, steps) in steps.chunks_exact_mut(32).enumerate() {
            let (half, k) = (part / 4, part % 4);
            let (low, high) = (&block[64 * half + 32 * (k % 2)..][..32], &block[128 + 32 * half..][..32]);
            for ((step, low), high) in steps.iter_mut().zip(low).zip(high) {
                *step = (low >> (k / 2 * 4) & 15 | (high >> (2 * k) & 3) << 4) as i8 - 32;
            }
        }
        steps
    };
    let steps: Vec<(&[u8], [i8; 256])> = blocks.map(|block| (block, steps_of(block))).collect();
    let superblocks = steps.iter().map(|(block, steps)| q6_k::Superblock {
        d: read_f16(block, 208),
        scales: std::array::from_fn(|group| block[192 + group] as i8),
        steps,
    });
    q6_k::push_row(superblocks, planes);
}
