//! What is wrong with a checkpoint or a config of any family is named.

use crate::common::{FIXTURES, golden, open, spec_of};
use moebius::Error;
use moebius::spec::ModelSpec;
use moebius::spec::WeightKey;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tempfile::TempDir;

/// The tensors of a fixture, without their values: opening reads headers only.
fn headers(directory: &Path) -> BTreeMap<String, Value> {
    let mut tensors = BTreeMap::new();
    for path in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.starts_with("model") || !name.ends_with(".safetensors") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
        tensors.extend(header.into_iter().filter(|(name, _)| name != "__metadata__"));
    }
    tensors
}

/// A checkpoint of such tensors, all zero.
fn write(tensors: &BTreeMap<String, Value>) -> TempDir {
    let mut start = 0;
    let mut header = Map::new();
    for (name, tensor) in tensors {
        let elements: u64 = tensor["shape"].as_array().unwrap().iter().map(|len| len.as_u64().unwrap()).product();
        let size = match tensor["dtype"].as_str().unwrap() {
            "U8" => 1,
            "BF16" => 2,
            "F32" => 4,
            other => panic!("{other}"),
        };
        let end = start + elements * size;
        header.insert(name.clone(), json!({ "dtype": tensor["dtype"], "shape": tensor["shape"], "data_offsets": [start, end] }));
        start = end;
    }
    let header = Value::Object(header).to_string();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    std::fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(8 + header.len() as u64 + start).unwrap();
    directory
}

/// One tensor of each kind: of all names that differ in numbers only, the last.
fn one_of_each_kind(tensors: &BTreeMap<String, Value>) -> BTreeSet<&String> {
    let kind = |name: &str| name.split('.').filter(|part| part.parse::<usize>().is_err()).collect::<Vec<_>>().join(".");
    tensors.keys().map(|name| (kind(name), name)).collect::<BTreeMap<_, _>>().into_values().collect()
}

/// Calls `check` for one needed tensor of each kind of each family.
fn for_each_kind(check: impl Fn(&ModelSpec, &BTreeMap<String, Value>, &str)) {
    // `float8.rs` does the same for matrices in eight bits, which come with their factors.
    for name in FIXTURES.iter().filter(|name| **name != "deepseek_v3_fp8") {
        let directory = golden("fixtures").join(name);
        let spec = spec_of(&directory);
        let mut tensors = headers(&directory);
        let whole = write(&tensors);
        for ignored in open(whole.path(), &spec).unwrap().ignored() {
            tensors.remove(ignored);
        }
        let kinds = one_of_each_kind(&tensors);
        assert!(kinds.len() >= 11, "{name}: {kinds:?}");
        kinds.into_iter().for_each(|tensor| check(&spec, &tensors, tensor));
    }
}

#[test]
fn a_missing_tensor_of_any_family_is_named() {
    for_each_kind(|spec, tensors, name| {
        let mut tensors = tensors.clone();
        tensors.remove(name);
        match open(write(&tensors).path(), spec) {
            Err(Error::MissingTensors { missing, expected }) => {
                assert_eq!((missing, expected), (vec![name.to_owned()], tensors.len() + 1))
            }
            other => panic!("{} without {name}: {other:?}", spec.family),
        }
    });
}

#[test]
fn a_wrong_shape_in_any_family_is_named_with_the_right_one() {
    for_each_kind(|spec, tensors, name| {
        let right: Vec<usize> = serde_json::from_value(tensors[name]["shape"].clone()).unwrap();
        for axis in 0..right.len() {
            let mut wrong = right.clone();
            wrong[axis] += 1;
            let mut tensors = tensors.clone();
            tensors.get_mut(name).unwrap()["shape"] = json!(wrong);
            match open(write(&tensors).path(), spec) {
                Err(Error::TensorShape { name: found_name, expected, found }) => {
                    assert_eq!((found_name.as_str(), &found), (name, &wrong));
                    // An axis of length one in front may be absent.
                    assert!(right.ends_with(&expected), "{} {name}: {expected:?} {right:?}", spec.family);
                }
                other => panic!("{} {name} {wrong:?}: {other:?}", spec.family),
            }
        }
    });
}

