//! Safetensors files that lie.

use crate::common::{TinyCheckpoint, open, tiny_spec};
use moebius::Error;
use moebius::spec::WeightKey;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const NORM: &str = "model.norm.weight";

fn write(bytes: &[u8]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("model.safetensors"), bytes).unwrap();
    directory
}

/// What opening says about a file that it has to refuse.
fn problem_of(bytes: &[u8]) -> String {
    let directory = write(bytes);
    match open(directory.path(), &tiny_spec()) {
        Err(error @ Error::Safetensors { .. }) => {
            assert!(error.hint().is_some());
            error.to_string()
        }
        other => panic!("{other:?}"),
    }
}

/// The tiny checkpoint with a header changed by `change`.
fn problem_with_header(change: impl FnOnce(&mut Map<String, Value>)) -> String {
    let tiny = TinyCheckpoint::whole(&tiny_spec());
    let mut header = tiny.header();
    change(&mut header);
    problem_of(&tiny.file_with_header(&Value::Object(header).to_string()))
}

#[test]
fn truncated_files_are_refused_wherever_they_end() {
    let whole = TinyCheckpoint::whole(&tiny_spec()).file();
    for len in [0, 1, 7, 8, 9, 100, whole.len() / 2, whole.len() - 1] {
        problem_of(&whole[..len]);
    }
    assert!(problem_of(&whole[..7]).contains("it has 7 bytes"));
    assert!(problem_of(&whole[..100]).contains("claims a header of"));
    assert!(problem_of(&whole[..whole.len() - 1]).contains("follow the header"));
}

#[test]
fn trailing_bytes_are_refused() {
    let mut file = TinyCheckpoint::whole(&tiny_spec()).file();
    file.push(0);
    assert!(problem_of(&file).contains("follow the header"));
}

#[test]
fn header_lengths_beyond_the_file_are_refused() {
    let mut file = TinyCheckpoint::whole(&tiny_spec()).file();
    for len in [file.len() as u64, 1 << 31, 1 << 32, 1 << 63, u64::MAX - 8, u64::MAX] {
        file[..8].copy_from_slice(&len.to_le_bytes());
        assert!(problem_of(&file).contains(&format!("claims a header of {len} bytes")));
    }
}

#[test]
fn offsets_past_the_end_are_refused() {
    let problem = problem_with_header(|header| {
        let last = header["lm_head.weight"]["data_offsets"].as_array_mut().unwrap();
        last[1] = json!(last[1].as_u64().unwrap() + 4);
    });
    assert!(problem.contains("shape and dtype disagree"), "{problem}");

    let problem = problem_with_header(|header| {
        let last = &mut header["lm_head.weight"];
        let start = last["data_offsets"][0].as_u64().unwrap();
        last["shape"] = json!([1000, 8]);
        last["data_offsets"] = json!([start, start + 4 * 8000]);
    });
    assert!(problem.contains("follow the header"), "{problem}");
}

#[test]
fn lengths_of_2_to_the_63_are_refused() {
    for (shape, end) in [(json!([1u64 << 61]), 1u64 << 63), (json!([1u64 << 62]), u64::MAX), (json!([1u64 << 32, 1u64 << 32]), 0)]
    {
        let problem = problem_with_header(|header| {
            let start = header["lm_head.weight"]["data_offsets"][0].clone();
            header["lm_head.weight"] = json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] });
        });
        assert!(problem.contains("not a valid safetensors file"), "{problem}");
    }
    for number in ["-1", "1e3", "18446744073709551616", "1.5", "\"0\"", "null"] {
        let tiny = TinyCheckpoint::whole(&tiny_spec());
        let header = Value::Object(tiny.header()).to_string();
        problem_of(&tiny.file_with_header(&header.replacen("\"data_offsets\":[0,", &format!("\"data_offsets\":[{number},"), 1)));
    }
}

#[test]
fn overlaps_are_refused() {
    let problem = problem_with_header(|header| {
        let embedding = header["model.embed_tokens.weight"]["data_offsets"].clone();
        header["lm_head.weight"]["data_offsets"] = embedding;
    });
    assert!(problem.contains("does not begin where the one before it ends"), "{problem}");
}

#[test]
fn holes_are_refused() {
    let problem = problem_with_header(|header| drop(header.remove(NORM)));
    assert!(problem.contains("`lm_head.weight` does not begin where the one before it ends"), "{problem}");
}

