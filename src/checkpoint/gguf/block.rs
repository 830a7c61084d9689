//! The formats of tensors in GGUF files: plain numbers, or blocks of small integers with their scales.
//!
//! Every type of blocks is the same sum: a value is `scale * code + minimum`, where codes are integers in eight bits, and 16 values in a row
//! share their scale and their minimum. The product of scale and code is exact in f32, so that only the sum is rounded, as ggml rounds it.

use super::blocks;
use crate::Error;
use crate::tensor::Dtype;

/// Values in a row that share scale and minimum, whatever the type.
pub const GROUP: usize = 16;
/// The longest block.
const MAX_LEN: usize = 256;
const MAX_GROUPS: usize = MAX_LEN / GROUP;

/// How the values of a tensor are written.
#[derive(Debug)]
pub struct BlockType {
    /// As files name it.
    pub id: u32,
    /// As llama.cpp prints it.
    pub name: &'static str,
    /// Values of a block.
    pub len: usize,
    /// Bytes of a block.
    pub bytes: usize,
    /// Whether codes have a minimum besides their scale.
    pub has_minimum: bool,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Plain(Dtype),
    Blocks(fn(&[u8], &mut Block)),
}

/// One block, read. Only as much of it is used as the type has.
#[derive(Debug)]
pub(super) struct Block {
    pub codes: [i8; MAX_LEN],
    /// Of each group.
    pub scales: [f32; MAX_GROUPS],
    /// Of each group; stays zero where the type has none.
    pub minimums: [f32; MAX_GROUPS],
}

/// Blocks as integers: `w[n] = scales[n / 16] * codes[n] + minimums[n / 16]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Codes {
    pub codes: Vec<i8>,
    /// Of each 16 codes.
    pub scales: Vec<f32>,
    /// Of each 16 codes; zeros where the type has no minimum.
    pub minimums: Vec<f32>,
}

/// Every type that is read.
pub static BLOCK_TYPES: &[BlockType] = &[
    plain(0, Dtype::F32),
    plain(1, Dtype::F16),
    plain(30, Dtype::Bf16),
    scaled(2, "Q4_0", 32, 18, blocks::q4_0),
    with_minimum(3, "Q4_1", 32, 20, blocks::q4_1),
    scaled(6, "Q5_0", 32, 22, blocks::q5_0),
    with_minimum(7, "Q5_1", 32, 24, blocks::q5_1),
    scaled(8, "Q8_0", 32, 34, blocks::q8_0),
    with_minimum(10, "Q2_K", 256, 84, blocks::q2_k),
    scaled(11, "Q3_K", 256, 110, blocks::q3_k),
    with_minimum(12, "Q4_K", 256, 144, blocks::q4_k),
    with_minimum(13, "Q5_K", 256, 176, blocks::q5_k),
    scaled(14, "Q6_K", 256, 210, blocks::q6_k),
    scaled(16, "IQ2_XXS", 256, 66, blocks::iq2_xxs),
    scaled(17, "IQ2_XS", 256, 74, blocks::iq2_xs),
    scaled(18, "IQ3_XXS", 256, 98, blocks::iq3_xxs),
    scaled(19, "IQ1_S", 256, 50, blocks::iq1_s),
    scaled(20, "IQ4_NL", 32, 18, blocks::iq4_nl),
    scaled(21, "IQ3_S", 256, 110, blocks::iq3_s),
    scaled(22, "IQ2_S", 256, 82, blocks::iq2_s),
    scaled(23, "IQ4_XS", 256, 136, blocks::iq4_xs),
    scaled(29, "IQ1_M", 256, 56, blocks::iq1_m),
    scaled(34, "TQ1_0", 256, 54, blocks::tq1_0),
    scaled(35, "TQ2_0", 256, 66, blocks::tq2_0),
    scaled(39, "MXFP4", 32, 17, blocks::mxfp4),
    scaled(40, "NVFP4", 64, 36, blocks::nvfp4),
    scaled(41, "Q1_0", 128, 18, blocks::q1_0),
    scaled(42, "Q2_0", 64, 18, blocks::q2_0),
];

const fn plain(id: u32, dtype: Dtype) -> BlockType {
    BlockType { id, name: dtype.name(), len: 1, bytes: dtype.size_bytes(), has_minimum: false, content: Content::Plain(dtype) }
}

const fn scaled(id: u32, name: &'static str, len: usize, bytes: usize, read: fn(&[u8], &mut Block)) -> BlockType {
    BlockType { id, name, len, bytes, has_minimum: false, content: Content::Blocks(read) }
}

const fn with_minimum(id: u32, name: &'static str, len: usize, bytes: usize, read: fn(&[u8], &mut Block)) -> BlockType {
    BlockType { has_minimum: true, ..scaled(id, name, len, bytes, read) }
}

/// What an error lists as readable.
const READABLE: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, \
                        IQ2_S, IQ3_XXS, IQ3_S, IQ4_NL, IQ4_XS, TQ1_0, TQ2_0, MXFP4, NVFP4, Q1_0, Q2_0";

