//! Checkpoints in the layout of device memory, as `moebius quantize` writes them: what is read is what is uploaded.
//!
//! # Layout
//! The directory is that of any model: `config.json`, the tokenizer's files, `model.safetensors` or shards with their index. What differs is in
//! the safetensors files:
//!
//! - `__metadata__` holds `format` = `moebius-packed`, `version` = [`VERSION`], `quant` = what `--quant` was, in full, and `formats` = a JSON
//!   object with the format of every tensor of the file, a name of [`QUANTS`].
//! - Every [`WeightKey`] is one tensor of that name ([`WeightKey::packed_name`]), whatever the layout and the names of the original: gate and up
//!   rows take turns, query, key and value are one matrix, vectors are rows. There is nothing else.
//! - A tensor is the rows of a [packed matrix](crate::quant), one after the other: of f32, f16 and bf16 in that dtype with shape
//!   `[rows, padded(cols)]`, of every other format as `U8` with shape `[rows, row_bytes]`, where a row is its plane of values, in formats of five
//!   and six bits that of the bits beyond four, and then its plane of scales, each padded to 16 bytes.

use super::shards::Shards;
use crate::quant::{QUANTS, Quant, QuantFormat, padded};
use crate::spec::{ModelSpec, WeightKey};
use crate::{Error, Result};
use safetensors::Dtype;
use std::collections::BTreeMap;

/// The version of the layout that this program writes, and the only one that it reads.
pub const VERSION: u32 = 1;
/// What `format` says in the metadata.
const FORMAT: &str = "moebius-packed";

/// What the metadata of such a checkpoint say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedInfo {
    /// What `--quant` was.
    pub quant: String,
    /// Names and formats of all tensors.
    pub formats: BTreeMap<String, Quant>,
}

impl PackedInfo {
    /// Whether the `__metadata__` of a header are of a file that `moebius quantize` wrote.
    pub fn is_in(metadata: &serde_json::Value) -> bool {
        metadata["format"] == FORMAT
    }

    /// From the metadata of all shards; `None` for an ordinary checkpoint.
    pub(super) fn read(shards: &Shards) -> Result<Option<Self>> {
        let mut info: Option<PackedInfo> = None;
        for (file, metadata) in shards.metadata() {
            let this = Self::read_one(&file, metadata)?;
            match (&mut info, this) {
                (None, this) => info = this,
                (Some(info), Some(this)) if info.quant == this.quant => info.formats.extend(this.formats),
                (Some(_), _) => return Err(invalid(&file, "its metadata are not those of the other shards")),
            }
        }
        let Some(info) = info else { return Ok(None) };
        match shards.names().find(|name| !info.formats.contains_key(*name)) {
            Some(name) => Err(invalid(&shards.source(0).name(), &format!("the metadata give no format of `{name}`"))),
            None => Ok(Some(info)),
        }
    }

    fn read_one(file: &str, metadata: &BTreeMap<String, String>) -> Result<Option<Self>> {
        if metadata.get("format").is_none_or(|format| format != FORMAT) {
            return Ok(None);
        }
        let field = |name: &str| metadata.get(name).ok_or_else(|| invalid(file, &format!("the metadata have no `{name}`")));
        let version = field("version")?;
        if version.parse() != Ok(VERSION) {
            return Err(Error::PackedVersion { file: file.to_owned(), found: version.clone(), known: VERSION });
        }
        let names: BTreeMap<String, String> = serde_json::from_str(field("formats")?)
            .map_err(|error| invalid(file, &format!("`formats` in the metadata: {error}")))?;
        let mut formats = BTreeMap::new();
        for (tensor, name) in names {
            let quant = QuantFormat::find(&name).ok_or_else(|| {
                let known: Vec<&str> = QUANTS.iter().map(|quant| quant.name).collect();
                invalid(file, &format!("tensor `{tensor}` has the format `{name}`; known: {}", known.join(", ")))
            })?;
            formats.insert(tensor, quant);
        }
        Ok(Some(PackedInfo { quant: field("quant")?.clone(), formats }))
    }

    /// The format of a weight, once [`check`](Self::check) has found it.
    pub(super) fn quant(&self, key: WeightKey) -> Quant {
        self.formats[&key.packed_name()]
    }

    /// Whether every weight of `spec` is there in its shape. Returns the names of tensors that it does not need.
    pub(super) fn check(&self, shards: &Shards, spec: &ModelSpec) -> Result<Vec<String>> {
        let keys: BTreeMap<String, WeightKey> = WeightKey::all(spec).map(|key| (key.packed_name(), key)).collect();
        let missing: Vec<String> = keys.keys().filter(|name| shards.get(name).is_none()).cloned().collect();
        if !missing.is_empty() {
            return Err(Error::MissingTensors { missing, expected: keys.len() });
        }
        for (name, key) in &keys {
            let stored = &shards[name];
            let (rows, cols) = key.shape(spec);
            let (dtype, shape) = packed_shape(self.formats[name], rows, cols);
            if stored.shape != shape {
                return Err(Error::TensorShape { name: name.clone(), expected: shape, found: stored.shape.clone() });
            }
            if !stored.is(dtype) {
                let found = stored.encoding.to_string();
                return Err(Error::TensorDtype { name: name.clone(), expected: "the dtype of its format", found });
            }
        }
        Ok(shards.names().filter(|name| !keys.contains_key(*name)).map(str::to_owned).collect())
    }
}

/// The metadata of a file with tensors of these formats.
pub(crate) fn metadata(quant: &str, formats: &BTreeMap<String, Quant>) -> BTreeMap<String, String> {
    let names: serde_json::Map<String, serde_json::Value> =
        formats.iter().map(|(tensor, quant)| (tensor.clone(), quant.name.into())).collect();
    let entries = [
        ("format", FORMAT.to_owned()),
        ("version", VERSION.to_string()),
        ("quant", quant.to_owned()),
        ("formats", serde_json::Value::Object(names).to_string()),
    ];
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// How a packed matrix is declared in the header.
pub(crate) fn packed_shape(quant: Quant, rows: usize, cols: usize) -> (Dtype, Vec<usize>) {
    match quant.name {
        "f32" => (Dtype::F32, vec![rows, padded(cols)]),
        "f16" => (Dtype::F16, vec![rows, padded(cols)]),
        "bf16" => (Dtype::BF16, vec![rows, padded(cols)]),
        _ => (Dtype::U8, vec![rows, quant.row_bytes(cols)]),
    }
}

fn invalid(file: &str, problem: &str) -> Error {
    Error::Safetensors { file: file.to_owned(), problem: problem.to_owned() }
}