#[test]
fn offsets_that_run_backwards_are_refused() {
    problem_with_header(|header| header[NORM]["data_offsets"].as_array_mut().unwrap().reverse());
}

#[test]
fn shapes_that_disagree_with_the_bytes_are_refused() {
    let problem = problem_with_header(|header| header[NORM]["shape"] = json!([9]));
    assert!(problem.contains("shape and dtype disagree"), "{problem}");
    problem_with_header(|header| header[NORM]["dtype"] = json!("BF16"));
    problem_with_header(|header| header[NORM]["dtype"] = json!("F4"));
    problem_with_header(|header| header[NORM]["shape"] = json!([u64::MAX, u64::MAX]));
}

#[test]
fn names_that_occur_twice_are_refused() {
    let tiny = TinyCheckpoint::whole(&tiny_spec());
    let header = Value::Object(tiny.header()).to_string();
    let problem = problem_of(&tiny.file_with_header(&header.replacen("lm_head.weight", NORM, 1)));
    assert!(problem.contains("`model.norm.weight` occurs twice"), "{problem}");
}

#[test]
fn headers_that_are_no_header_are_refused() {
    let tiny = TinyCheckpoint::whole(&tiny_spec());
    for header in ["", "[]", "null", "{", "{\"a\": 1}", "{\"a\": {\"dtype\": \"F99\"}}", "{}", &"[".repeat(100_000)] {
        problem_of(&tiny.file_with_header(header));
    }
    problem_with_header(|header| header[NORM]["dtype"] = json!("F31"));
    problem_with_header(|header| drop(header[NORM].as_object_mut().unwrap().remove("shape")));
    let mut file = tiny.file();
    file[20] = 0xff;
    problem_of(&file);
}

#[test]
fn padded_headers_and_empty_tensors_are_accepted() {
    let mut tiny = TinyCheckpoint::whole(&tiny_spec());
    tiny.tensors.insert(1, crate::common::TinyTensor::new("empty", &[0, 3], []));
    let header = Value::Object(tiny.header()).to_string() + "      ";
    let directory = write(&tiny.file_with_header(&header));
    assert_eq!(open(directory.path(), &tiny_spec()).unwrap().ignored(), ["empty"]);
}

#[test]
fn a_directory_in_place_of_the_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("model.safetensors")).unwrap();
    assert!(matches!(open(directory.path(), &tiny_spec()), Err(Error::MissingFile { .. })));
}

/// Opens `bytes`, and if that goes well reads everything.
fn open_and_read(bytes: &[u8]) {
    let spec = tiny_spec();
    let directory = write(bytes);
    if let Ok(checkpoint) = open(directory.path(), &spec) {
        for key in WeightKey::all(&spec) {
            pollster::block_on(checkpoint.read(key, 0..key.shape(&spec).0)).unwrap();
        }
    }
}

fn any_number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0u32..64, -1i64..2).prop_map(|(bits, nudge)| Value::from((1u64 << bits).wrapping_add_signed(nudge))),
        (0u64..3000).prop_map(Value::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_header_bytes_never_panic(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)) {
        let mut file = TinyCheckpoint::whole(&tiny_spec()).file();
        let header_end = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        for (position, byte) in edits {
            file[position.index(header_end)] = byte;
        }
        open_and_read(&file);
    }

    #[test]
    fn mutated_header_lengths_never_panic(len in any::<u64>(), cut in any::<prop::sample::Index>()) {
        let mut file = TinyCheckpoint::whole(&tiny_spec()).file();
        let start = len.to_le_bytes();
        file[..2].copy_from_slice(&start[..2]);
        file.truncate(cut.index(file.len()));
        open_and_read(&file);
    }

    #[test]
    fn mutated_entries_never_panic(
        tensor in any::<prop::sample::Index>(),
        shape in prop::collection::vec(any_number(), 0..4),
        offsets in prop::collection::vec(any_number(), 1..4),
        what in 0..4,
    ) {
        let tiny = TinyCheckpoint::whole(&tiny_spec());
        let mut header = tiny.header();
        let name = &tiny.tensors[tensor.index(tiny.tensors.len())].name;
        match what {
            0 => header[name]["shape"] = Value::from(shape),
            1 => header[name]["data_offsets"] = Value::from(offsets),
            2 => header[name]["data_offsets"][0] = offsets[0].clone(),
            _ => header[name]["data_offsets"][1] = offsets[0].clone(),
        }
        open_and_read(&tiny.file_with_header(&Value::Object(header).to_string()));
    }
}
