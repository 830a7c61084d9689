//! From files on disk to canonical weights.
//!
//! [`Checkpoint::open`] reads headers only, and checks that every tensor the spec needs is there in the right shape and in a
//! readable number format. [`Checkpoint::read`] then gives rows of [`WeightKey`]s, in the one layout that the rest of the
//! library knows, whatever the layout on disk.

mod canonical;
mod header;
mod shards;

pub use canonical::WeightKey;

use crate::spec::ModelSpec;
use crate::tensor::{Dtype, Matrix};
use crate::{Error, Result};
use canonical::{Part, Recipe};
use header::StoredTensor;
use shards::Shards;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

/// The weights of one model, open for reading.
#[derive(Debug)]
pub struct Checkpoint {
    spec: ModelSpec,
    shards: Shards,
    ignored: Vec<String>,
}

impl Checkpoint {
    /// Opens `model.safetensors` in `directory`, or the shards that `model.safetensors.index.json` names there.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::MissingShard`], [`Error::Io`], [`Error::Json`] or [`Error::Safetensors`] if the files are
    /// not whole; [`Error::MissingTensors`], [`Error::TensorShape`] or [`Error::TensorDtype`] if they do not fit `spec`.
    pub async fn open(directory: &Path, spec: &ModelSpec) -> Result<Self> {
        let shards = Shards::open(directory).await?;
        let parts: Vec<Part> = WeightKey::all(spec).flat_map(|key| key.recipe(spec).parts).collect();

        let missing: Vec<String> =
            parts.iter().filter(|part| shards.get(&part.name).is_none()).map(|part| part.name.clone()).collect();
        if !missing.is_empty() {
            return Err(Error::MissingTensors { missing, expected: parts.len() });
        }
        for part in &parts {
            part.check(&shards[part.name.as_str()])?;
        }

        let needed: BTreeSet<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        let ignored = shards.names().filter(|name| !needed.contains(name)).map(str::to_owned).collect();
        Ok(Checkpoint { spec: spec.clone(), shards, ignored })
    }

    /// Names of tensors in the files that the spec does not need, sorted.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// The narrowest number format that keeps the stored values of `key` exactly.
    pub fn stored_dtype(&self, key: WeightKey) -> Dtype {
        let parts = key.recipe(&self.spec).parts;
        let mut dtypes = parts.iter().map(|part| self.dtype(part));
        let first = dtypes.next().expect("a weight has at least one part");
        if dtypes.all(|dtype| dtype == first) { first } else { Dtype::F32 }
    }

    /// The asked `rows` of `key`, widened to f32. Only their bytes are read.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// # Panics
    /// If `rows` ends beyond [`WeightKey::shape`], or `key` names a layer or expert that the spec does not have.
    pub async fn read(&self, key: WeightKey, rows: Range<usize>) -> Result<Matrix> {
        let (num_rows, cols) = key.shape(&self.spec);
        assert!(rows.start <= rows.end && rows.end <= num_rows, "rows {rows:?} of {key:?}, which has {num_rows}");
        let Recipe { parts, interleaved } = key.recipe(&self.spec);
        let values = if interleaved {
            self.read_interleaved(&parts, rows.clone(), cols).await?
        } else {
            self.read_concatenated(&parts, rows.clone(), cols).await?
        };
        Ok(Matrix { rows: rows.len(), cols, values })
    }

    async fn read_concatenated(&self, parts: &[Part], rows: Range<usize>, cols: usize) -> Result<Vec<f32>> {
        let mut values = Vec::with_capacity(rows.len() * cols);
        let mut part_start = 0;
        for part in parts {
            let within = |row: usize| row.clamp(part_start, part_start + part.rows) - part_start;
            self.read_part(part, within(rows.start)..within(rows.end), &mut values).await?;
            part_start += part.rows;
        }
        Ok(values)
    }

    async fn read_interleaved(&self, parts: &[Part], rows: Range<usize>, cols: usize) -> Result<Vec<f32>> {
        let mut pieces = Vec::with_capacity(parts.len());
        for (index, part) in parts.iter().enumerate() {
            // How many rows of this part come before a row of the whole.
            let before = |row: usize| (row + parts.len() - 1 - index) / parts.len();
            let mut piece = Vec::with_capacity((before(rows.end) - before(rows.start)) * cols);
            self.read_part(part, before(rows.start)..before(rows.end), &mut piece).await?;
            pieces.push(piece);
        }
        let mut values = Vec::with_capacity(rows.len() * cols);
        let mut unused: Vec<_> = pieces.iter().map(|piece| piece.chunks_exact(cols)).collect();
        for row in rows {
            values.extend_from_slice(unused[row % parts.len()].next().expect("each part holds its share of the rows"));
        }
        Ok(values)
    }

    /// Appends `rows` of one tensor to `values`.
    async fn read_part(&self, part: &Part, rows: Range<usize>, values: &mut Vec<f32>) -> Result<()> {
        let StoredTensor { source, bytes, .. } = &self.shards[part.name.as_str()];
        let dtype = self.dtype(part);
        let row_bytes = (part.cols * dtype.size_bytes()) as u64;
        let range = bytes.start + rows.start as u64 * row_bytes..bytes.start + rows.end as u64 * row_bytes;
        dtype.widen_into(&self.shards.source(*source).read(range).await?, values);
        Ok(())
    }

    fn dtype(&self, part: &Part) -> Dtype {
        header::readable(self.shards[part.name.as_str()].dtype).expect("open refuses every other dtype")
    }
}
