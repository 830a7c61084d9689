//! The files of a checkpoint and the tensors in them.

use super::header::{Header, StoredTensor, read_header};
use crate::platform::{ByteSource, is_file, read_model_text};
use crate::{Error, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Index;
use std::path::{Component, Path};

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// All shards with one table of their tensors.
#[derive(Debug)]
pub(super) struct Shards {
    sources: Vec<ByteSource>,
    /// Of each source.
    metadata: Vec<BTreeMap<String, String>>,
    tensors: BTreeMap<String, StoredTensor>,
}

/// What `model.safetensors.index.json` says: the file of each tensor.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    pub async fn open(directory: &Path) -> Result<Self> {
        let mut shards = Shards { sources: Vec::new(), metadata: Vec::new(), tensors: BTreeMap::new() };
        if is_file(&directory.join(SINGLE)).await {
            shards.add(directory, SINGLE, &BTreeMap::new()).await?;
        } else if is_file(&directory.join(INDEX)).await {
            let text = read_model_text(directory, INDEX).await?;
            let file = directory.join(INDEX).display().to_string();
            let ShardIndex { weight_map } =
                serde_json::from_str(&text).map_err(|error| Error::Json { file, message: error.to_string() })?;
            for shard in weight_map.values().collect::<BTreeSet<_>>() {
                check_shard_name(directory, shard)?;
                if !is_file(&directory.join(shard)).await {
                    return Err(Error::MissingShard { directory: directory.to_owned(), index: INDEX, shard: shard.clone() });
                }
                shards.add(directory, shard, &weight_map).await?;
            }
        } else {
            return Err(Error::MissingFile { directory: directory.to_owned(), file: SINGLE });
        }
        Ok(shards)
    }

    pub fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub fn source(&self, index: usize) -> &ByteSource {
        &self.sources[index]
    }

    /// The metadata of each file, with its name.
    pub fn metadata(&self) -> impl Iterator<Item = (String, &BTreeMap<String, String>)> {
        self.sources.iter().map(ByteSource::name).zip(&self.metadata)
    }

    /// Adds the tensors of `shard`, except those that `weight_map` finds in another.
    async fn add(&mut self, directory: &Path, shard: &str, weight_map: &BTreeMap<String, String>) -> Result<()> {
        let source = ByteSource::open(&directory.join(shard)).await?;
        let Header { tensors, metadata } = read_header(&source, self.sources.len()).await?;
        for (name, tensor) in tensors {
            if weight_map.get(&name).is_some_and(|other| other != shard) {
                continue;
            }
            if let Some(other) = self.tensors.get(&name) {
                let other = self.sources[other.source].name();
                return Err(Error::Safetensors { file: source.name(), problem: format!("tensor `{name}` is also in {other}") });
            }
            self.tensors.insert(name, tensor);
        }
        self.sources.push(source);
        self.metadata.push(metadata);
        Ok(())
    }
}

impl Index<&str> for Shards {
    type Output = StoredTensor;

    fn index(&self, name: &str) -> &StoredTensor {
        &self.tensors[name]
    }
}

/// An index may only name files beside it.
fn check_shard_name(directory: &Path, shard: &str) -> Result<()> {
    let mut components = Path::new(shard).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(name)), None) if name == shard && !shard.contains('\\') => Ok(()),
        _ => Err(Error::Json {
            file: directory.join(INDEX).display().to_string(),
            message: format!("`weight_map` must name files beside it, found `{shard}`"),
        }),
    }
}
