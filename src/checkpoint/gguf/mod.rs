//! GGUF, the file format of llama.cpp: metadata and tensors in one file, or in several.
//!
//! Nothing in a file is believed before it was checked: counts and lengths are compared with what is left of the file before anything is
//! allocated, and every tensor lies inside of it and apart from the others.

mod arch;
mod block;
mod blocks;
mod config;
mod cursor;
mod header;
mod metadata;

pub use block::{BLOCK_TYPES, BlockType, Codes, GROUP};
pub use metadata::{Metadata, MetadataValue, Number, Numbers, Texts};

pub(crate) use arch::spec;

use crate::platform::{ByteSource, PartName, file_names, is_file, is_gguf_model, is_gguf_name};
use crate::{Error, Result};
use cursor::shown;
use header::{Header, read_header};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One GGUF file, or all parts of a split one, with headers read and checked.
#[derive(Debug)]
pub struct Gguf {
    metadata: Metadata,
    tensors: Vec<GgufTensor>,
    sources: Vec<Arc<ByteSource>>,
}

/// Where one tensor lies, and how it is written.
#[derive(Debug, Clone)]
pub struct GgufTensor {
    pub name: String,
    /// Index of the file among [`Gguf::sources`].
    pub source: usize,
    pub block: &'static BlockType,
    /// The last is the length of a row, which is a whole number of blocks.
    pub shape: Vec<usize>,
    /// Within the file.
    pub bytes: Range<u64>,
}

impl Gguf {
    /// Opens the file at `path`, and where that is one part of several, the others beside it.
    ///
    /// # Errors
    /// [`Error::Gguf`] if a file is damaged or the parts do not belong together, [`Error::MissingShard`] if a part is not there,
    /// [`Error::TensorDtype`] for a type of blocks that is not read, [`Error::Io`].
    pub async fn open(path: &Path) -> Result<Self> {
        let name = PartName::of(path);
        let first = name.as_ref().map_or_else(|| path.to_owned(), |name| name.beside(path, 0));
        if let Some(name) = &name
            && !is_file(&first).await
        {
            return Err(missing(path, name.of_part(0)));
        }
        let mut gguf = Self::begin(ByteSource::open(&first).await?, name.as_ref()).await?;
        if let Some(name) = &name {
            for index in 1..name.count {
                let part = name.beside(path, index);
                if !is_file(&part).await {
                    return Err(missing(path, name.of_part(index)));
                }
                gguf.add_part(ByteSource::open(&part).await?, name, index).await?;
            }
        }
        gguf.check_whole()?;
        Ok(gguf)
    }

    /// The same of files that are open, in the order of their numbers.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn of_parts(parts: Vec<ByteSource>) -> Result<Self> {
        let names: Vec<PathBuf> = parts.iter().map(|part| PathBuf::from(part.name())).collect();
        let mut parts = parts.into_iter();
        let first = parts.next().ok_or_else(|| missing(Path::new(""), "a first part".to_owned()))?;
        let name = PartName::of(&names[0]);
        let mut gguf = Self::begin(first, name.as_ref()).await?;
        if let Some(name) = &name {
            for index in 1..name.count {
                let part = parts.next().ok_or_else(|| missing(&names[0], name.of_part(index)))?;
                gguf.add_part(part, name, index).await?;
            }
        }
        gguf.check_whole()?;
        Ok(gguf)
    }

    /// Reads the first file, of that name where it is one part of several.
    async fn begin(source: ByteSource, name: Option<&PartName>) -> Result<Self> {
        let Header { metadata, tensors } = read_header(&source, 0).await?;
        let gguf = Gguf { metadata, tensors, sources: vec![Arc::new(source)] };
        gguf.metadata.architecture()?;
        check_part(&gguf.metadata, name, 0, split_count(&gguf.metadata)?)?;
        Ok(gguf)
    }

    /// The metadata, of several files that of the first.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, sorted by file and place.
    pub fn tensors(&self) -> &[GgufTensor] {
        &self.tensors
    }

    /// The values of a small tensor of plain numbers.
    ///
    /// # Errors
    /// [`Error::Gguf`] if it is large or has another type, [`Error::Io`].
    pub(super) async fn read_floats(&self, tensor: &GgufTensor) -> Result<Vec<f32>> {
        const MAX_BYTES: u64 = 1 << 20;
        let dtype = tensor.block.dtype().filter(|_| tensor.bytes.end - tensor.bytes.start <= MAX_BYTES);
        let Some(dtype) = dtype else {
            let problem = format!("tensor {}: expected a few plain numbers", shown(&tensor.name));
            return Err(Error::Gguf { file: self.metadata.file().to_owned(), problem });
        };
        let mut values = Vec::new();
        dtype.widen_into(&self.sources[tensor.source].read(tensor.bytes.clone()).await?, &mut values);
        Ok(values)
    }

    /// The files, in the order of their numbers.
    pub fn sources(&self) -> &[Arc<ByteSource>] {
        &self.sources
    }

    async fn add_part(&mut self, source: ByteSource, name: &PartName, index: u64) -> Result<()> {
        let Header { metadata, tensors } = read_header(&source, self.sources.len()).await?;
        check_part(&metadata, Some(name), index, split_count(&metadata)?)?;
        self.tensors.extend(tensors);
        self.sources.push(Arc::new(source));
        Ok(())
    }

    /// Checks what only all parts together can show.
    fn check_whole(&self) -> Result<()> {
        let invalid = |problem| Error::Gguf { file: self.metadata.file().to_owned(), problem };
        let mut names = BTreeSet::new();
        if let Some(twice) = self.tensors.iter().find(|tensor| !names.insert(&tensor.name)) {
            return Err(invalid(format!("tensor {} is in two of its parts", shown(&twice.name))));
        }
        match self.metadata.integer("split.tensors.count")? {
            Some(count) if count != self.tensors.len() as u64 => Err(invalid(format!(
                "`split.tensors.count` is {count}, but its {} files have {} tensors",
                self.sources.len(),
                self.tensors.len()
            ))),
            _ => Ok(()),
        }
    }
}

