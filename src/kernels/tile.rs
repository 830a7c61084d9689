//! How the matmul kernels cut their work: the consts and flags of `shaders/lib/matmul.wgsl` and `weights.wgsl`.

use crate::gpu::{Caps, Profile, Variant};
use crate::quant::{BLOCK, Quant, padded};

/// Rows that one team computes at a time; fixed in the shader.
const QUAD: usize = 4;

/// Tokens of one tile where many share the weights.
pub(super) const MANY_TOKENS: usize = 8;

/// A workgroup computes `rows` rows of `tokens` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    pub workgroup: usize,
    pub rows: usize,
    pub tokens: usize,
    work: Work,
}

/// Who computes what, and how partial sums meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// The workgroup is one subgroup, and every lane meets all rows with its slice of the activations.
    Slice,
    /// Each invocation has four rows to itself.
    Alone,
    /// Each subgroup has four rows.
    Subgroups,
    /// Each team of this many invocations has four rows; they add up through workgroup memory.
    Teams(usize),
}

impl Tile {
    /// The tile for a matrix of `num_rows` rows and a batch in which `num_tokens` rows share each weight.
    pub fn choose(caps: &Caps, num_tokens: usize, num_rows: usize) -> Self {
        let tokens = if num_tokens > 1 { MANY_TOKENS } else { 1 };
        let subgroup = caps.subgroup_size.map(|size| size as usize);
        match (caps.profile, subgroup) {
            // A software device runs a subgroup as one vector, and loads lane by lane: what is in registers costs nothing to use again.
            (Profile::Cpu, Some(size)) => Tile { workgroup: size, rows: slice_rows(tokens, num_rows), tokens, work: Work::Slice },
            (Profile::Cpu, None) => Tile { workgroup: 8, rows: 8 * QUAD, tokens, work: Work::Alone },
            (Profile::Gpu, Some(size)) if tokens == 1 => {
                let workgroup = size.max(64);
                Tile { workgroup, rows: workgroup / size * QUAD, tokens, work: Work::Subgroups }
            }
            (Profile::Gpu, _) if tokens == 1 => Tile { workgroup: 64, rows: 2 * QUAD, tokens, work: Work::Teams(32) },
            // Eight lanes read 128 consecutive bytes of a row.
            (Profile::Gpu, _) => Tile { workgroup: 64, rows: 8 * QUAD, tokens, work: Work::Teams(8) },
        }
    }

    /// The variant for rows of `cols` columns in a weight format.
    pub fn variant(&self, cols: usize, quant: Quant) -> Variant {
        let lanes = match self.work {
            Work::Alone => 1,
            Work::Teams(lanes) => lanes,
            Work::Slice | Work::Subgroups => self.workgroup * QUAD / self.rows,
        };
        let variant = weight_consts(Variant::new(), cols, quant)
            .u32("WG", self.workgroup)
            .u32("ROWS", self.rows)
            .u32("TOKENS", self.tokens)
            .u32("ROW_QUADS", padded(cols) / 4)
            .flag_if(matches!(self.work, Work::Slice | Work::Subgroups), "SUBGROUPS");
        match self.work {
            Work::Slice => {
                let chunks = slice_chunks(self.tokens, self.workgroup, cols, quant);
                variant
                    .flag("SLICE")
                    .u32("LANE_STEPS", self.workgroup.ilog2() as usize)
                    .u32("SLICE_CHUNKS", chunks)
                    .flag_if(self.tokens == 1, "ONE_TOKEN")
            }
            _ => variant.u32("LANES", lanes).flag_if(lanes == 1, "LANES_1"),
        }
    }

    /// Workgroups that cover `num_rows` weight rows.
    pub fn row_groups(&self, num_rows: usize) -> usize {
        num_rows.div_ceil(self.rows)
    }
}

/// Rows of a workgroup that keeps slices: many, because filling them costs as much as some rows; few enough to give every core work, of
/// which many tokens bring more.
fn slice_rows(tokens: usize, num_rows: usize) -> usize {
    let (many, few, enough) = if tokens == 1 { (64, 16, 4) } else { (256, 64, 2) };
    if num_rows >= enough * many { many } else { few }
}

/// Words of a row of `cols` columns that a lane of `lanes` takes in one pass, no more than four: whole blocks where they have scales,
/// otherwise so many that the last pass is as full as the others.
fn slice_chunks(tokens: usize, lanes: usize, cols: usize, quant: Quant) -> usize {
    let blocks = if tokens == 1 { 2 } else { 1 };
    let most = (blocks * BLOCK * quant.value_bits / 128).min(4);
    if quant.scale_bits > 0 {
        return most;
    }
    let per_lane = (padded(cols) * quant.value_bits / 128).div_ceil(lanes);
    per_lane.div_ceil(per_lane.div_ceil(most))
}

/// What `shaders/lib/weights.wgsl` has to know.
pub(super) fn weight_consts(variant: Variant, cols: usize, quant: Quant) -> Variant {
    let chunk = 128 / quant.value_bits;
    variant
        .u32("CHUNK_QUADS", chunk / 4)
        .u32("BLOCK_CHUNKS", BLOCK / chunk)
        .u32("ROW_CHUNKS", padded(cols) / chunk)
        .u32("ROW_WORDS", quant.row_bytes(cols) / 16)
        .flag(quant.flag)
        .flag_if(quant.value_bits == 4, "NIBBLES")
        .flag_if(quant.scale_bits > 0, "SCALED")
        .flag_if(quant.has_offset, "OFFSET")
}

/// Whether the padding of rows of `cols` columns stands for something.
pub(super) fn is_ragged(quant: Quant, cols: usize) -> bool {
    quant.has_offset && !cols.is_multiple_of(BLOCK)
}
