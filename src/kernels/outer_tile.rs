//! How the kernels of gradients cut their work: the consts and flags of `shaders/lib/outer.wgsl`.

use crate::gpu::{Caps, Profile, Variant};

const QUAD: usize = 4;
/// Values of i that go through workgroup memory at a time; fixed in the shader.
const STEP: usize = 16;
/// Rows and columns of a staged tile: with the larger one 256 invocations and 8 KiB.
const TILES: [usize; 2] = [32, 64];
/// Rows of a tile on a software device: each takes a vector register.
const FEW_ROWS: usize = 8;
const ROWS: usize = 16;

/// A workgroup has `rows` rows and `quads` quads of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OuterTile {
    pub rows: usize,
    pub quads: usize,
    pub workgroup: usize,
    work: Work,
}

/// Who loads what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// The workgroup, through its memory.
    Staged,
    /// The lanes of the one subgroup, each for all.
    Lanes,
    /// Each invocation for itself.
    Alone,
}

impl OuterTile {
    /// For `rows` rows of `cols` columns. A matrix of no more than 64 rows or columns would otherwise be one workgroup.
    pub fn choose(caps: &Caps, rows: usize, cols: usize) -> Self {
        match caps.profile {
            Profile::Gpu => Self::staged(if rows.min(cols) <= TILES[1] { TILES[0] } else { TILES[1] }),
            Profile::Cpu => Self::of_quads(caps, if rows > FEW_ROWS { ROWS } else { FEW_ROWS }),
        }
    }

    /// For tiles of `expert_sort`, which have no more than `tile_len` rows.
    pub fn sorted(caps: &Caps, tile_len: usize) -> Self {
        match caps.profile {
            Profile::Gpu => Self::staged(if tile_len <= TILES[0] { TILES[0] } else { tile_len.max(TILES[1]) }),
            Profile::Cpu => Self::of_quads(caps, tile_len.next_multiple_of(FEW_ROWS)),
        }
    }

    fn staged(size: usize) -> Self {
        OuterTile { rows: size, quads: size / QUAD, workgroup: (size / QUAD).pow(2), work: Work::Staged }
    }

    /// A lane has a quad of columns.
    fn of_quads(caps: &Caps, rows: usize) -> Self {
        let (lanes, work) = match caps.subgroup_size {
            // Rows are dealt out to the lanes evenly.
            Some(size) if rows.is_multiple_of(size as usize) => (size as usize, Work::Lanes),
            _ => (8, Work::Alone),
        };
        OuterTile { rows, quads: lanes, workgroup: lanes, work }
    }

    pub fn variant(&self) -> Variant {
        let variant = Variant::new().u32("WG", self.workgroup).u32("M", self.rows).u32("N_QUADS", self.quads);
        match self.work {
            Work::Staged => variant.flag("STAGED").u32("LOADS", STEP * self.quads / self.workgroup),
            Work::Lanes => variant
                .flag("SUBGROUPS")
                .u32("LANES", self.workgroup)
                .u32("M_LANES", self.rows / self.workgroup)
                .u32("M_QUADS", self.rows / QUAD),
            Work::Alone => variant,
        }
    }

    /// Workgroups that cover so many quads of columns.
    pub fn column_groups(&self, num_quads: usize) -> usize {
        num_quads.div_ceil(self.quads)
    }
}
