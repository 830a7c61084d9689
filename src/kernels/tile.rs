//! How the matmul kernels cut their work: the consts and flags of `shaders/lib/matmul.wgsl` and `weights.wgsl`.

use crate::gpu::{Caps, Knob, Profile, Variant};
use crate::quant::{BLOCK, Quant, SUPERBLOCK, padded};

/// Rows that one team computes at a time; fixed in the shader.
const QUAD: usize = 4;

/// Tokens of one tile where a few share the weights.
pub(super) const FEW_TOKENS: usize = 8;

/// Rows of a staged tile: with 64 tokens, and 32 columns of both at a time, just what every device grants of workgroup memory.
const STAGED_ROWS: usize = 64;
/// Invocations of its workgroup: in a step, each loads one quad of four rows.
const STAGED_WORKGROUP: usize = STAGED_ROWS / QUAD * (BLOCK / QUAD);

/// Most invocations of a workgroup that has a whole matrix: every device grants them.
const WHOLE_WORKGROUP: usize = 256;

/// A workgroup computes `rows` rows of `tokens` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    pub workgroup: usize,
    pub rows: usize,
    pub tokens: usize,
    work: Work,
    /// Words of each row that an invocation of a team asks for at once, at most.
    words: usize,
    /// Values of mxfp4 go through the bits of an f16.
    half_bits: bool,
}

/// Who computes what, and how partial sums meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// The workgroup is one subgroup, and every lane meets all rows with its slice of the activations.
    Slice,
    /// Each invocation has four rows to itself.
    Alone,
    /// Each team of this many invocations, which are part of one subgroup, has four rows; they add up by shuffles.
    Subgroups(usize),
    /// Each team of this many invocations has four rows; they add up through workgroup memory.
    Teams(usize),
    /// Weights and activations are staged in workgroup memory, and each invocation has four rows of every eighth token.
    Staged,
}

/// Tokens of one tile where about `num_tokens` share each weight. Beyond what a team takes, a GPU's tiles are staged: the larger, the fewer
/// bytes per operation, and the fewer workgroups that a core holds.
pub(super) fn tile_tokens(caps: &Caps, num_tokens: usize) -> usize {
    match (caps.profile, num_tokens) {
        (_, ..=1) => 1,
        (_, ..=FEW_TOKENS) => FEW_TOKENS,
        (Profile::Cpu, _) if Knob::TileTokens.values(caps).is_empty() => FEW_TOKENS,
        (Profile::Cpu, _) => caps.knob(Knob::TileTokens),
        (Profile::Gpu, ..=24) => 16.min(caps.knob(Knob::TileTokens)),
        (Profile::Gpu, ..=96) => 32.min(caps.knob(Knob::TileTokens)),
        (Profile::Gpu, _) => caps.knob(Knob::TileTokens),
    }
}

impl Work {
    /// Teams of `lanes`, by shuffles where a team is certain to lie in one subgroup.
    fn of_teams(caps: &Caps, lanes: usize) -> Self {
        match caps.subgroup_size {
            Some(size) if size as usize >= lanes => Work::Subgroups(lanes),
            _ => Work::Teams(lanes),
        }
    }
}

impl Tile {
    /// The tile for a matrix of `num_rows` rows and a batch of `num_tokens`.
    pub fn choose(caps: &Caps, num_tokens: usize, num_rows: usize) -> Self {
        let tokens = match (caps.profile, tile_tokens(caps, num_tokens)) {
            (Profile::Cpu, tokens) | (Profile::Gpu, tokens @ ..=FEW_TOKENS) => tokens,
            // Most of a staged tile would be for nothing.
            _ if num_rows <= STAGED_ROWS / 2 => FEW_TOKENS,
            // A tile that is half full costs half, so 16 is not worth a variant of every matrix.
            (Profile::Gpu, many) => many.max(32),
        };
        Tile::of(caps, tokens, num_rows)
    }