#[test]
fn a_number_format_that_is_not_read_is_named_in_any_family() {
    for_each_kind(|spec, tensors, name| {
        let mut tensors = tensors.clone();
        let tensor = tensors.get_mut(name).unwrap();
        let is_bytes = tensor["dtype"] == "U8";
        tensor["dtype"] = json!(if is_bytes { "BF16" } else { "U8" });
        let error = open(write(&tensors).path(), spec).unwrap_err().to_string();
        let expected = if is_bytes { "U8, found BF16" } else { "F32, F16, BF16, found U8" };
        assert_eq!(error, format!("tensor `{name}`: expected one of {expected}"), "{}", spec.family);
    });
}

/// The error of a fixture's config with one value changed; in the text model's part where there is a wrapper.
fn refused(name: &str, key: &str, value: Value) -> String {
    let text = std::fs::read_to_string(golden("fixtures").join(name).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let object = if config["text_config"].is_object() { &mut config["text_config"] } else { &mut config };
    match key.split_once('.') {
        Some((section, key)) => object[section][key] = value,
        None => object[key] = value,
    }
    match ModelSpec::parse(&config.to_string(), "config.json") {
        Err(error @ Error::Config { .. }) => error.to_string(),
        other => panic!("{name} {key}: {other:?}"),
    }
}

/// What every family has to refuse, naming the key and what it may be: an unknown kind of rotary embedding, an unknown way to score
/// experts, an unknown activation, and more experts per token than there are.
const SUBJECTS: [&str; 4] = ["rope", "activation", "score", "choice"];
/// How many of them concern dense models too.
const SUBJECTS_OF_DENSE: usize = 2;

/// The `refuses.json` of a fixture: values that its config cannot have, with what the error has to say.
#[test]
fn what_a_family_cannot_do_is_refused_by_key_with_what_it_may_be() {
    for name in FIXTURES.iter() {
        let text = std::fs::read_to_string(golden("fixtures").join(name).join("refuses.json")).unwrap();
        let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
        let is_dense = spec_of(&golden("fixtures").join(name)).moe_layers().next().is_none();
        for subject in &SUBJECTS[..if is_dense { SUBJECTS_OF_DENSE } else { SUBJECTS.len() }] {
            assert!(cases.iter().any(|case| case["about"] == *subject), "{name}/refuses.json has no case about {subject}");
        }
        for case in cases {
            let (key, expected) = (case["key"].as_str().unwrap(), case["error"].as_str().unwrap());
            let error = refused(name, key, case["value"].clone());
            // What an object describes is named by the key inside it.
            let inner = case["value"].as_object().and_then(|object| object.keys().next());
            let inner = inner.is_some_and(|inner| error.contains(&format!("{key}.{inner}` must be ")));
            assert!(inner || error.contains(&format!("{key}` must be ")), "{name} {key}: {error}");
            assert!(error.contains(expected), "{name}: {error}");
        }
    }
}

#[test]
fn every_range_of_rows_of_every_storage_equals_that_part_of_the_whole() {
    for name in FIXTURES.iter() {
        let directory = golden("fixtures").join(name);
        let spec = spec_of(&directory);
        let checkpoint = open(&directory, &spec).unwrap();
        let read = |key, rows| pollster::block_on(checkpoint.read(key, rows)).unwrap().values;
        for key in WeightKey::all(&spec) {
            let (rows, cols) = key.shape(&spec);
            let whole = read(key, 0..rows);
            assert_eq!(whole.len(), rows * cols, "{name} {key:?}");
            for (start, end) in [(0, 1), (rows - 1, rows), (rows / 3, rows / 3), (rows / 3, rows - rows / 3), (rows / 2, rows)] {
                assert_eq!(read(key, start..end), whole[start * cols..end * cols], "{name} {key:?} {start}..{end}");
            }
        }
    }
}
