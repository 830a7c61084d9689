//! GGUF files as containers: good ones, damaged ones, and models in several of them.

use crate::common::{GgufFile, GgufValue, golden, largest_allocation};
use moebius::checkpoint::gguf::{Gguf, Number};
use moebius::{Error, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What a reader may allocate at once besides what a file has.
const SPARE_BYTES: usize = 1 << 20;

fn open(path: &Path) -> Result<Gguf> {
    pollster::block_on(Gguf::open(path))
}

/// A file in a directory of its own.
fn written(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (directory, path)
}

fn open_bytes(bytes: &[u8]) -> Result<Gguf> {
    let (_directory, path) = written("model.gguf", bytes);
    open(&path)
}

/// What opening says about a file that it has to refuse.
fn problem_of(bytes: &[u8]) -> String {
    let error = open_bytes(bytes).unwrap_err();
    assert!(matches!(error, Error::Gguf { .. }), "{error}");
    assert!(error.hint().is_some() && error.page_hint().is_some());
    error.to_string()
}

/// Every file of `attacks`, and what opening it says; nothing for those that are good containers, whatever the model in them is.
const ATTACKS: [(&str, &str); 58] = [
    ("good", ""),
    ("version_2", ""),
    ("data_long", ""),
    ("gap", ""),
    ("name_path", ""),
    ("empty", "it is empty"),
    ("magic_only", "the version takes 4 bytes, but 0 are left for the header"),
    ("cut_in_counts", "a count takes 8 bytes, but 4 are left"),
    ("cut_in_kv", "it claims 2 tensors, at most 0 are possible"),
    ("cut_in_tensors", "tensor `a.weight`: its shape takes 8 bytes, but 1 are left"),
    ("magic", "it does not begin with the word GGUF"),
    ("big_endian", "it is a big-endian file"),
    ("version_1", "it is of version 1 of the format"),
    ("version_99", "it is of version 99 of the format"),
    ("tensors_2_63", "it claims 9223372036854775808 tensors"),
    ("kv_2_40", "it claims 1099511627776 entries of metadata"),
    ("kv_one_more", "tensor 0: its name takes 562949953421312 bytes"),
    ("key_len_2_63", "entry 0 of the metadata: its key takes 9223372036854775808 bytes"),
    ("key_not_utf8", "entry 3 of the metadata: its key is not UTF-8"),
    ("key_twice", "the key `general.architecture` occurs twice"),
    ("key_empty", "entry 3 of the metadata: its key is empty"),
    ("string_len", "`x`: the text takes 1125899906842624 bytes"),
    ("type_13", "`x`: a value of type 13"),
    ("bool_7", "`x`: a bool is 0 or 1, found 7"),
    ("array_2_60", "`x`: an array of 1152921504606846976 elements"),
    ("array_strings_2_40", "`x`: an array of 1099511627776 elements"),
    ("array_nested", "`x`: an array of arrays"),
    ("array_type", "`x`: a value of type 99"),
    ("arch_missing", "`general.architecture` is missing"),
    ("arch_number", "`general.architecture` must be a text, found 1"),
    ("block_count_text", ""),
    ("block_count_huge", ""),
    ("alignment_0", "`general.alignment` must be a power of two in 32 bits, found 0"),
    ("alignment_3", "`general.alignment` must be a power of two in 32 bits, found 3"),
    (
        "alignment_huge",
        "tensor `a.weight`: its 256 bytes at offset 0 of the data, which begins at 2147483648, end beyond the file",
    ),
    ("dims_0", "tensor `a`: it has 0 dimensions"),
    ("dims_5", "tensor `a`: it has 5 dimensions"),
    ("dims_2_32", "tensor `a`: it has 4294967295 dimensions"),
    ("dim_zero", "tensor `a`: its shape [32, 0] has no elements"),
    ("dims_overflow", "tensor `a`: its shape [8589934592, 8589934592] has more elements than a file can hold"),
    ("bytes_overflow", "tensor `a`: its shape [4611686018427387904] has more elements than a file can hold"),
    ("row_not_blocks", "tensor `a`: its rows of 100 are no whole number of blocks of 256, as Q4_K has them"),
    ("type_gone", "tensor `a`: expected one of F32"),
    ("type_999", "tensor `a`: there is no type 999"),
    ("type_q8_1", "found Q8_1, which is for activations only"),
    ("offset_odd", "tensor `a`: its offset 4 is no multiple of 32"),
    ("offset_beyond", "tensor `a`: its 32 bytes at offset 1099511627776 of the data"),
    ("offset_wraps", "tensor `a`: its 32 bytes at offset 18446744073709551584 of the data"),
    ("overlap", "tensors `a` and `b` share bytes"),
    (
        "data_short",
        "tensor `a.weight`: its 256 bytes at offset 0 of the data, which begins at 224, end beyond the file of 324 bytes",
    ),
    ("name_twice", "tensor `a` occurs twice"),
    ("name_long", "its name has 300 bytes, at most 63 are possible"),
    ("split_self", "`split.count` says that it is one of 65535 files"),
    ("split_no_beyond", "`split.count` says that it is one of 3 files"),
    ("template_loop", ""),
    ("tokens_scores", ""),
    ("merge_unknown", ""),
    ("bos_beyond", ""),
];

#[test]
fn damaged_files_are_refused_by_the_name_of_what_is_wrong() {
    let mut wrong = Vec::new();
    for (name, expected) in ATTACKS {
        let found = open(&golden(&format!("gguf/attacks/{name}.gguf"))).map_or_else(|error| error.to_string(), |_| String::new());
        if !(found.contains(expected) && found.is_empty() == expected.is_empty()) {
            wrong.push(format!("{name}: expected {expected:?}, found {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_stored_attack_is_tried() {
    let manifest = std::fs::read_to_string(golden("gguf/attacks/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let mut stored: Vec<&str> = manifest.as_object().unwrap().keys().map(String::as_str).collect();
    let mut tried = ATTACKS.map(|(name, _)| name);
    stored.sort_unstable();
    tried.sort_unstable();
    assert_eq!(stored, tried);
}

#[test]
fn nothing_is_allocated_for_what_a_file_only_claims() {
    for (name, _) in ATTACKS {
        let path = golden(&format!("gguf/attacks/{name}.gguf"));
        let (_, bytes) = largest_allocation(|| open(&path).map(drop));
        let len = std::fs::metadata(&path).unwrap().len() as usize;
        assert!(bytes <= len + SPARE_BYTES, "{name}: {bytes} bytes at once for a file of {len}");
    }
}

#[test]
fn long_headers_are_read_on_and_take_no_more_memory_than_their_file() {
    let words: Vec<String> = (0..200_000).map(|index| format!("word number {index}")).collect();
    let empty = vec![""; 300_000];
    let file = GgufFile::llama().with("words", GgufValue::texts(&words)).with("empty", GgufValue::texts(&empty));
    let bytes = file.f32_tensor("a", 8).bytes();
    assert!(bytes.len() > 4 << 20, "several reads are needed for {} bytes", bytes.len());
    let (_directory, path) = written("long.gguf", &bytes);
    let (gguf, allocated) = largest_allocation(|| open(&path).unwrap());
    assert!(allocated <= bytes.len() + SPARE_BYTES, "{allocated} bytes at once for a file of {}", bytes.len());
    let found = gguf.metadata().texts("words").unwrap().unwrap();
    assert!(found.iter().eq(words.iter().map(String::as_str)));
    assert_eq!((found.get(3), found.get(200_000)), (Some("word number 3"), None));
    let empty = gguf.metadata().texts("empty").unwrap().unwrap();
    assert_eq!((empty.len(), empty.get(299_999)), (300_000, Some("")));
    assert_eq!(gguf.tensors()[0].shape, [8]);
}

#[test]
fn headers_beyond_the_limit_are_refused_before_they_are_read() {
    let mut bytes = GgufFile::llama().header();
    // One more entry, an array of 200 MB, in a file that would have room for it.
    bytes[16..24].copy_from_slice(&2u64.to_le_bytes());
    bytes.extend(
        [&1u64.to_le_bytes()[..], b"x", &9u32.to_le_bytes(), &0u32.to_le_bytes(), &200_000_000u64.to_le_bytes()].concat(),
    );
    let (_directory, path) = written("sparse.gguf", &bytes);
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 30).unwrap();
    let (error, allocated) = largest_allocation(|| open(&path).unwrap_err());
    assert!(error.to_string().contains("`x`: an array of 200000000 elements, but 99999"), "{error}");
    assert!(allocated <= 2 * SPARE_BYTES, "{allocated}");
}

#[test]
fn tensors_are_placed_and_shaped_as_the_file_says() {
    let blocks = vec![1; 2 * 3 * 144];
    let file = GgufFile::llama().f32_tensor("norm", 5).tensor("experts", &[256, 3, 2], 12, blocks).bytes();
    let gguf = open_bytes(&file).unwrap();
    let [norm, experts] = gguf.tensors() else { panic!("{:?}", gguf.tensors()) };
    assert_eq!((norm.name.as_str(), norm.block.name, norm.shape.as_slice(), norm.source), ("norm", "F32", &[5][..], 0));
    assert_eq!((experts.name.as_str(), experts.block.name, experts.shape.as_slice()), ("experts", "Q4_K", &[2, 3, 256][..]));
    assert_eq!(norm.bytes.end - norm.bytes.start, 20);
    assert_eq!(experts.bytes, norm.bytes.start + 32..file.len() as u64);
    let stored = pollster::block_on(gguf.sources()[0].read(norm.bytes.clone())).unwrap();
    assert_eq!(stored[8..12], 2f32.to_le_bytes());
}

#[test]
fn types_that_no_weights_are_in_are_refused_by_name() {
    for (id, name) in [(4, "Q4_2"), (9, "Q8_1"), (36, "IQ4_NL_4_4"), (26, "I32")] {
        let error = open_bytes(&GgufFile::llama().tensor("w", &[256], id, vec![0; 256]).bytes()).unwrap_err();
        assert!(matches!(error, Error::TensorDtype { .. }));
        assert!(error.to_string().contains("tensor `w`") && error.to_string().contains(&format!("found {name}, ")), "{error}");
    }
}

#[test]
fn what_is_no_gguf_is_named() {
    for (bytes, expected) in [
        (&b"<!doctype html>"[..], "it does not begin with the word GGUF"),
        (b"GGUF", "the version takes 4 bytes, but 0 are left"),
        (b"GGUF\0\0\0\0", "it is of version 0"),
    ] {
        assert!(problem_of(bytes).contains(expected), "{}", problem_of(bytes));
    }
}

/// One entry of every type of value.
fn with_every_value() -> GgufFile {
    GgufFile::llama()
        .with("u8", GgufValue::u8(200))
        .with("i8", GgufValue::i8(-3))
        .with("u16", GgufValue::u16(60_000))
        .with("i16", GgufValue::i16(300))
        .with("u32", GgufValue::u32(u32::MAX))
        .with("i32", GgufValue::i32(-5))
        .with("u64", GgufValue::u64(u64::MAX))
        .with("i64", GgufValue::i64(i64::MIN))
        .with("f32", GgufValue::f32(0.1))
        .with("f64", GgufValue::f64(1e300))
        .with("infinite", GgufValue::f32(f32::INFINITY))
        .with("true", GgufValue::bool(true))
        .with("text", GgufValue::text("größer"))
        .with("texts", GgufValue::texts(&["a", "", "ö"]))
        .with("bools", GgufValue::array(&[GgufValue::bool(true), GgufValue::bool(false)]))
        .with("i16s", GgufValue::array(&[GgufValue::i16(7), GgufValue::i16(9)]))
        .with("negative", GgufValue::array(&[GgufValue::i32(7), GgufValue::i32(-1)]))
        .with("f32s", GgufValue::array(&[GgufValue::f32(0.5), GgufValue::f32(-2.0)]))
        .with("none", GgufValue::array(&[]))
}

#[test]
fn integers_are_read_from_every_type_that_holds_one() {
    let gguf = open_bytes(&with_every_value().bytes()).unwrap();
    let metadata = gguf.metadata();
    for (key, expected) in
        [("u8", 200), ("u16", 60_000), ("i16", 300), ("u32", u64::from(u32::MAX)), ("u64", u64::MAX), ("true", 1)]
    {
        assert_eq!(metadata.integer(key).unwrap(), Some(expected), "{key}");
    }
    assert_eq!(metadata.integer("nothing").unwrap(), None);
    assert_eq!(metadata.flag("true").unwrap(), Some(true));
    assert_eq!(metadata.float("f32").unwrap(), Some(f64::from(0.1f32)));
    assert_eq!(metadata.float("f64").unwrap(), Some(1e300));
    assert_eq!(metadata.text("text").unwrap(), Some("größer"));
    assert!(metadata.texts("texts").unwrap().unwrap().iter().eq(["a", "", "ö"]));
    assert_eq!(metadata.integers("bools").unwrap(), Some(vec![1, 0]));
    assert_eq!(metadata.integers("none").unwrap(), Some(vec![]));
    assert_eq!(metadata.floats("f32s").unwrap(), Some(vec![0.5, -2.0]));
    assert_eq!(metadata.per_layer("i16s", 2).unwrap(), Some(vec![7, 9]));
    assert_eq!(metadata.per_layer("i16", 3).unwrap(), Some(vec![300; 3]));
    assert_eq!(metadata.per_layer_float("f32", 2).unwrap(), Some(vec![f64::from(0.1f32); 2]));
    let signed = metadata.get("i64").unwrap();
    assert!(matches!(signed, moebius::checkpoint::gguf::MetadataValue::Number(Number::Signed(i64::MIN))), "{signed:?}");
}

#[test]
fn values_of_another_kind_are_errors_that_name_the_key() {
    let gguf = open_bytes(&with_every_value().bytes()).unwrap();
    let metadata = gguf.metadata();
    let errors = [
        (metadata.integer("i32").map(drop), "`i32` must be an integer from 0 on, found -5"),
        (metadata.integer("f32").map(drop), "`f32` must be an integer"),
        (metadata.integer("texts").map(drop), "`texts` must be an integer from 0 on, found an array of 3 texts"),
        (metadata.float("infinite").map(drop), "`infinite` must be a floating-point number, found inf"),
        (metadata.float("u8").map(drop), "`u8` must be a floating-point number, found 200"),
        (metadata.flag("u8").map(drop), "`u8` must be true or false, found 200"),
        (metadata.text("u8").map(drop), "`u8` must be a text, found 200"),
        (metadata.texts("text").map(drop), "`text` must be an array of texts, found the text `größer`"),
        (
            metadata.integers("negative").map(drop),
            "`negative` must be an array of integers from 0 on, found an array of 2 numbers",
        ),
        (metadata.floats("i16s").map(drop), "`i16s` must be an array of floating-point numbers"),
        (metadata.per_layer("i16s", 3).map(drop), "`i16s` must be one number, or 3 of them, found an array of 2 numbers"),
        (metadata.per_layer("i16", 1 << 32).map(drop), "`i16`: a model has at most 65536 layers, found 4294967296"),
        (Err(metadata.missing("x")), "model.gguf cannot be read as GGUF: `x` is missing"),
    ];
    for (found, expected) in errors {
        let message = found.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

/// Asks everything of a file, if it can be opened; whether it can.
fn use_all(path: &Path) -> bool {
    let Ok(gguf) = open(path) else { return false };
    let metadata = gguf.metadata();
    for key in metadata.keys() {
        let _ = (metadata.integer(key), metadata.float(key), metadata.flag(key), metadata.text(key), metadata.texts(key));
        let _ = (metadata.integers(key), metadata.floats(key), metadata.per_layer(key, 2), metadata.per_layer_float(key, 2));
    }
    for tensor in gguf.tensors() {
        let elements: usize = tensor.shape.iter().product();
        let bytes = pollster::block_on(gguf.sources()[tensor.source].read(tensor.bytes.clone())).unwrap();
        let mut values = Vec::new();
        if tensor.block.widen(&bytes, &mut values).is_ok() {
            assert_eq!(values.len(), elements);
        }
    }
    true
}

/// Numbers that follow from the one before: the same on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33 ^ self.0 << 20
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Damages the first `end` bytes of a file.
fn mutate(file: &mut Vec<u8>, end: usize, random: &mut Random) {
    let at = random.below(end);
    match random.below(6) {
        0 => file[at] ^= 1 << random.below(8),
        1 => file[at] = random.next() as u8,
        2 => file.truncate(at),
        3 => drop(file.remove(at)),
        4 => file.insert(at, random.next() as u8),
        _ => {
            // A length or a count, near a power of two.
            let value = (1u64 << random.below(64)).wrapping_add(random.next() % 3).wrapping_sub(1);
            let len = file.len().min(at + if random.below(2) == 0 { 4 } else { 8 }) - at;
            file[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        }
    }
}

#[test]
fn ten_thousand_damaged_headers_neither_panic_nor_allocate() {
    let every =
        with_every_value().f32_tensor("norm", 40).tensor("w", &[32, 2], 2, vec![1; 36]).tensor("k", &[256], 12, vec![1; 144]);
    let good = std::fs::read(golden("gguf/attacks/good.gguf")).unwrap();
    // Where the header of that file ends.
    let originals = [(every.bytes(), every.header().len()), (good, 224)];
    let mut random = Random(20_260_728);
    let (_directory, path) = written("model.gguf", &[]);
    let mut opened = 0;
    for round in 0..10_000 {
        let (original, header_end) = &originals[round % originals.len()];
        let mut file = original.clone();
        for _ in 0..=random.below(3) {
            let end = file.len().min(*header_end);
            if end > 0 {
                mutate(&mut file, end, &mut random);
            }
        }
        // A file that is overwritten waits for the disk on some systems.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &file).unwrap();
        let (good, allocated) = largest_allocation(|| use_all(&path));
        assert!(allocated <= file.len() + SPARE_BYTES, "{allocated} bytes at once in round {round}");
        opened += usize::from(good);
    }
    assert!((200..9_000).contains(&opened), "{opened} of the files could be opened: some should, most should not");
}

/// A model in `count` files: the name, and what is in it.
fn parts(count: u16) -> Vec<(String, GgufFile)> {
    let part = |index: u16| {
        let file = if index == 0 { GgufFile::llama().with("x", GgufValue::text("y")) } else { GgufFile::default() };
        let file = file
            .with("split.no", GgufValue::u16(index))
            .with("split.count", GgufValue::u16(count))
            .with("split.tensors.count", GgufValue::i32(2 * i32::from(count)));
        let file = file.f32_tensor(&format!("a.{index}"), 8).f32_tensor(&format!("b.{index}"), 3);
        (format!("model-{:05}-of-{count:05}.gguf", index + 1), file)
    };
    (0..count).map(part).collect()
}

fn write_parts(parts: &[(String, GgufFile)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, file) in parts {
        std::fs::write(directory.path().join(name), file.bytes()).unwrap();
    }
    directory
}

#[test]
fn any_part_of_a_split_model_opens_all_of_it() {
    let parts = parts(3);
    let directory = write_parts(&parts);
    for (name, _) in &parts {
        let gguf = open(&directory.path().join(name)).unwrap();
        let places: Vec<(&str, usize)> = gguf.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor.source)).collect();
        assert_eq!(places, [("a.0", 0), ("b.0", 0), ("a.1", 1), ("b.1", 1), ("a.2", 2), ("b.2", 2)]);
        assert_eq!(gguf.metadata().text("x").unwrap(), Some("y"));
        assert!(gguf.sources().iter().zip(&parts).all(|(source, (name, _))| source.name().ends_with(name)));
    }
}

#[test]
fn split_models_that_are_not_whole_are_refused() {
    for missing in 0..3 {
        let parts = parts(3);
        let directory = write_parts(&parts);
        std::fs::remove_file(directory.path().join(&parts[missing].0)).unwrap();
        let error = open(&directory.path().join(&parts[(missing + 1) % 3].0)).unwrap_err();
        assert!(matches!(&error, Error::MissingShard { shard, .. } if *shard == parts[missing].0), "{error}");
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    type Change = fn(&mut [(String, GgufFile)]);
    let changes: [(&str, Change); 6] = [
        ("`split.no` must be 1 in this file, found 2", |parts| {
            parts[1].1 = parts[1].1.clone().with("split.no", GgufValue::u16(2));
        }),
        ("its name says that it is one of 3 files, `split.count` says 4", |parts| {
            parts[2].1 = parts[2].1.clone().with("split.count", GgufValue::u16(4));
        }),
        ("its name says that it is one of 3 files, `split.count` says 1", |parts| {
            parts[0].1 = parts[0].1.clone().without("split.count");
        }),
        ("`split.tensors.count` is 7, but its 3 files have 6 tensors", |parts| {
            parts[0].1 = parts[0].1.clone().with("split.tensors.count", GgufValue::i32(7));
        }),
        ("`split.tensors.count` is 6, but its 3 files have 7 tensors", |parts| {
            parts[2].1 = parts[2].1.clone().f32_tensor("c", 1);
        }),
        ("tensor `a.0` is in two of its parts", |parts| parts[2].1 = parts[2].1.clone().f32_tensor("a.0", 1)),
    ];
    for (expected, change) in changes {
        let mut parts = parts(3);
        change(&mut parts);
        let directory = write_parts(&parts);
        let error = open(&directory.path().join(&parts[0].0)).unwrap_err().to_string();
        assert!(error.contains(expected), "expected {expected:?}, found {error:?}");
    }
}

#[test]
fn a_part_under_another_name_is_refused_and_a_single_file_has_any_name() {
    let parts = parts(2);
    let error = open_bytes(&parts[0].1.bytes()).unwrap_err().to_string();
    assert!(error.contains("it is one of 2 files, whose names have to end like -00001-of-00002.gguf"), "{error}");
    for name in [
        "model.gguf",
        "model-00001-of-00001.gguf",
        "model-00002-of-00001.gguf",
        "ö-of-00002.gguf",
        "-00000-of-00000.gguf",
        "-of-.gguf",
    ] {
        let (_directory, path) = written(name, &GgufFile::llama().bytes());
        assert!(open(&path).is_ok(), "{name}");
    }
}
