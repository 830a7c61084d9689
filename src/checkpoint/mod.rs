//! From files on disk to canonical weights.
//!
//! [`Checkpoint::open`] reads headers only, and checks that every tensor the spec needs is there in the right shape and in a
//! readable number format. [`Checkpoint::read`] then gives rows of [`WeightKey`]s, in the one layout that the rest of the
//! library knows, whatever the layout on disk.

mod blocks;
mod float8;
pub mod gguf;
mod header;
mod in_blocks;
mod mxfp4;
pub mod packed;
mod recipe;
mod recurrent;
mod scatter;
mod shards;
mod store;
mod synthetic;
mod unused;
mod writing;

pub use packed::{PackedInfo, VERSION as PACKED_VERSION};
pub use scatter::{StoredValues, scatter};
pub(crate) use shards::INDEX;
pub use store::{ModelFiles, RowRun, WeightStore};
pub use synthetic::Synthetic;
pub(crate) use writing::{Declared, file_name, header, index};

use crate::platform::{ByteSource, together};
use crate::quant::{Quant, QuantFormat, decode_e4m3};
use crate::spec::{ExpertStorage, ModelSpec, Role, WeightKey};
use crate::tensor::{Dtype, Matrix};
use crate::{Error, Result};
use float8::{Facet, Scales};
use gguf::BlockType;
use header::{Encoding, StoredTensor};
use recipe::{Change, Layout, Needed, Order, Part, Recipe, in_layer};
use shards::Shards;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

/// The weights of one model, open for reading.
#[derive(Debug)]
pub struct Checkpoint {
    spec: ModelSpec,
    shards: Shards,
    /// Of a checkpoint in the layout of device memory.
    packed: Option<PackedInfo>,
    ignored: Vec<String>,
    notes: Vec<String>,
}

/// Rows of embedding and head that are compared at a time.
const COMPARED_ROWS: usize = 1024;

/// The spec with the layout of experts that the files have, where one of two is possible and their shapes tell which.
fn as_stored(spec: &ModelSpec, shards: &Shards) -> ModelSpec {
    let (mut stored, names) = (spec.clone(), &spec.names);
    let Some((layer, moe)) = spec.moe_layers().next() else { return stored };
    if let Some(stacked @ ExpertStorage::Stacked { gate_up, .. }) = names.stacked_experts {
        if shards.get(&in_layer(spec, gate_up, layer)).is_some() {
            stored.names.experts = stacked;
        }
        return stored;
    }
    let ExpertStorage::Transposed { gate_up, down, interleaved: false } = names.experts else { return stored };
    let name = in_layer(spec, gate_up, layer);
    let (experts, hidden, rows) = (moe.router.num_weighted(), spec.hidden_size, 2 * moe.expert.intermediate_size);
    if hidden != rows && shards.get(&name).is_some_and(|stored| stored.shape == [experts, rows, hidden]) {
        stored.names.experts = ExpertStorage::Stacked { gate_up, down };
    }
    stored
}

/// The number format of one tensor.
enum Numbers {
    Plain(Dtype),
    Float8(Scales),
    Blocks(&'static BlockType),
}

impl Numbers {
    /// Of so many elements that are read together.
    fn size_bytes(&self) -> usize {
        match self {
            Numbers::Plain(dtype) => dtype.size_bytes(),
            Numbers::Float8(_) => 1,
            Numbers::Blocks(blocks) => blocks.bytes,
        }
    }

    /// Elements that are read together.
    fn len(&self) -> u64 {
        match self {
            Numbers::Plain(_) | Numbers::Float8(_) => 1,
            Numbers::Blocks(blocks) => blocks.len as u64,
        }
    }

    /// Widens `bytes`, the elements of the tensor from `first` on.
    ///
    /// # Errors
    /// The index of an element in eight bits that is not a number.
    fn widen_into(&self, first: u64, bytes: &[u8], facet: Facet, values: &mut Vec<f32>) -> Result<(), u64> {
        match self {
            Numbers::Plain(dtype) => dtype.widen_into(bytes, values),
            Numbers::Float8(scales) => {
                if let Some(index) = bytes.iter().position(|code| decode_e4m3(*code).is_nan()) {
                    return Err(first + index as u64);
                }
                scales.widen_into(first, bytes, facet, values);
            }
            Numbers::Blocks(blocks) => blocks.widen(bytes, values).map_err(|index| first + index as u64)?,
        }
        Ok(())
    }
}

impl Checkpoint {
    /// Opens `model.safetensors` in `directory`, or the shards that `model.safetensors.index.json` names there, or a GGUF file: `directory` may be
    /// one, or hold one.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::MissingShard`], [`Error::Io`], [`Error::Json`] or [`Error::Safetensors`] if the files are
    /// not whole; [`Error::MissingTensors`], [`Error::TensorShape`] or [`Error::TensorDtype`] if they do not fit `spec`.
    pub async fn open(directory: &Path, spec: &ModelSpec) -> Result<Self> {
        Self::of(Shards::open(directory).await?, spec).await
    }