/// The GGUF file that `path` is, or the one model in GGUF that it holds; `None` for a directory with `config.json`, or without such files.
///
/// # Errors
/// [`Error::Argument`] for a directory with several.
pub(crate) async fn file_of(path: &Path) -> Result<Option<PathBuf>> {
    if is_gguf_name(path) && is_file(path).await {
        return Ok(Some(path.to_owned()));
    }
    if is_file(&path.join("config.json")).await {
        return Ok(None);
    }
    let names = file_names(path);
    let models: Vec<&String> = names.iter().filter(|name| is_gguf_model(Path::new(name))).collect();
    match models.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(path.join(only))),
        [first, ..] => Err(Error::Argument {
            what: "model",
            expected: format!("one of the {} GGUF files in this folder, such as {}", models.len(), path.join(first).display()),
            found: path.display().to_string(),
        }),
    }
}

/// A tensor under the name and with the shape that all converters but some use: single rows and columns are vectors or rows.
pub(super) fn as_named_here(name: String, shape: Vec<usize>) -> (String, Vec<usize>) {
    let values = shape.iter().product();
    if name.ends_with(".exp_probs_b") {
        (format!("{name}.bias"), vec![values])
    } else if name.ends_with(".exp_probs_b.bias") {
        (name, vec![values])
    } else if name.ends_with(".ffn_gate_inp_shexp.weight") {
        (name, vec![1, values])
    } else {
        (name, shape)
    }
}

/// How many files the model has.
fn split_count(metadata: &Metadata) -> Result<u64> {
    Ok(metadata.integer("split.count")?.unwrap_or(1).max(1))
}

/// The error of a part that is not beside the others.
fn missing(path: &Path, part: String) -> Error {
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    Error::MissingShard { directory, index: "the name of the first file", shard: part }
}

/// Compares what a part says about itself with the name under which it was found.
fn check_part(metadata: &Metadata, name: Option<&PartName>, index: u64, count: u64) -> Result<()> {
    let invalid = |problem| Err(Error::Gguf { file: metadata.file().to_owned(), problem });
    match name {
        None if count > 1 => {
            return invalid(format!(
                "`split.count` says that it is one of {count} files, whose names have to end like -00001-of-{count:05}.gguf"
            ));
        }
        Some(name) if name.count != count => {
            return invalid(format!("its name says that it is one of {} files, `split.count` says {count}", name.count));
        }
        _ => {}
    }
    match metadata.integer("split.no")? {
        Some(found) if found != index => invalid(format!("`split.no` must be {index} in this file, found {found}")),
        _ => Ok(()),
    }
}
