//! expert_sort: assignments in the order of their experts, cut into tiles of at most tile_len assignments of one expert.
//!
//! ```text
//! ids         [num_assignments] u32    in   expert of each assignment (= token * top_k + rank)
//! slot_table  [num_experts] u32        in   cache slot of each expert
//! tiles       [num_tiles] [u32; 4]     out  (slot, first index into order, count, 0); unused tiles are all zero
//! order       [num_assignments] u32    out  assignments, by expert, then ascending
//! starts      [num_experts + 1] u32    out  [`starts`], where it is asked for
//! ```

/// `tiles` and `order` of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sorted {
    pub tiles: Vec<[u32; 4]>,
    pub order: Vec<u32>,
}

/// # Panics
/// If `num_tiles` is too small.
pub fn expert_sort(ids: &[u32], slot_table: &[u32], tile_len: usize, num_tiles: usize) -> Sorted {
    let mut sorted = Sorted::default();
    for (expert, &slot) in slot_table.iter().enumerate() {
        let first = sorted.order.len();
        let mine = ids.iter().enumerate().filter(|(_, id)| **id as usize == expert);
        sorted.order.extend(mine.map(|(assignment, _)| assignment as u32));
        for start in (first..sorted.order.len()).step_by(tile_len) {
            let count = tile_len.min(sorted.order.len() - start);
            sorted.tiles.push([slot, start as u32, count as u32, 0]);
        }
    }
    assert!(sorted.tiles.len() <= num_tiles, "{} tiles where {num_tiles} were to suffice", sorted.tiles.len());
    sorted.tiles.resize(num_tiles, [0; 4]);
    sorted
}

/// The first index into `order` of each expert, and how many assignments all of them have.
pub fn starts(ids: &[u32], num_experts: usize) -> Vec<u32> {
    let count_below = |end: usize| ids.iter().filter(|id| (**id as usize) < end).count() as u32;
    (0..=num_experts).map(count_below).collect()
}