    async fn of(shards: Shards, spec: &ModelSpec) -> Result<Self> {
        let mut checkpoint = Self::of_headers(shards, spec)?;
        checkpoint.untie_other_head().await?;
        Ok(checkpoint)
    }

    fn of_headers(shards: Shards, spec: &ModelSpec) -> Result<Self> {
        if let Some(packed) = PackedInfo::read(&shards)? {
            // It was written with a head of its own.
            let has_head = shards.get(&Role::Head.of_model().packed_name()).is_some();
            let spec = ModelSpec { tied_embeddings: spec.tied_embeddings && !has_head, ..spec.clone() };
            let ignored = packed.check(&shards, &spec)?;
            return Ok(Checkpoint { spec, shards, packed: Some(packed), ignored, notes: Vec::new() });
        }
        let spec = &as_stored(spec, &shards);
        let parts = WeightKey::all(spec).flat_map(|key| Recipe::of(key, spec).parts);
        let mut names = BTreeSet::new();
        // A tensor that holds all experts is needed by each of them, but only once.
        let needed: Vec<Needed> = parts.flat_map(Part::needed).filter(|needed| names.insert(needed.name.clone())).collect();
        let block = spec.names.float8_block;
        let scales = |needed: &Needed| needed.float8_scales(shards.get(&needed.name)?, block?);
        let scales: Vec<Needed> = needed.iter().filter_map(scales).collect();
        names.extend(scales.iter().map(|scales| scales.name.clone()));

        let is_missing = |needed: &&Needed| shards.get(&needed.name).is_none();
        let missing: Vec<String> = needed.iter().chain(&scales).filter(is_missing).map(|needed| needed.name.clone()).collect();
        if !missing.is_empty() {
            return Err(Error::MissingTensors { missing, expected: needed.len() + scales.len() });
        }
        for (needed, float8) in [(&needed, block.is_some()), (&scales, false)] {
            needed.iter().try_for_each(|needed| needed.check(&shards[needed.name.as_str()], float8))?;
        }
        let ignored: Vec<String> = shards.names().filter(|name| !names.contains(*name)).map(str::to_owned).collect();
        unused::check(spec, &ignored)?;
        Ok(Checkpoint { spec: spec.clone(), shards, packed: None, ignored, notes: Vec::new() })
    }

    /// A head beside the embedding that it is said to be is used where the two differ, as transformers does since version 5.
    async fn untie_other_head(&mut self) -> Result<()> {
        let name = format!("{}{}", self.spec.names.prefix, self.spec.names.head);
        let untied = ModelSpec { tied_embeddings: false, ..self.spec.clone() };
        let same_shape = |stored: &StoredTensor| stored.shape == [self.spec.vocab_size, self.spec.hidden_size];
        let readable_head = self.shards.get(&name).filter(|stored| same_shape(stored) && stored.readable().is_some());
        if self.packed.is_some() || !self.spec.tied_embeddings || readable_head.is_none() {
            return Ok(());
        }
        let tied = std::mem::replace(&mut self.spec, untied);
        let num_rows = tied.vocab_size;
        for first in (0..num_rows).step_by(COMPARED_ROWS) {
            let rows = first..num_rows.min(first + COMPARED_ROWS);
            let embedding = self.read(Role::Embedding.of_model(), rows.clone()).await?;
            if self.read(Role::Head.of_model(), rows).await?.values != embedding.values {
                self.ignored.retain(|ignored| *ignored != name);
                self.notes.push(format!(
                    "config.json says that the embedding is the head (tie_word_embeddings), but the checkpoint has another, `{name}`: it is used"
                ));
                return Ok(());
            }
        }
        self.spec = tied;
        Ok(())
    }

