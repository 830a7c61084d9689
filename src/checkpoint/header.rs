//! The header of one safetensors file, believed only after it was checked against the file's length.

use super::gguf::BlockType;
use crate::platform::ByteSource;
use crate::tensor::Dtype;
use crate::{Error, Result};
use safetensors::SafeTensorError;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

/// The length of the header's length.
const PREFIX_BYTES: u64 = 8;
/// As in the safetensors crate: what a header may take at most.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Where one tensor lies.
#[derive(Debug, Clone)]
pub(super) struct StoredTensor {
    /// Index of the shard.
    pub source: usize,
    pub encoding: Encoding,
    pub shape: Vec<usize>,
    /// Within the file.
    pub bytes: Range<u64>,
}

/// How the elements of a tensor are written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Encoding {
    /// One by one.
    Plain(safetensors::Dtype),
    /// In the blocks of a GGUF file.
    Blocks(&'static BlockType),
}

impl StoredTensor {
    /// The number format, if it is one of those that weights are read from one by one.
    pub fn readable(&self) -> Option<Dtype> {
        match self.encoding {
            Encoding::Plain(safetensors::Dtype::F32) => Some(Dtype::F32),
            Encoding::Plain(safetensors::Dtype::F16) => Some(Dtype::F16),
            Encoding::Plain(safetensors::Dtype::BF16) => Some(Dtype::Bf16),
            _ => None,
        }
    }

    pub fn is(&self, dtype: safetensors::Dtype) -> bool {
        matches!(self.encoding, Encoding::Plain(found) if found == dtype)
    }

    pub fn blocks(&self) -> Option<&'static BlockType> {
        match self.encoding {
            Encoding::Plain(_) => None,
            Encoding::Blocks(blocks) => Some(blocks),
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Encoding::Plain(dtype) => dtype.fmt(f),
            Encoding::Blocks(blocks) => f.write_str(blocks.name),
        }
    }
}

/// Enough to tell other files from this format.
const START_BYTES: u64 = 64;

/// What a file in place of safetensors is, where its first bytes tell. A header's own begin with its length and `{`.
fn foreign(start: &[u8]) -> Option<&'static str> {
    let text = start.trim_ascii_start();
    if start.is_empty() {
        Some("it is empty")
    } else if text.starts_with(b"version https://git-lfs") {
        Some("it is a Git LFS pointer, not the weights: fetch them with `git lfs pull`")
    } else if text.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case(b"<html") || tag.eq_ignore_ascii_case(b"<!doc")) {
        Some("it is a web page, not the weights: a download went wrong")
    } else if start.starts_with(b"GGUF") {
        Some("it is a GGUF file under another name: rename it so that it ends in .gguf, and name it as the model")
    } else if start.starts_with(b"PK\x03\x04") || start.starts_with(b"\x80\x02") {
        Some("it is a Python pickle (pytorch_model.bin), which may run code and is not read: convert it with `save_pretrained`")
    } else {
        None
    }
}

/// What a header says.
pub(super) struct Header {
    /// In the order of their bytes.
    pub tensors: Vec<(String, StoredTensor)>,
    /// The texts of `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

/// Reads and checks the header of `source`, which is the shard numbered `index`.
pub(super) async fn read_header(source: &ByteSource, index: usize) -> Result<Header> {
    let invalid = |problem: String| Error::Safetensors { file: source.name(), problem };
    let start = source.read(0..source.len().min(START_BYTES)).await?;
    if let Some(what) = foreign(&start) {
        return Err(invalid(what.to_owned()));
    }
    if source.len() < PREFIX_BYTES {
        return Err(invalid(format!("it has {} bytes, but the length of its header alone takes {PREFIX_BYTES}", source.len())));
    }
    let prefix = source.read(0..PREFIX_BYTES).await?;
    let header_bytes = u64::from_le_bytes(prefix.as_ref().try_into().expect("a read returns the asked number of bytes"));
    let available = MAX_HEADER_BYTES.min(source.len() - PREFIX_BYTES);
    if header_bytes > available {
        return Err(invalid(format!("it claims a header of {header_bytes} bytes, at most {available} are possible")));
    }
    let data_start = PREFIX_BYTES + header_bytes;
    let header = source.read(PREFIX_BYTES..data_start).await?;
    let Entries { mut tensors, metadata } =
        serde_json::from_slice(&header).map_err(|error| invalid(format!("its header: {error}")))?;
    tensors.sort_by_key(|(_, info)| info.data_offsets);

    let checked = Metadata::new(None, tensors.clone()).map_err(|error| invalid(explain(&error)))?;
    let (claimed, found) = (checked.data_len() as u64, source.len() - data_start);
    if claimed != found {
        return Err(invalid(format!("its tensors take {claimed} bytes, but {found} follow the header")));
    }
    let located = |(name, info): (String, TensorInfo)| {
        let (start, end) = info.data_offsets;
        let bytes = data_start + start as u64..data_start + end as u64;
        (name, StoredTensor { source: index, encoding: Encoding::Plain(info.dtype), shape: info.shape, bytes })
    };
    Ok(Header { tensors: tensors.into_iter().map(located).collect(), metadata })
}

fn explain(error: &SafeTensorError) -> String {
    match error {
        SafeTensorError::InvalidOffset(name) => format!("tensor `{name}` does not begin where the one before it ends"),
        SafeTensorError::ValidationOverflow => "a tensor's shape has more elements than memory can address".to_owned(),
        SafeTensorError::TensorInvalidInfo => "a tensor's shape and dtype disagree with its number of bytes".to_owned(),
        other => other.to_string(),
    }
}

/// The tensors of a header, in its order. The crate's own type would let the last of several equal names win.
struct Entries {
    tensors: Vec<(String, TensorInfo)>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let (mut tensors, mut metadata) = (Vec::new(), BTreeMap::new());
                let mut names = BTreeSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format!("`{name}` occurs twice")));
                    }
                    if name == "__metadata__" {
                        // Whoever writes other things than texts there may.
                        if let Value::Object(entries) = map.next_value()? {
                            let text =
                                |(name, value)| Some((name, if let Value::String(text) = value { text } else { return None }));
                            metadata.extend(entries.into_iter().filter_map(text));
                        }
                    } else {
                        tensors.push((name, map.next_value()?));
                    }
                }
                Ok(Entries { tensors, metadata })
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
}
