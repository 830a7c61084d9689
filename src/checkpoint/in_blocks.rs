//! Reading weights in the blocks of a GGUF file, without making numbers of them.

use super::gguf::BlockType;
use super::recipe::{Layout, Order, Part, Recipe};
use super::{Checkpoint, blocks};
use crate::quant::Quant;
use crate::spec::WeightKey;
use crate::{Error, Result};
use std::ops::Range;

impl Checkpoint {
    /// `rows` of `key` in `quant`, block by block as they are stored; `None` where they do not lie in blocks, or are asked for in another format.
    pub(super) async fn read_blocks(&self, key: WeightKey, rows: &Range<usize>, quant: Quant) -> Result<Option<Vec<u8>>> {
        let recipe = Recipe::of(key, &self.spec);
        let ranges = recipe.rows_of_parts(rows);
        let mut asked = recipe.parts.iter().zip(&ranges).filter(|(_, rows)| !rows.is_empty()).map(|(part, _)| part);
        let is_shared = self.stored_quant(key) == quant;
        if !asked.all(|part| self.blocks_of(part).is_some_and(|block| is_shared || blocks::held_in(block) == quant)) {
            return Ok(None);
        }
        if let Some(packed) = self.turns_in_blocks(&recipe, &ranges, quant).await? {
            return Ok(Some(packed));
        }
        let mut pieces = Vec::with_capacity(recipe.parts.len());
        for (part, rows) in recipe.parts.iter().zip(ranges) {
            pieces.push(self.part_in_blocks(part, rows, quant).await?);
        }
        Ok(Some(recipe.joined(pieces, quant.row_bytes(recipe.cols), rows.clone())))
    }

    /// Parts whose rows take turns, packed as the whole at once: `None` where their blocks differ, or are not kept as they are.
    async fn turns_in_blocks(&self, recipe: &Recipe, ranges: &[Range<usize>], quant: Quant) -> Result<Option<Vec<u8>>> {
        let block = self.blocks_of(&recipe.parts[0]);
        let same = recipe.parts.iter().all(|part| self.blocks_of(part) == block) && ranges.iter().all(|rows| *rows == ranges[0]);
        let Some(block) = block.filter(|_| recipe.order == Order::Turns && same && !ranges[0].is_empty()) else {
            return Ok(None);
        };
        let mut read = Vec::with_capacity(recipe.parts.len());
        for (part, rows) in recipe.parts.iter().zip(ranges) {
            let range = block_range(part, rows, block);
            read.push((self.elements(&part.tensor.name, range.clone(), block.bytes).await?, range));
        }
        let bytes: Vec<&[u8]> = read.iter().map(|(bytes, _)| &**bytes).collect();
        let Some(packed) = blocks::pack_turns(block, &bytes, recipe.cols, quant) else { return Ok(None) };
        let packed = packed.map_err(|(part, index)| {
            let first = read[part].1.start * block.len as u64;
            Error::NotANumber { name: recipe.parts[part].tensor.name.clone(), index: first + index as u64 }
        })?;
        for (part, (bytes, range)) in recipe.parts.iter().zip(read) {
            drop(bytes);
            self.release(&part.tensor.name, range, block.bytes);
        }
        Ok(Some(packed))
    }

    async fn part_in_blocks(&self, part: &Part, rows: Range<usize>, quant: Quant) -> Result<Vec<u8>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let block = self.blocks_of(part).expect("read_blocks has looked");
        let range = block_range(part, &rows, block);
        let bytes = self.elements(&part.tensor.name, range.clone(), block.bytes).await?;
        let packed = blocks::pack(block, &bytes, part.cols, quant).map_err(|index| Error::NotANumber {
            name: part.tensor.name.clone(),
            index: range.start * block.len as u64 + index as u64,
        })?;
        drop(bytes);
        self.release(&part.tensor.name, range, block.bytes);
        Ok(packed)
    }
}

/// The blocks of `rows` of a part that lies in whole ones.
fn block_range(part: &Part, rows: &Range<usize>, block: &BlockType) -> Range<u64> {
    let Layout::Rows { first } = part.layout else { unreachable!("only rows lie in blocks") };
    let (len, cols) = (block.len as u64, part.cols as u64);
    (first + rows.start as u64 * cols) / len..(first + rows.end as u64 * cols) / len
}