    /// The spec of these weights: the one it was opened with, except where the files say otherwise ([`notes`](Self::notes)).
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// What the user should know about these files, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether weights are stored in the blocks of a GGUF file.
    pub fn has_blocks(&self) -> bool {
        self.shards.names().any(|name| self.shards[name].blocks().is_some())
    }

    /// What `moebius quantize` wrote about the weights in `directory`; `None` for an ordinary checkpoint. Reads headers only.
    ///
    /// # Errors
    /// As [`open`](Self::open), as far as it concerns the files alone.
    pub async fn packed_info_of(directory: &Path) -> Result<Option<PackedInfo>> {
        PackedInfo::read(&Shards::open(directory).await?)
    }

    /// What `moebius quantize` wrote about these weights; `None` for an ordinary checkpoint.
    pub fn packed_info(&self) -> Option<&PackedInfo> {
        self.packed.as_ref()
    }

    /// Name and shape of every tensor that a checkpoint of `spec` must have.
    pub fn required(spec: &ModelSpec) -> BTreeMap<String, Vec<usize>> {
        Self::required_for(spec, WeightKey::all(spec))
    }

    /// The same for some of its weights.
    pub(crate) fn required_for(spec: &ModelSpec, keys: impl IntoIterator<Item = WeightKey>) -> BTreeMap<String, Vec<usize>> {
        let parts = keys.into_iter().flat_map(|key| Recipe::of(key, spec).parts);
        parts.flat_map(Part::needed).map(|needed| (needed.name, needed.shape)).collect()
    }

    /// Names of tensors in the files that the spec does not need, sorted.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// The narrowest format that keeps the stored values of `key` exactly. Of matrices in eight bits that is `fp8` where their blocks lie along
    /// the rows of `key`, and f32 elsewhere. Parts in different blocks of a GGUF file share the format that holds all of them.
    pub fn stored_quant(&self, key: WeightKey) -> Quant {
        if let Some(packed) = &self.packed {
            return packed.quant(self.stored_key(key));
        }
        let parts = Recipe::of(key, &self.spec).parts;
        let first = self.part_quant(&parts[0]);
        if parts.iter().all(|part| self.part_quant(part) == first) {
            return first;
        }
        let blocks: Option<Vec<&BlockType>> = parts.iter().map(|part| self.blocks_of(part)).collect();
        blocks.map_or(QuantFormat::exact_for(Dtype::F32), |blocks| blocks::common(&blocks))
    }

    /// The same for runs of rows: in a GGUF file query, key and value may lie in blocks of their own types, and each keeps its format. Elsewhere
    /// all rows are one run in [`stored_quant`](Self::stored_quant).
    pub fn stored_runs(&self, key: WeightKey) -> Vec<RowRun> {
        let recipe = Recipe::of(key, &self.spec);
        let in_blocks = recipe.parts.iter().any(|part| self.shards_have_blocks(part));
        if self.packed.is_some() || recipe.order != Order::After || !in_blocks {
            return vec![RowRun { rows: 0..key.shape(&self.spec).0, quant: self.stored_quant(key) }];
        }
        let mut runs: Vec<RowRun> = Vec::new();
        for part in &recipe.parts {
            let (first, quant) = (runs.last().map_or(0, |run| run.rows.end), self.part_quant(part));
            match runs.last_mut().filter(|run| run.quant == quant) {
                Some(run) => run.rows.end += part.rows,
                None => runs.push(RowRun { rows: first..first + part.rows, quant }),
            }
        }
        runs
    }

    /// The narrowest format that keeps the stored values of one part exactly.
    fn part_quant(&self, part: &Part) -> Quant {
        let stored = &self.shards[&*part.tensor.name];
        if part.change != Change::None {
            // What is read is made of what is stored, and as exact as f32.
            return QuantFormat::exact_for(Dtype::F32);
        }
        match (&part.layout, stored.encoding) {
            (Layout::Mxfp4 { .. }, _) => QuantFormat::mxfp4(),
            (Layout::Rows { .. }, Encoding::Blocks(_)) => {
                self.blocks_of(part).map_or(QuantFormat::exact_for(Dtype::F32), blocks::held_in)
            }
            _ => match stored.readable() {
                Some(dtype) => QuantFormat::exact_for(dtype),
                None if self.spec.names.float8_block.is_some_and(|block| part.keeps_float8_blocks(block)) => QuantFormat::fp8(),
                None => QuantFormat::exact_for(Dtype::F32),
            },
        }
    }

