//! Safetensors files that are written piece by piece, where the header comes before the values are known.

use super::shards::SINGLE;
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The header is padded to a multiple of this, as the format's own library does.
const HEADER_ALIGN: usize = 8;

/// A tensor that is going to be written.
pub(crate) struct Declared {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: u64,
}

/// What a file begins with: the length of the header and the header, for tensors that follow in this order without gaps.
pub(crate) fn header(metadata: &BTreeMap<String, String>, tensors: impl IntoIterator<Item = Declared>) -> Vec<u8> {
    let mut header = Map::from_iter([("__metadata__".to_owned(), json!(metadata))]);
    let mut start = 0;
    for Declared { name, dtype, shape, bytes } in tensors {
        let end = start + bytes;
        header.insert(name, json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] }));
        start = end;
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(HEADER_ALIGN), b' ');
    [&(text.len() as u64).to_le_bytes(), text.as_slice()].concat()
}

/// What one of several files is called.
pub(crate) fn file_name(index: usize, num_files: usize) -> String {
    if num_files == 1 { SINGLE.to_owned() } else { format!("model-{:05}-of-{num_files:05}.safetensors", index + 1) }
}

/// The index of several files, from the file of each tensor.
pub(crate) fn index(total_bytes: u64, file_of: Map<String, Value>) -> String {
    json!({ "metadata": { "total_size": total_bytes }, "weight_map": file_of }).to_string()
}