    /// The tile of so many `tokens`, as [`tile_tokens`] counts them.
    pub fn of(caps: &Caps, tokens: usize, num_rows: usize) -> Self {
        let half_bits = caps.profile == Profile::Gpu && caps.small_halves;
        let tile = |workgroup, rows, work| Tile { workgroup, rows, tokens, work, words: 2, half_bits };
        if tokens > FEW_TOKENS && caps.profile == Profile::Gpu {
            return tile(STAGED_WORKGROUP, STAGED_ROWS, Work::Staged);
        }
        let subgroup = caps.subgroup_size.map(|size| size as usize);
        match (caps.profile, subgroup) {
            // A software device runs a subgroup as one vector, and loads lane by lane: what is in registers costs nothing to use again.
            (Profile::Cpu, Some(size)) => tile(size, slice_rows(caps, tokens, num_rows), Work::Slice),
            (Profile::Cpu, None) => tile(8, 8 * QUAD, Work::Alone),
            (Profile::Gpu, _) if tokens == 1 => {
                let lanes = caps.knob(Knob::DecodeLanes);
                let workgroup = caps.knob(Knob::DecodeWorkgroup).max(lanes);
                tile(workgroup, workgroup / lanes * QUAD, Work::of_teams(caps, lanes))
            }
            // Eight lanes read 128 consecutive bytes of a row.
            (Profile::Gpu, _) => {
                let lanes = caps.knob(Knob::BatchLanes);
                tile(64, 64 / lanes * QUAD, Work::of_teams(caps, lanes))
            }
        }
    }

    /// One workgroup that has all `num_rows` rows of one token; `None` where there are too many. What it reads is little, and every invocation
    /// waits for its own loads while nobody else has work: on a GPU there are as many of them as a workgroup may have, and of each more.
    pub fn whole(caps: &Caps, num_rows: usize) -> Option<Self> {
        let quads = num_rows.div_ceil(QUAD);
        let lanes = (WHOLE_WORKGROUP / quads.next_power_of_two()).min(WHOLE_WORKGROUP / 2);
        let (workgroup, work) = match (caps.profile, caps.subgroup_size) {
            (Profile::Cpu, Some(size)) => (size as usize, Work::Slice),
            (Profile::Cpu, None) => (quads.next_multiple_of(8), Work::Alone),
            (Profile::Gpu, _) if lanes == 0 => return None,
            (Profile::Gpu, _) => (lanes * quads, Work::of_teams(caps, lanes)),
        };
        let half_bits = caps.profile == Profile::Gpu && caps.small_halves;
        let tile = Tile { workgroup, rows: quads * QUAD, tokens: 1, work, words: 4, half_bits };
        (workgroup <= WHOLE_WORKGROUP).then_some(tile)
    }

    /// The variant for rows of `cols` columns in a weight format.
    pub fn variant(&self, cols: usize, quant: Quant) -> Variant {
        let variant = weight_consts(Variant::new(), cols, quant)
            .u32("WG", self.workgroup)
            .u32("ROWS", self.rows)
            .u32("TOKENS", self.tokens)
            .u32("ROW_QUADS", padded(cols) / 4)
            .flag_if(self.half_bits && quant.flag == "WEIGHT_MXFP4", "HALF_BITS")
            .flag_if(matches!(self.work, Work::Slice | Work::Subgroups(_)), "SUBGROUPS");
        match self.work {
            Work::Slice => {
                let chunks = slice_chunks(self.tokens, self.workgroup, cols, quant);
                // Values that share a scale, or the whole slice.
                let part = if quant.scale_bits > 0 { quant.group_len.min(BLOCK) } else { chunks * chunk_len(quant) };
                variant
                    .flag("SLICE")
                    .u32("PART_QUADS", part / QUAD)
                    .u32("LANE_STEPS", self.workgroup.ilog2() as usize)
                    .u32("SLICE_CHUNKS", chunks)
                    .u32("LANE_TOKENS", self.tokens.div_ceil(self.workgroup))
                    .u32("TOKEN_QUADS", self.tokens / QUAD)
                    .flag_if(self.tokens == 1, "ONE_TOKEN")
            }
            Work::Staged => variant
                .flag("STAGED")
                .u32("TOKEN_LOADS", self.tokens * (BLOCK / 4) / self.workgroup)
                .u32("THREAD_TOKENS", self.tokens * self.rows / QUAD / self.workgroup),
            Work::Alone => variant.u32("LANES", 1).flag("LANES_1"),
            Work::Teams(lanes) => self.of_teams(variant, lanes),
            Work::Subgroups(lanes) => self.of_teams(variant, lanes).u32("LANE_STEPS", lanes.ilog2() as usize),
        }
    }