/// Types that exist and are not read.
const REFUSED: [(u32, &str); 15] = [
    (4, "Q4_2, which was removed from the format"),
    (5, "Q4_3, which was removed from the format"),
    (9, "Q8_1, which is for activations only"),
    (15, "Q8_K, which is for activations only"),
    (24, "I8, which no weights are in"),
    (25, "I16, which no weights are in"),
    (26, "I32, which no weights are in"),
    (27, "I64, which no weights are in"),
    (28, "F64, which no weights are in"),
    (31, "Q4_0_4_4, which was removed from the format"),
    (32, "Q4_0_4_8, which was removed from the format"),
    (33, "Q4_0_8_8, which was removed from the format"),
    (36, "IQ4_NL_4_4, which was removed from the format"),
    (37, "IQ4_NL_4_8, which was removed from the format"),
    (38, "IQ4_NL_8_8, which was removed from the format"),
];

/// The error of the tensor `name` in a type that exists and is not read.
pub(super) fn refused(id: u32, name: &str) -> Option<Error> {
    let (_, found) = REFUSED.iter().find(|(refused, _)| *refused == id)?;
    Some(Error::TensorDtype { name: name.to_owned(), expected: READABLE, found: (*found).to_owned() })
}

impl PartialEq for BlockType {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for BlockType {}

impl BlockType {
    /// The type with the number that files give it.
    pub fn find(id: u32) -> Option<&'static BlockType> {
        BLOCK_TYPES.iter().find(|block| block.id == id)
    }

    /// The number format, where the type is plain numbers instead of blocks.
    pub fn dtype(&self) -> Option<Dtype> {
        if let Content::Plain(dtype) = self.content { Some(dtype) } else { None }
    }

    /// Widens whole blocks to f32 and appends their values to `out`, with the bits that ggml gives.
    ///
    /// # Errors
    /// The index of a value that is not finite among those of `bytes`. Plain numbers may be anything.
    ///
    /// # Panics
    /// If `bytes` is not a whole number of blocks.
    pub fn widen(&self, bytes: &[u8], out: &mut Vec<f32>) -> Result<(), usize> {
        assert!(bytes.len().is_multiple_of(self.bytes), "{} bytes are no blocks of {}", bytes.len(), self.name);
        let read = match self.content {
            Content::Plain(dtype) => {
                dtype.widen_into(bytes, out);
                return Ok(());
            }
            Content::Blocks(read) => read,
        };
        self.each_block(bytes, read, |block| {
            for (group, codes) in block.codes[..self.len].chunks_exact(GROUP).enumerate() {
                let scale = block.scales[group];
                let products = codes.iter().map(|&code| scale * f32::from(code));
                if self.has_minimum {
                    let minimum = block.minimums[group];
                    out.extend(products.map(|product| product + minimum));
                } else {
                    // A sum with zero would lose the sign of a zero.
                    out.extend(products);
                }
            }
        })
    }

    /// Appends the integers of whole blocks to `out`, with the scale and the minimum of each [`GROUP`].
    ///
    /// # Errors
    /// The index of a value that is not finite among those of `bytes`.
    ///
    /// # Panics
    /// If `bytes` is not a whole number of blocks, or the type is one of plain numbers.
    pub fn codes(&self, bytes: &[u8], out: &mut Codes) -> Result<(), usize> {
        assert!(bytes.len().is_multiple_of(self.bytes), "{} bytes are no blocks of {}", bytes.len(), self.name);
        let Content::Blocks(read) = self.content else { panic!("{} has no codes", self.name) };
        self.each_block(bytes, read, |block| {
            let groups = self.len / GROUP;
            out.codes.extend_from_slice(&block.codes[..self.len]);
            out.scales.extend_from_slice(&block.scales[..groups]);
            out.minimums.extend_from_slice(&block.minimums[..groups]);
        })
    }

    fn each_block(&self, bytes: &[u8], read: fn(&[u8], &mut Block), mut take: impl FnMut(&Block)) -> Result<(), usize> {
        let mut block = Block { codes: [0; MAX_LEN], scales: [0.0; MAX_GROUPS], minimums: [0.0; MAX_GROUPS] };
        for (index, bytes) in bytes.chunks_exact(self.bytes).enumerate() {
            read(bytes, &mut block);
            if let Some(group) = block.infinite_group(self.len / GROUP) {
                return Err(index * self.len + group * GROUP);
            }
            take(&block);
        }
        Ok(())
    }
}

impl Block {
    /// The first group with a value that is not finite.
    fn infinite_group(&self, num_groups: usize) -> Option<usize> {
        let is_finite = |group: &usize| {
            let scale = self.scales[*group];
            // No code is larger than 128, so that most groups need no second look.
            let products = || self.codes[*group * GROUP..][..GROUP].iter().all(|&code| (scale * f32::from(code)).is_finite());
            self.minimums[*group].is_finite() && scale.is_finite() && ((scale * 128.0).is_finite() || products())
        };
        (0..num_groups).find(|group| !is_finite(group))
    }
}