    fn shards_have_blocks(&self, part: &Part) -> bool {
        self.shards.get(&part.tensor.name).is_some_and(|stored| stored.blocks().is_some())
    }

    /// The blocks of a part whose rows are whole blocks, of a GGUF file.
    fn blocks_of(&self, part: &Part) -> Option<&'static BlockType> {
        let Layout::Rows { first } = part.layout else { return None };
        let is_as_stored = part.change == Change::None;
        let whole =
            |blocks: &&BlockType| is_as_stored && part.cols.is_multiple_of(blocks.len) && first.is_multiple_of(blocks.len as u64);
        self.shards[&*part.tensor.name].blocks().filter(whole)
    }

    /// The asked `rows` of `key`, widened to f32. Only their bytes are read; of a transposed tensor, all between the first and the last of them.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::NotANumber`] of a value in eight bits.
    ///
    /// # Panics
    /// If `rows` ends beyond [`WeightKey::shape`], or `key` names a layer or expert that the spec does not have.
    pub async fn read(&self, key: WeightKey, rows: Range<usize>) -> Result<Matrix> {
        self.read_facet(key, rows, Facet::Product).await
    }

    /// The asked `rows` of `key` in `quant`, as [`Quant::pack`](QuantFormat::pack) gives them. Where `quant` is [`stored_quant`](Self::stored_quant), they
    /// keep every bit: what `moebius quantize` wrote as it is, of block FP8 codes and factors.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    ///
    /// # Panics
    /// As [`read`](Self::read).
    pub async fn read_packed(&self, key: WeightKey, rows: Range<usize>, quant: Quant) -> Result<Vec<u8>> {
        if self.packed.as_ref().is_some_and(|packed| packed.quant(self.stored_key(key)) == quant) {
            let bytes = self.packed_rows(key, &rows).await?.into_owned();
            self.release_packed_rows(key, &rows);
            return Ok(bytes);
        }
        if self.packed.is_none() && quant == QuantFormat::fp8() && self.stored_quant(key) == quant {
            // The factor of a block cannot be had from its products.
            let codes = self.read_facet(key, rows.clone(), Facet::Code).await?;
            let factors = self.read_facet(key, rows, Facet::Factor).await?;
            return Ok(QuantFormat::pack_fp8(&codes.values, &factors.values, codes.cols));
        }
        if self.packed.is_none()
            && let Some(packed) = self.read_blocks(key, &rows, quant).await?
        {
            return Ok(packed);
        }
        let first = rows.start;
        let matrix = self.read(key, rows).await?;
        // A block has no code for what is not finite: it would be lost without a word.
        let bad = if quant.scale_bits > 0 { matrix.values.iter().position(|value| !value.is_finite()) } else { None };
        if let Some(index) = bad {
            return Err(Error::NotANumber { name: key.packed_name(), index: (first * matrix.cols + index) as u64 });
        }
        Ok(quant.pack(&matrix.values, matrix.cols))
    }

    /// Whether `moebius quantize` wrote the weight in this format: [`read_stored`](Self::read_stored) gives what a device keeps.
    pub fn stores(&self, key: WeightKey, quant: Quant) -> bool {
        self.packed.as_ref().is_some_and(|packed| packed.quant(self.stored_key(key)) == quant)
    }

    /// The whole of these weights as they are stored in a packed checkpoint, read together: those that lie side by side with one request.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::SourceChanged`].
    pub async fn read_stored(&self, keys: &[WeightKey]) -> Result<Vec<Vec<u8>>> {
        let places = keys.iter().map(|key| {
            let (name, row_bytes) = self.packed_place(*key);
            let source = self.shards[&*name].source;
            (source, self.place(&name, 0..key.shape(&self.spec).0 as u64, row_bytes).1)
        });
        // A run: its file, where it lies, and the lengths of the weights in it.
        let mut runs: Vec<(usize, Range<u64>, Vec<usize>)> = Vec::new();
        for (source, bytes) in places {
            let len = (bytes.end - bytes.start) as usize;
            match runs.last_mut() {
                Some((of, run, lens)) if *of == source && run.end == bytes.start => {
                    run.end = bytes.end;
                    lens.push(len);
                }
                _ => runs.push((source, bytes, vec![len])),
            }
        }
        let reads = runs.iter().map(|(source, run, _)| self.shards.source(*source).read_owned(run.clone())).collect();
        let mut weights = Vec::with_capacity(keys.len());
        for (read, (_, _, lens)) in together(reads).await.into_iter().zip(&runs) {
            let mut read = read?;
            for len in lens {
                let rest = read.split_off(*len);
                weights.push(std::mem::replace(&mut read, rest));
            }
        }
        Ok(weights)
    }

