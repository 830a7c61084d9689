//! The files of a checkpoint and the tensors in them.

use super::gguf::{self, Gguf, GgufTensor};
use super::header::{Encoding, Header, StoredTensor, read_header};
use crate::platform::{ByteSource, file_names, is_file, read_model_text};
use crate::spec::parse_json;
use crate::tensor::Dtype;
use crate::{Error, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Index;
use std::path::{Component, Path};
use std::sync::Arc;

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// All shards with one table of their tensors.
#[derive(Debug)]
pub(super) struct Shards {
    sources: Vec<Arc<ByteSource>>,
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
        if let Some(file) = gguf::file_of(directory).await? {
            return Ok(Self::of_gguf(&Gguf::open(&file).await?));
        }
        let mut shards = Shards { sources: Vec::new(), metadata: Vec::new(), tensors: BTreeMap::new() };
        if is_file(&directory.join(SINGLE)).await {
            shards.add(directory, SINGLE, &BTreeMap::new()).await?;
        } else if is_file(&directory.join(INDEX)).await {
            let text = read_model_text(directory, INDEX).await?;
            let file = directory.join(INDEX).display().to_string();
            let ShardIndex { weight_map } = serde_json::from_value(parse_json(&text, &file)?)
                .map_err(|error| Error::Json { file, message: error.to_string() })?;
            for shard in weight_map.values().collect::<BTreeSet<_>>() {
                check_shard_name(directory, shard)?;
                if !is_file(&directory.join(shard)).await {
                    return Err(Error::MissingShard { directory: directory.to_owned(), index: INDEX, shard: shard.clone() });
                }
                shards.add(directory, shard, &weight_map).await?;
            }
        } else {
            return Err(without(directory, SINGLE));
        }
        Ok(shards)
    }

    pub fn of_gguf(gguf: &Gguf) -> Self {
        let stored = |tensor: &GgufTensor| {
            let (name, shape) = gguf::as_named_here(tensor.name.clone(), tensor.shape.clone());
            let plain = tensor.block.dtype().map(|dtype| match dtype {
                Dtype::F32 => safetensors::Dtype::F32,
                Dtype::F16 => safetensors::Dtype::F16,
                Dtype::Bf16 => safetensors::Dtype::BF16,
            });
            let encoding = plain.map_or(Encoding::Blocks(tensor.block), Encoding::Plain);
            (name, StoredTensor { source: tensor.source, encoding, shape, bytes: tensor.bytes.clone() })
        };
        let metadata = gguf.sources().iter().map(|_| BTreeMap::new()).collect();
        Shards { tensors: gguf.tensors().iter().map(stored).collect(), metadata, sources: gguf.sources().to_vec() }
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
        self.sources.iter().map(|source| source.name()).zip(&self.metadata)
    }

    /// Adds the tensors of `shard`. What its own header lists counts; where another shard has the same tensor, `weight_map` decides.
    async fn add(&mut self, directory: &Path, shard: &str, weight_map: &BTreeMap<String, String>) -> Result<()> {
        let source = ByteSource::open(&directory.join(shard)).await?;
        let Header { tensors, metadata } = read_header(&source, self.sources.len()).await?;
        for (name, tensor) in tensors {
            if let Some(other) = self.tensors.get(&name) {
                let other = self.sources[other.source].name();
                match weight_map.get(&name) {
                    Some(named) if *named == shard => {}
                    Some(named) if Path::new(&other).ends_with(named) => continue,
                    _ => {
                        let problem = format!("tensor `{name}` is also in {other}");
                        return Err(Error::Safetensors { file: source.name(), problem });
                    }
                }
            }
            self.tensors.insert(name, tensor);
        }
        self.sources.push(Arc::new(source));
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

/// Files of other layouts, by how their names end, and what to do with them.
const FOREIGN: [(&str, &str); 8] = [
    (".gguf", "a model for llama.cpp (GGUF) beside a config: name the file itself as the model"),
    ("params.json", "Mistral's own layout, which is not read; look for the model in the layout of transformers"),
    ("consolidated.safetensors", "Mistral's own layout, which is not read; look for the model in the layout of transformers"),
    (
        "consolidated.00.pth",
        "the layout of the model's makers, which is not read; look for the model in the layout of transformers",
    ),
    ("pytorch_model.bin", "weights as Python pickles, which may run code and are not read; convert them with `save_pretrained`"),
    (
        "pytorch_model.bin.index.json",
        "weights as Python pickles, which may run code and are not read; convert them with `save_pretrained`",
    ),
    ("adapter_model.safetensors", "an adapter (LoRA), which is not read; merge it into its base model first"),
    (
        ".safetensors",
        "safetensors under another name; an index, or the name `model.safetensors`, has to say that it is the model",
    ),
];

/// The error of a directory without `missing`: what it has instead, where that is the layout of another program.
pub(crate) fn without(directory: &Path, missing: &'static str) -> Error {
    let names = file_names(directory);
    let foreign = FOREIGN.iter().find_map(|&(end, what)| Some((names.iter().find(|name| name.ends_with(end))?, what)));
    match foreign {
        Some((found, what)) => Error::ForeignLayout { directory: directory.to_owned(), missing, found: found.clone(), what },
        None => Error::MissingFile { directory: directory.to_owned(), file: missing },
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