    fn of_teams(&self, variant: Variant, lanes: usize) -> Variant {
        // Of four rows, so words of many values are enough by themselves.
        let step = (2 * self.words / variant.get("CHUNK_QUADS") as usize).clamp(1, self.words);
        let variant = variant.u32("LANES", lanes);
        if self.tokens == 1 { variant.flag("ONE_TOKEN").u32("STEP_CHUNKS", step) } else { variant }
    }

    /// Workgroups that cover `num_rows` weight rows.
    pub fn row_groups(&self, num_rows: usize) -> usize {
        num_rows.div_ceil(self.rows)
    }
}

/// Rows of a workgroup that keeps slices: many, because filling them costs as much as some rows; few enough to give every core work, of
/// which many tokens bring more.
fn slice_rows(caps: &Caps, tokens: usize, num_rows: usize) -> usize {
    let (many, few, enough) = match tokens {
        1 => (caps.knob(Knob::DecodeRows), 16, 4),
        ..=FEW_TOKENS => (caps.knob(Knob::TileRows), 64, 2),
        _ => (caps.knob(Knob::TileRows), 64, 1),
    };
    if num_rows >= enough * many { many } else { few.min(many) }
}

/// Words of a row of `cols` columns that a lane of `lanes` takes in one pass, no more than four: whole blocks where they have scales,
/// otherwise so many that the last pass is as full as the others.
fn slice_chunks(tokens: usize, lanes: usize, cols: usize, quant: Quant) -> usize {
    let blocks = if tokens == 1 || has_short_blocks(quant) { 2 } else { 1 };
    let most = (blocks * block_chunks(quant)).min(4);
    if quant.scale_bits > 0 {
        return most;
    }
    let per_lane = (padded(cols) / chunk_len(quant)).div_ceil(lanes);
    per_lane.div_ceil(per_lane.div_ceil(most))
}

/// Values of a word.
fn chunk_len(quant: Quant) -> usize {
    128 / quant.word_bits()
}

/// Words of a block as the shaders have it: of values that share a scale, but no fewer than a word has and no more than 32.
fn block_chunks(quant: Quant) -> usize {
    let chunk = chunk_len(quant);
    quant.group_len.clamp(chunk, BLOCK) / chunk
}

/// Whether 32 values have more than one scale, and one word no more than one.
fn has_short_blocks(quant: Quant) -> bool {
    block_chunks(quant) * chunk_len(quant) < BLOCK
}

/// What `shaders/lib/weights.wgsl` has to know.
pub(super) fn weight_consts(variant: Variant, cols: usize, quant: Quant) -> Variant {
    let chunk = chunk_len(quant);
    let variant = variant
        .u32("CHUNK_QUADS", chunk / QUAD)
        .u32("BLOCK_CHUNKS", block_chunks(quant))
        .u32("ROW_CHUNKS", padded(cols) / chunk)
        .u32("SCALES_WORD", quant.scales_offset(cols) / 16)
        .u32("ROW_WORDS", quant.row_bytes(cols) / 16)
        .flag(quant.flag)
        .flag_if(quant.word_bits() == 4, "NIBBLES")
        .flag_if(quant.word_bits() == 8 && quant.flag != "WEIGHT_FP8", "SIGNED_BYTES")
        .flag_if(quant.high_bits > 0, "HIGH_BITS")
        .flag_if(quant.scale_bits > 0, "SCALED")
        .flag_if(quant.has_offset, "OFFSET")
        .flag_if(quant.group_len < chunk, "HALVES")
        .flag_if(has_short_blocks(quant), "SHORT_BLOCKS");
    if quant.block_len < SUPERBLOCK {
        return variant;
    }
    let superblocks = padded(cols).div_ceil(SUPERBLOCK);
    variant.u32("ROW_SUPERBLOCKS", superblocks).flag_if(quant.has_offset, "SUPERBLOCKS")
}

/// Whether the padding of rows of `cols` columns stands for something.
pub(super) fn is_ragged(quant: Quant, cols: usize) -> bool {
    quant.has_offset && !cols.is_multiple_of(BLOCK)
}