    async fn read_facet(&self, key: WeightKey, rows: Range<usize>, facet: Facet) -> Result<Matrix> {
        let (num_rows, cols) = key.shape(&self.spec);
        assert!(rows.start <= rows.end && rows.end <= num_rows, "rows {rows:?} of {}, which has {num_rows}", key.packed_name());
        if let Some(packed) = &self.packed {
            let values = packed.quant(self.stored_key(key)).unpack(&self.packed_rows(key, &rows).await?, cols);
            self.release_packed_rows(key, &rows);
            return Ok(Matrix { rows: rows.len(), cols, values });
        }
        let recipe = Recipe::of(key, &self.spec);
        // A vector is a row here and a column in its recipe.
        let per_row = cols / recipe.cols;
        let recipe_rows = rows.start * per_row..rows.end * per_row;
        let values = self.read_recipe(&recipe, recipe_rows, facet).await?;
        Ok(Matrix { rows: rows.len(), cols, values })
    }

    /// A head that is the embedding is stored as that.
    fn stored_key(&self, key: WeightKey) -> WeightKey {
        if key.role == Role::Head && self.spec.tied_embeddings { Role::Embedding.of_model() } else { key }
    }

    /// Rows of a packed checkpoint as they are stored.
    async fn packed_rows(&self, key: WeightKey, rows: &Range<usize>) -> Result<Cow<'_, [u8]>> {
        let (name, row_bytes) = self.packed_place(key);
        self.elements(&name, rows.start as u64..rows.end as u64, row_bytes).await
    }

    fn release_packed_rows(&self, key: WeightKey, rows: &Range<usize>) {
        let (name, row_bytes) = self.packed_place(key);
        self.release(&name, rows.start as u64..rows.end as u64, row_bytes);
    }

    /// The tensor of a packed checkpoint, and the bytes of one of its rows.
    fn packed_place(&self, key: WeightKey) -> (String, usize) {
        let key = self.stored_key(key);
        (key.packed_name(), self.stored_quant(key).row_bytes(key.shape(&self.spec).1))
    }

    /// The values of `rows` of a recipe.
    async fn read_recipe(&self, recipe: &Recipe, rows: Range<usize>, facet: Facet) -> Result<Vec<f32>> {
        let mut pieces = Vec::with_capacity(recipe.parts.len());
        for (part, rows) in recipe.parts.iter().zip(recipe.rows_of_parts(&rows)) {
            let mut piece = Vec::with_capacity(rows.len() * recipe.cols);
            self.read_part(part, rows, facet, &mut piece).await?;
            part.change.apply(&mut piece);
            pieces.push(piece);
        }
        Ok(recipe.joined(pieces, recipe.cols, rows))
    }

    /// Appends `rows` of one part to `values`.
    async fn read_part(&self, part: &Part, rows: Range<usize>, facet: Facet, values: &mut Vec<f32>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let (start, end, cols) = (rows.start as u64, rows.end as u64, part.cols as u64);
        let name = &part.tensor.name;
        let not_a_number = |index: u64| Error::NotANumber { name: name.clone(), index };
        match &part.layout {
            Layout::Rows { first } => {
                let elements = first + start * cols..first + end * cols;
                let numbers = self.numbers(&part.tensor).await?;
                self.widen(name, &numbers, elements, facet, values).await?;
            }
            Layout::Columns { first, stride } if self.shards[&*part.tensor.name].blocks().is_some() => {
                let numbers = self.numbers(&part.tensor).await?;
                let mut stored = Vec::new();
                self.widen(name, &numbers, first + start..first + (cols - 1) * stride + end, facet, &mut stored).await?;
                for row in 0..rows.len() {
                    values.extend(stored[row..].iter().step_by(*stride as usize).take(part.cols));
                }
            }
            Layout::Columns { first, stride } => {
                let elements = first + start..first + (cols - 1) * stride + end;
                let numbers = self.numbers(&part.tensor).await?;
                let bytes = self.elements(name, elements.clone(), numbers.size_bytes()).await?;
                let base = values.len();
                values.resize(base + rows.len() * part.cols, 0.0);
                let mut column = Vec::with_capacity(rows.len());
                for (col, bytes) in bytes.chunks(*stride as usize * numbers.size_bytes()).enumerate() {
                    column.clear();
                    let first = elements.start + col as u64 * stride;
                    let bytes = &bytes[..rows.len() * numbers.size_bytes()];
                    numbers.widen_into(first, bytes, facet, &mut column).map_err(not_a_number)?;
                    for (row, value) in column.iter().enumerate() {
                        values[base + row * part.cols + col] = *value;
                    }
                }
                // The rows of one part lie in the same pages.
                if rows.end == part.rows {
                    self.release(name, *first..elements.end, numbers.size_bytes());
                }
            }
            Layout::Mxfp4 { first_row, scales } => {
                let blocks_per_row = cols / mxfp4::BLOCK as u64;
                let blocks = (first_row + start) * blocks_per_row..(first_row + end) * blocks_per_row;
                let scales = self.elements(&scales.name, blocks.clone(), 1).await?;
                mxfp4::widen_into(&self.elements(name, blocks.clone(), mxfp4::BLOCK_BYTES).await?, &scales, values);
                self.release(name, blocks, mxfp4::BLOCK_BYTES);
            }
        }
        Ok(())
    }

    /// Appends a range of elements, which may begin or end inside a block.
    async fn widen(&self, name: &str, numbers: &Numbers, range: Range<u64>, facet: Facet, values: &mut Vec<f32>) -> Result<()> {
        let len = numbers.len();
        let units = range.start / len..range.end.div_ceil(len);
        let bytes = self.elements(name, units.clone(), numbers.size_bytes()).await?;
        let base = values.len();
        let not_a_number = |index: u64| Error::NotANumber { name: name.to_owned(), index };
        numbers.widen_into(units.start * len, &bytes, facet, values).map_err(not_a_number)?;
        drop(bytes);
        self.release(name, units.clone(), numbers.size_bytes());
        let before = (range.start - units.start * len) as usize;
        values.drain(base..base + before);
        values.truncate(base + (range.end - range.start) as usize);
        Ok(())
    }

    /// The bytes of a range of elements of `size_bytes` each.
    async fn elements(&self, name: &str, range: Range<u64>, size_bytes: usize) -> Result<Cow<'_, [u8]>> {
        let (source, bytes) = self.place(name, range, size_bytes);
        source.read(bytes).await
    }

    /// Says that a range of elements has been read for now.
    fn release(&self, name: &str, range: Range<u64>, size_bytes: usize) {
        let (source, bytes) = self.place(name, range, size_bytes);
        source.release(bytes);
    }

    fn place(&self, name: &str, range: Range<u64>, size_bytes: usize) -> (&ByteSource, Range<u64>) {
        let StoredTensor { source, bytes, .. } = &self.shards[name];
        let size_bytes = size_bytes as u64;
        (self.shards.source(*source), bytes.start + range.start * size_bytes..bytes.start + range.end * size_bytes)
    }

    /// How the elements of a tensor are written.
    async fn numbers(&self, tensor: &Needed) -> Result<Numbers> {
        let stored = &self.shards[&*tensor.name];
        if let Some(dtype) = stored.readable() {
            return Ok(Numbers::Plain(dtype));
        }
        if let Some(blocks) = stored.blocks() {
            return Ok(Numbers::Blocks(blocks));
        }
        let block = self.spec.names.float8_block.expect("open refuses every other dtype");
        let scales = tensor.float8_scales(stored, block).expect("open refuses every other shape");
        let dtype = self.shards[&*scales.name].readable().expect("open refuses every other dtype");
        let len = scales.shape.iter().product::<usize>();
        let mut values = Vec::with_capacity(len);
        dtype.widen_into(&self.elements(&scales.name, 0..len as u64, dtype.size_bytes()).await?, &mut values);
        if let Some(index) = values.iter().position(|factor| !factor.is_finite()) {
            return Err(Error::NotANumber { name: scales.name, index: index as u64 });
        }
        Ok(Numbers::Float8(Scales { values, cols: tensor.shape[1], block }))
    }
}
