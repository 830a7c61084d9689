//! How the matmul kernels cut their work: the consts and flags of `shaders/lib/matmul.wgsl`.

use crate::gpu::{Caps, Profile, Variant};
use crate::quant::{Quant, padded};

/// Rows that one team computes at a time; fixed in the shader.
pub(super) const QUAD: usize = 4;
/// Columns of one chunk; fixed in the shader.
pub(super) const CHUNK: usize = 8;

/// Tokens of one tile where many share the weights.
const MANY_TOKENS: usize = 8;

/// A team of `lanes` invocations computes [`QUAD`] rows of `tokens` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    pub workgroup: usize,
    pub lanes: usize,
    pub tokens: usize,
    pub subgroups: bool,
}

impl Tile {
    /// The tile for a batch in which `num_tokens` rows share each weight.
    pub fn choose(caps: &Caps, num_tokens: usize) -> Self {
        let tokens = if num_tokens > 1 { MANY_TOKENS } else { 1 };
        let subgroup = caps.subgroup_size.map(|size| size as usize);
        match (caps.profile, subgroup) {
            // A software device runs a subgroup as one vector: no reduction through memory, and no barrier.
            (Profile::Cpu, Some(size)) if tokens == 1 => Tile { workgroup: size, lanes: size, tokens, subgroups: true },
            (Profile::Cpu, _) => Tile { workgroup: 8, lanes: 1, tokens, subgroups: false },
            (Profile::Gpu, Some(size)) if tokens == 1 => Tile { workgroup: size.max(64), lanes: size, tokens, subgroups: true },
            (Profile::Gpu, _) if tokens == 1 => Tile { workgroup: 64, lanes: 32, tokens, subgroups: false },
            // Eight lanes read 128 consecutive bytes of a 16-bit row.
            (Profile::Gpu, _) => Tile { workgroup: 64, lanes: 8, tokens, subgroups: false },
        }
    }

    /// The variant for rows of `cols` columns in a weight format.
    pub fn variant(&self, cols: usize, quant: Quant) -> Variant {
        Variant::new()
            .u32("WG", self.workgroup)
            .u32("LANES", self.lanes)
            .u32("TOKENS", self.tokens)
            .u32("K_CHUNKS", padded(cols) / CHUNK)
            .flag(quant.flag)
            .flag_if(self.lanes == 1, "LANES_1")
            .flag_if(self.subgroups, "SUBGROUPS")
    }

    /// Workgroups that cover `num_rows` weight rows.
    pub fn row_groups(&self, num_rows: usize) -> usize {
        num_rows.div_ceil(QUAD).div_ceil(self.workgroup / self.lanes)
    }
}
