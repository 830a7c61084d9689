//! A model's files, and the weights among them.

use super::Checkpoint;
use super::gguf::{self, Gguf};
use super::shards::{self, Shards};
use super::synthetic::Synthetic;
use crate::error::{Error, Result};
use crate::platform::read_model_text;
use crate::quant::{Quant, QuantFormat};
use crate::spec::{ModelSpec, WeightKey};
use crate::tensor::{Dtype, Matrix};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CONFIG: &str = "config.json";

/// A model whose config has been read: the directory with `config.json`, or a GGUF file, whose header is read only once.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    directory: PathBuf,
    spec: ModelSpec,
    gguf: Option<Arc<Gguf>>,
}

impl ModelFiles {
    /// Reads the config of the model in `directory`: `config.json`, or the header of a GGUF file, which may be named itself instead of its directory.
    ///
    /// # Errors
    /// As [`ModelSpec::parse`]; without a config [`Error::MissingFile`], or [`Error::ForeignLayout`] where the files of another layout are there;
    /// [`Error::Gguf`].
    pub async fn open(directory: &Path) -> Result<Self> {
        if let Some(file) = gguf::file_of(directory).await? {
            let files = Self::of_gguf(Gguf::open(&file).await?).await?;
            return Ok(ModelFiles { directory: file, ..files });
        }
        let config = match read_model_text(directory, CONFIG).await {
            Err(Error::MissingFile { .. }) => return Err(shards::without(directory, CONFIG)),
            other => other?,
        };
        let spec = ModelSpec::parse(&config, &directory.join(CONFIG).display().to_string())?;
        Ok(ModelFiles { directory: directory.to_owned(), spec, gguf: None })
    }

    /// A GGUF file whose header was read, from wherever it lies.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn of_gguf(gguf: Gguf) -> Result<Self> {
        let spec = gguf::spec(&gguf).await?;
        Ok(ModelFiles { directory: PathBuf::from(gguf.sources()[0].name()), spec, gguf: Some(Arc::new(gguf)) })
    }

    /// The directory, or the GGUF file.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// The GGUF file, where the model is one.
    pub fn gguf(&self) -> Option<&Gguf> {
        self.gguf.as_deref()
    }

    /// What the config says. The weights may know better: [`WeightStore::spec`].
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Opens the weights.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub async fn weights(&self) -> Result<Checkpoint> {
        Checkpoint::of(self.shards().await?, &self.spec).await
    }

    /// What [`weights`](Self::weights) finds out from the headers alone: for weights that are still on a server.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub async fn check_weights(&self) -> Result<()> {
        Checkpoint::of_headers(self.shards().await?, &self.spec).map(drop)
    }

    async fn shards(&self) -> Result<Shards> {
        match &self.gguf {
            Some(gguf) => Ok(Shards::of_gguf(gguf)),
            None => Shards::open(&self.directory).await,
        }
    }
}

/// Rows of a weight that share a format.
#[derive(Debug, Clone, PartialEq)]
pub struct RowRun {
    pub rows: Range<usize>,
    pub quant: Quant,
}

/// Somewhere to read [`WeightKey`]s from, for as long as a model is loaded.
#[derive(Debug)]
pub enum WeightStore {
    Checkpoint(Checkpoint),
    Synthetic(Synthetic),
}

impl From<Checkpoint> for Arc<WeightStore> {
    fn from(checkpoint: Checkpoint) -> Self {
        Arc::new(WeightStore::Checkpoint(checkpoint))
    }
}

impl From<Synthetic> for Arc<WeightStore> {
    fn from(synthetic: Synthetic) -> Self {
        Arc::new(WeightStore::Synthetic(synthetic))
    }
}

impl WeightStore {
    /// The spec of these weights.
    pub fn spec(&self) -> &ModelSpec {
        match self {
            WeightStore::Checkpoint(checkpoint) => checkpoint.spec(),
            WeightStore::Synthetic(synthetic) => synthetic.spec(),
        }
    }

    /// As [`Checkpoint::stored_quant`].
    pub fn stored_quant(&self, key: WeightKey) -> Quant {
        match self {
            WeightStore::Checkpoint(checkpoint) => checkpoint.stored_quant(key),
            WeightStore::Synthetic(_) => QuantFormat::exact_for(Dtype::F16),
        }
    }

    /// As [`Checkpoint::stored_runs`].
    pub fn stored_runs(&self, key: WeightKey) -> Vec<RowRun> {
        match self {
            WeightStore::Checkpoint(checkpoint) => checkpoint.stored_runs(key),
            WeightStore::Synthetic(_) => vec![RowRun { rows: 0..key.shape(self.spec()).0, quant: self.stored_quant(key) }],
        }
    }

    /// As [`Checkpoint::read`].
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub async fn read(&self, key: WeightKey, rows: Range<usize>) -> Result<Matrix> {
        match self {
            WeightStore::Checkpoint(checkpoint) => checkpoint.read(key, rows).await,
            WeightStore::Synthetic(synthetic) => Ok(synthetic.read(key, rows)),
        }
    }

    /// As [`Checkpoint::stores`].
    pub fn stores(&self, key: WeightKey, quant: Quant) -> bool {
        match self {
            WeightStore::Checkpoint(checkpoint) => checkpoint.stores(key, quant),
            WeightStore::Synthetic(_) => false,
        }
    }

    /// As [`Checkpoint::read_stored`].
    ///
    /// # Errors
    /// As [`Checkpoint::read_stored`].
    ///
    /// # Panics
    /// For a weight that is not [stored](Self::stores).
    pub async fn read_stored(&self, keys: &[WeightKey]) -> Result<Vec<Vec<u8>>> {
        match self {
            WeightStore::Checkpoint(checkpoint) => checkpoint.read_stored(keys).await,
            WeightStore::Synthetic(_) => unreachable!("random weights are stored nowhere"),
        }
    }

    /// As [`Checkpoint::read_packed`].
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn packed(&self, key: WeightKey, rows: Range<usize>, quant: Quant) -> Result<Arc<Vec<u8>>> {
        match self {
            WeightStore::Checkpoint(checkpoint) => Ok(Arc::new(checkpoint.read_packed(key, rows, quant).await?)),
            WeightStore::Synthetic(synthetic) => Ok(synthetic.packed(key, rows, quant)),
        }
    }
}
