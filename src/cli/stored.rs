//! What the headers of a checkpoint say, before any of its weights is fetched.

use moebius::checkpoint::{Checkpoint, PACKED_VERSION, PackedInfo};
use moebius::error::human_bytes;
use moebius::platform::RemoteHeader;
use moebius::spec::{ModelSpec, WeightKey};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The tensors of a checkpoint by their number format, compared with what the model needs.
pub struct Stored {
    files: usize,
    /// Bytes of each format.
    bytes: BTreeMap<String, u64>,
    /// By `moebius quantize`, under other names.
    is_packed: bool,
    /// Needed and not there.
    missing: Vec<String>,
    /// There in another shape: name, expected and found.
    wrong: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Stored {
    /// # Errors
    /// The name of the file whose header is no header, with what is wrong.
    pub fn read(headers: &[RemoteHeader], spec: &ModelSpec) -> Result<Stored, String> {
        let mut stored =
            Stored { files: headers.len(), bytes: BTreeMap::new(), is_packed: false, missing: Vec::new(), wrong: Vec::new() };
        let mut shapes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for RemoteHeader { file, header } in headers {
            let damaged = || format!("{file} does not begin with a safetensors header");
            let tensors: Map<String, Value> = serde_json::from_str(header).map_err(|_| damaged())?;
            stored.is_packed |= tensors.get("__metadata__").is_some_and(PackedInfo::is_in);
            for (name, tensor) in tensors.into_iter().filter(|(name, _)| name != "__metadata__") {
                let dtype = tensor["dtype"].as_str().ok_or_else(damaged)?;
                let shape: Vec<usize> = serde_json::from_value(tensor["shape"].clone()).map_err(|_| damaged())?;
                let offset = |index: usize| tensor["data_offsets"][index].as_u64().ok_or_else(damaged);
                *stored.bytes.entry(dtype.to_owned()).or_default() += offset(1)?.saturating_sub(offset(0)?);
                shapes.insert(name, shape);
            }
        }
        if !stored.is_packed {
            for (name, expected) in Checkpoint::required(spec) {
                match shapes.remove(&name) {
                    None => stored.missing.push(name),
                    // A leading axis of one, as some conversions have it, is as good.
                    Some(found) if found == expected || found.strip_prefix(&[1]) == Some(&expected) => {}
                    Some(found) => stored.wrong.push((name, expected, found)),
                }
            }
        }
        Ok(stored)
    }

    /// Lines for a person.
    pub fn facts(&self, human_bytes: impl Fn(u64) -> String) -> Vec<(&'static str, String)> {
        let formats: Vec<String> =
            self.bytes.iter().map(|(dtype, bytes)| format!("{} of {dtype}", human_bytes(*bytes))).collect();
        let files = if self.files == 1 { "one file".to_owned() } else { format!("{} files", self.files) };
        let by = if self.is_packed { ", by moebius quantize" } else { "" };
        let mut facts = vec![("stored", format!("{} in {files}{by}", formats.join(", ")))];
        if let Some(first) = self.missing.first() {
            facts.push(("missing", format!("{} tensors that this architecture needs, the first `{first}`", self.missing.len())));
        }
        if let Some((name, expected, found)) = self.wrong.first() {
            let problem = format!("{} tensors, the first `{name}`: expected {expected:?}, found {found:?}", self.wrong.len());
            facts.push(("wrong shape", problem));
        }
        facts
    }

    pub fn json(&self) -> Value {
        let wrong: Vec<Value> = self
            .wrong
            .iter()
            .map(|(name, expected, found)| json!({ "name": name, "expected": expected, "found": found }))
            .collect();
        json!({ "files": self.files, "bytes": self.bytes, "missing": self.missing, "wrong_shape": wrong })
    }
}

/// What a checkpoint of `moebius quantize` says about itself.
pub struct Packed {
    quant: String,
    /// Bytes of each format.
    bytes: BTreeMap<&'static str, u64>,
}

impl Packed {
    pub fn new(info: PackedInfo, spec: &ModelSpec) -> Self {
        let mut bytes = BTreeMap::new();
        for key in WeightKey::all(spec) {
            if let Some(quant) = info.formats.get(&key.packed_name()) {
                let (rows, cols) = key.shape(spec);
                *bytes.entry(quant.name).or_default() += (rows * quant.row_bytes(cols)) as u64;
            }
        }
        Packed { quant: info.quant, bytes }
    }

    /// A line for a person.
    pub fn fact(&self) -> (&'static str, String) {
        let formats: Vec<String> = self.bytes.iter().map(|(name, bytes)| format!("{} of {name}", human_bytes(*bytes))).collect();
        ("stored", format!("by moebius quantize, layout {PACKED_VERSION}, as {}: {}", self.quant, formats.join(", ")))
    }

    pub fn json(&self) -> Value {
        json!({ "version": PACKED_VERSION, "quant": self.quant, "bytes": self.bytes })
    }
}
