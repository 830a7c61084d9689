//! Copies of fixtures with a weight that is not what it was.

use super::golden;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A fixture whose tensor `name` has `value` at some elements.
pub fn spoiled(fixture: &str, name: &str, elements: impl Fn(usize) -> bool, value: f32) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden("fixtures").join(fixture)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let shard = shards(copy.path()).into_iter().find(|shard| spoil(shard, name, &elements, value));
    shard.unwrap_or_else(|| panic!("{fixture} has no tensor {name}"));
    copy
}

fn shards(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let is_shard = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("model") && name.ends_with(".safetensors")
    };
    entries.filter(is_shard).collect()
}

fn spoil(shard: &Path, name: &str, elements: &impl Fn(usize) -> bool, value: f32) -> bool {
    let mut bytes = std::fs::read(shard).unwrap();
    let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + header_len]).unwrap();
    let Some(tensor) = header.get(name) else { return false };
    let offset = |index: usize| tensor["data_offsets"][index].as_u64().unwrap() as usize + 8 + header_len;
    let element: Vec<u8> = match tensor["dtype"].as_str().unwrap() {
        "F32" => value.to_le_bytes().to_vec(),
        "BF16" => value.to_le_bytes()[2..].to_vec(),
        other => panic!("{name} is {other}"),
    };
    for (index, place) in bytes[offset(0)..offset(1)].chunks_exact_mut(element.len()).enumerate() {
        if elements(index) {
            place.copy_from_slice(&element);
        }
    }
    std::fs::write(shard, bytes).unwrap();
    true
}
