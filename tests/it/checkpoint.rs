//! From files to canonical weights.

use crate::common::{TinyCheckpoint, TinyTensor, all_models, config_with, golden, open, spec_of, tiny_spec};
use moebius::Error;
use moebius::checkpoint::Checkpoint;
use moebius::spec::{ModelSpec, Role, WeightKey};
use moebius::tensor::{Dtype, Matrix};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use tempfile::TempDir;

const INDEX: &str = "model.safetensors.index.json";

pub(super) fn read(checkpoint: &Checkpoint, key: WeightKey, rows: Range<usize>) -> Matrix {
    pollster::block_on(checkpoint.read(key, rows)).unwrap()
}

pub(super) fn read_all(checkpoint: &Checkpoint, spec: &ModelSpec, key: WeightKey) -> Matrix {
    read(checkpoint, key, 0..key.shape(spec).0)
}

/// One tensor of a model directory, through the safetensors crate.
pub(super) fn raw_tensor(directory: &Path, name: &str) -> Vec<f32> {
    for file in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if !file.to_str().unwrap().ends_with(".safetensors") || file.ends_with("expected.safetensors") {
            continue;
        }
        let bytes = std::fs::read(&file).unwrap();
        if let Ok(tensor) = safetensors::SafeTensors::deserialize(&bytes).unwrap().tensor(name) {
            assert_eq!(tensor.dtype(), safetensors::Dtype::BF16);
            let mut values = Vec::new();
            Dtype::Bf16.widen_into(tensor.data(), &mut values);
            return values;
        }
    }
    panic!("no tensor {name}");
}

/// Splits a checkpoint into shards; tensor `n` goes to shard `n % 2`.
fn write_sharded(whole: &TinyCheckpoint) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut weight_map = serde_json::Map::new();
    for shard in 0..2 {
        let file = format!("model-{:05}-of-00002.safetensors", shard + 1);
        let tensors: Vec<TinyTensor> = whole.tensors.iter().skip(shard).step_by(2).cloned().collect();
        weight_map.extend(tensors.iter().map(|tensor| (tensor.name.clone(), Value::from(file.as_str()))));
        std::fs::write(directory.path().join(&file), TinyCheckpoint { tensors }.file()).unwrap();
    }
    write_index(directory.path(), &Value::Object(weight_map));
    directory
}

fn write_index(directory: &Path, weight_map: &Value) {
    std::fs::write(directory.join(INDEX), json!({ "metadata": {}, "weight_map": weight_map }).to_string()).unwrap();
}

fn read_index(directory: &Path) -> Value {
    let index: Value = serde_json::from_str(&std::fs::read_to_string(directory.join(INDEX)).unwrap()).unwrap();
    index["weight_map"].clone()
}

#[test]
fn every_model_in_the_repository_opens_and_reads_whole() {
    for directory in all_models() {
        let spec = spec_of(&directory);
        let checkpoint = open(&directory, &spec).unwrap();
        // Tensors of a wrapper, and of layers that predict further tokens.
        let beyond = format!("model.layers.{}.", spec.layers.len());
        let foreign = ["vision_model.", "multi_modal_projector.", beyond.as_str(), ".weight_noise.", "_decay", ".slope_rate"];
        let ignored = checkpoint.ignored().iter().filter(|name| !foreign.iter().any(|foreign| name.contains(foreign)));
        assert_eq!(ignored.collect::<Vec<_>>(), [""; 0], "{}", directory.display());
        for key in WeightKey::all(&spec) {
            let matrix = read_all(&checkpoint, &spec, key);
            assert_eq!((matrix.rows, matrix.cols), key.shape(&spec), "{key:?}");
            assert_eq!(matrix.values.len(), matrix.rows * matrix.cols, "{key:?}");
            assert!(matrix.values.iter().all(|value| value.is_finite()), "{key:?}");
            // Some routers are stored in f32; `float8.rs` looks at matrices in eight bits.
            let in_eight_bits = spec.names.float8_block.is_some() && matrix.rows > 1;
            if !in_eight_bits && !matches!(key.role, Role::Router | Role::SelectionBias) {
                let is_expert = matches!(key.role, Role::ExpertGateUp | Role::ExpertDown);
                let expected = match key.role {
                    // Made of a logarithm that is stored.
                    Role::RecurrentDecay => "f32",
                    // One is added to what is stored.
                    Role::FinalNorm | Role::AttentionNorm | Role::FfnNorm | Role::QueryNorm | Role::KeyNorm
                        if spec.names.zero_centred_norms =>
                    {
                        "f32"
                    }
                    _ if directory.ends_with("gpt_oss") && is_expert => "mxfp4",
                    _ => "bf16",
                };
                assert_eq!(checkpoint.stored_quant(key).name, expected, "{} {key:?}", directory.display());
            }
            let quant = checkpoint.stored_quant(key);
            let packed = pollster::block_on(checkpoint.read_packed(key, 0..matrix.rows, quant)).unwrap();
            let kept = quant.unpack(&packed, matrix.cols);
            assert_eq!(kept, matrix.values, "{} {key:?} in {}", directory.display(), quant.name);
        }
    }
}

#[test]
fn qkv_is_query_then_key_then_value() {
    for name in ["fixtures/mixtral", "fixtures/mixtral_swa"] {
        let directory = golden(name);
        let spec = spec_of(&directory);
        let raw = |part: &str| raw_tensor(&directory, &format!("model.layers.1.self_attn.{part}_proj.weight"));
        let expected = [raw("q"), raw("k"), raw("v")].concat();
        let checkpoint = open(&directory, &spec).unwrap();
        assert_eq!(read_all(&checkpoint, &spec, Role::Qkv.of_layer(1)).values, expected);
    }
}

#[test]
fn gate_and_up_rows_take_turns() {
    for name in ["fixtures/mixtral", "fixtures/mixtral_swa"] {
        let directory = golden(name);
        let spec = spec_of(&directory);
        let raw = |part: &str| raw_tensor(&directory, &format!("model.layers.1.block_sparse_moe.experts.4.{part}.weight"));
        let (gate, up) = (raw("w1"), raw("w3"));
        let checkpoint = open(&directory, &spec).unwrap();
        let found = read_all(&checkpoint, &spec, Role::ExpertGateUp.of_expert(1, 4));
        for (row, values) in found.values.chunks_exact(found.cols).enumerate() {
            let source = if row % 2 == 0 { &gate } else { &up };
            assert_eq!(values, &source[row / 2 * found.cols..][..found.cols], "row {row}");
        }
    }
}

#[test]
fn four_bit_blocks_widen_exactly() {
    let directory = golden("fixtures/gpt_oss");
    let bytes = std::fs::read(directory.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let raw = |suffix: &str| tensors.tensor(&format!("model.layers.1.mlp.experts.gate_up_proj_{suffix}")).unwrap().data();
    let (blocks, scales) = (raw("blocks"), raw("scales"));
    let spec = spec_of(&directory);
    let checkpoint = open(&directory, &spec).unwrap();
    for expert in 0..6 {
        let matrix = read_all(&checkpoint, &spec, Role::ExpertGateUp.of_expert(1, expert));
        for (index, value) in matrix.values.iter().enumerate() {
            let element = expert * matrix.values.len() + index;
            let code = blocks[element / 2] >> (element % 2 * 4) & 15;
            // One sign bit, two of exponent, one of mantissa.
            let (exponent, mantissa) = (i32::from(code >> 1 & 3), f32::from(code & 1) / 2.0);
            let size = if exponent == 0 { mantissa } else { (1.0 + mantissa) * 2f32.powi(exponent - 1) };
            let sign = if code & 8 == 0 { 1.0 } else { -1.0 };
            assert_eq!(*value, sign * size * 2f32.powi(i32::from(scales[element / 32]) - 127), "{element}");
            assert_eq!(*value, half::bf16::from_f32(*value).to_f32());
        }
    }
}

#[test]
fn every_weight_comes_from_the_tensor_of_its_name() {
    let directory = golden("fixtures/mixtral");
    let spec = spec_of(&directory);
    let checkpoint = open(&directory, &spec).unwrap();
    let cases = [
        (Role::Embedding.of_model(), "model.embed_tokens.weight"),
        (Role::FinalNorm.of_model(), "model.norm.weight"),
        (Role::Head.of_model(), "lm_head.weight"),
        (Role::AttentionNorm.of_layer(2), "model.layers.2.input_layernorm.weight"),
        (Role::FfnNorm.of_layer(2), "model.layers.2.post_attention_layernorm.weight"),
        (Role::AttentionOutput.of_layer(2), "model.layers.2.self_attn.o_proj.weight"),
        (Role::Router.of_layer(2), "model.layers.2.block_sparse_moe.gate.weight"),
        (Role::ExpertDown.of_expert(2, 5), "model.layers.2.block_sparse_moe.experts.5.w2.weight"),
    ];
    for (key, name) in cases {
        assert_eq!(read_all(&checkpoint, &spec, key).values, raw_tensor(&directory, name), "{key:?}");
    }
}

#[test]
fn any_range_of_rows_equals_that_part_of_the_whole() {
    let spec = tiny_spec();
    let directory = TinyCheckpoint::whole(&spec).write();
    let checkpoint = open(directory.path(), &spec).unwrap();
    for key in WeightKey::all(&spec) {
        let whole = read_all(&checkpoint, &spec, key);
        for start in 0..=whole.rows {
            for end in start..=whole.rows {
                let part = read(&checkpoint, key, start..end);
                assert_eq!((part.rows, part.cols), (end - start, whole.cols));
                assert_eq!(part.values, whole.values[start * whole.cols..end * whole.cols], "{key:?} {start}..{end}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "rows 8..11 of embedding, which has 10")]
fn rows_beyond_the_weight_are_a_programming_error() {
    let spec = tiny_spec();
    let directory = TinyCheckpoint::whole(&spec).write();
    read(&open(directory.path(), &spec).unwrap(), Role::Embedding.of_model(), 8..11);
}

#[test]
fn all_names_each_weight_once() {
    let spec = tiny_spec();
    let keys: Vec<WeightKey> = WeightKey::all(&spec).collect();
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
    assert_eq!(keys.len(), 3 + 2 * (5 + 2 * 3));
}

#[test]
fn a_tied_head_is_the_embedding() {
    let spec = ModelSpec::parse(&config_with(&[("tie_word_embeddings", json!(true))]), "config.json").unwrap();
    let mut tiny = TinyCheckpoint::whole(&spec);
    tiny.tensors.push(TinyTensor::new("lm_head.weight", &[1], [7.0]));
    let directory = tiny.write();
    let checkpoint = open(directory.path(), &spec).unwrap();
    assert!(!WeightKey::all(&spec).any(|key| key == Role::Head.of_model()));
    assert_eq!(read_all(&checkpoint, &spec, Role::Head.of_model()), read_all(&checkpoint, &spec, Role::Embedding.of_model()));
    assert_eq!(checkpoint.ignored(), ["lm_head.weight"]);
}

#[test]
fn parts_of_different_dtypes_are_kept_in_f32() {
    let spec = tiny_spec();
    let mut tiny = TinyCheckpoint::whole(&spec);
    let name = "model.layers.0.self_attn.k_proj.weight";
    let values = tiny.values(name);
    let key_projection = tiny.tensor_mut(name);
    key_projection.dtype = "BF16";
    key_projection.bytes = values.iter().flat_map(|&value| half::bf16::from_f32(value).to_le_bytes()).collect();
    let router = tiny.tensor_mut("model.layers.0.block_sparse_moe.gate.weight");
    router.dtype = "F16";
    router.bytes.truncate(router.bytes.len() / 2);

    let directory = tiny.write();
    let checkpoint = open(directory.path(), &spec).unwrap();
    assert_eq!(checkpoint.stored_quant(Role::Qkv.of_layer(0)).name, "f32");
    assert_eq!(checkpoint.stored_quant(Role::Router.of_layer(0)).name, "f16");
    let row = read(&checkpoint, Role::Qkv.of_layer(0), 8..9).values;
    assert_eq!(row, values[..8].iter().map(|&value| half::bf16::from_f32(value).to_f32()).collect::<Vec<_>>());
}

#[test]
fn unknown_tensors_are_ignored_and_listed_in_order() {
    let spec = tiny_spec();
    let mut tiny = TinyCheckpoint::whole(&spec);
    for name in ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.2.input_layernorm.weight", "a"] {
        tiny.tensors.insert(3, TinyTensor { name: name.to_owned(), dtype: "I64", shape: vec![2], bytes: vec![0; 16] });
    }
    let directory = tiny.write();
    let expected = ["a", "model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.2.input_layernorm.weight"];
    assert_eq!(open(directory.path(), &spec).unwrap().ignored(), expected);
}

#[test]
fn shards_give_the_weights_of_the_single_file() {
    let spec = tiny_spec();
    let tiny = TinyCheckpoint::whole(&spec);
    let (single, sharded) = (tiny.write(), write_sharded(&tiny));
    let (single, sharded) = (open(single.path(), &spec).unwrap(), open(sharded.path(), &spec).unwrap());
    for key in WeightKey::all(&spec) {
        assert_eq!(read_all(&single, &spec, key), read_all(&sharded, &spec, key), "{key:?}");
    }
}

#[test]
fn absent_weights_are_a_missing_file() {
    let directory = tempfile::tempdir().unwrap();
    for path in [directory.path().to_owned(), directory.path().join("nowhere")] {
        match open(&path, &tiny_spec()) {
            Err(Error::MissingFile { file, .. }) => assert_eq!(file, "model.safetensors"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_absent_config_is_a_missing_file() {
    let directory = tempfile::tempdir().unwrap();
    let error = pollster::block_on(moebius::platform::read_model_text(directory.path(), "config.json")).unwrap_err();
    assert!(matches!(error, Error::MissingFile { file: "config.json", .. }), "{error}");
    std::fs::write(directory.path().join("config.json"), [0xff, 0xfe]).unwrap();
    let error = pollster::block_on(moebius::platform::read_model_text(directory.path(), "config.json")).unwrap_err();
    assert!(matches!(error, Error::Io { action: "read", .. }), "{error}");
}

#[test]
fn every_missing_tensor_is_gathered_in_one_error() {
    let spec = tiny_spec();
    let mut tiny = TinyCheckpoint::whole(&spec);
    let mut taken: Vec<String> =
        ["w1", "w2", "w3"].map(|part| format!("model.layers.1.block_sparse_moe.experts.2.{part}.weight")).into();
    taken.push("lm_head.weight".to_owned());
    taken.iter().for_each(|name| drop(tiny.take(name)));
    let expected_tensors = tiny.tensors.len() + taken.len();
    let directory = tiny.write();
    match open(directory.path(), &spec) {
        Err(Error::MissingTensors { mut missing, expected }) => {
            missing.sort();
            taken.sort();
            assert_eq!((missing, expected), (taken, expected_tensors));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_config_with_more_experts_than_the_files_is_refused() {
    let directory = TinyCheckpoint::whole(&tiny_spec()).write();
    let spec = ModelSpec::parse(&config_with(&[("num_local_experts", json!(4))]), "config.json").unwrap();
    let error = open(directory.path(), &spec).unwrap_err();
    assert!(error.to_string().contains("experts.3.w1.weight` and 2 more"), "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn wrong_shapes_are_refused_with_both() {
    let spec = tiny_spec();
    let name = "model.layers.0.self_attn.q_proj.weight";
    for shape in [vec![4, 16], vec![64], vec![8, 8, 1], vec![2, 32]] {
        let mut tiny = TinyCheckpoint::whole(&spec);
        tiny.tensor_mut(name).shape = shape.clone();
        let directory = tiny.write();
        match open(directory.path(), &spec) {
            Err(Error::TensorShape { name: found_name, expected, found }) => {
                assert_eq!((found_name.as_str(), expected, found), (name, vec![8, 8], shape));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_norm_has_one_axis() {
    let spec = tiny_spec();
    let mut tiny = TinyCheckpoint::whole(&spec);
    tiny.tensor_mut("model.norm.weight").shape = vec![1, 8];
    let directory = tiny.write();
    assert!(matches!(open(directory.path(), &spec), Err(Error::TensorShape { .. })));
}

#[test]
fn weights_in_unreadable_dtypes_are_refused_with_the_readable_ones() {
    let spec = tiny_spec();
    for dtype in ["I32", "U32"] {
        let mut tiny = TinyCheckpoint::whole(&spec);
        tiny.tensor_mut("model.norm.weight").dtype = dtype;
        let directory = tiny.write();
        let error = open(directory.path(), &spec).unwrap_err().to_string();
        assert_eq!(error, format!("tensor `model.norm.weight`: expected one of F32, F16, BF16, found {dtype}"));
    }
}

#[test]
fn an_index_that_names_an_absent_shard_is_refused() {
    let spec = tiny_spec();
    let directory = write_sharded(&TinyCheckpoint::whole(&spec));
    std::fs::remove_file(directory.path().join("model-00002-of-00002.safetensors")).unwrap();
    let error = open(directory.path(), &spec).unwrap_err();
    assert!(matches!(&error, Error::MissingShard { shard, .. } if shard == "model-00002-of-00002.safetensors"), "{error}");
}

#[test]
fn an_index_may_only_name_files_beside_it() {
    let spec = tiny_spec();
    let outside = TinyCheckpoint::whole(&spec).write();
    let absolute = outside.path().join("model.safetensors");
    let directory = outside.path().join("inside");
    std::fs::create_dir(&directory).unwrap();
    for shard in ["../model.safetensors", absolute.to_str().unwrap(), "..", ".", "", "/", "a/b", "a\\b", "./x", "x/"] {
        let mut weight_map = serde_json::Map::new();
        weight_map.insert("model.norm.weight".to_owned(), Value::from(shard));
        write_index(&directory, &Value::Object(weight_map));
        let error = open(&directory, &spec).unwrap_err();
        assert!(matches!(error, Error::Json { .. }), "{shard}: {error}");
        assert!(error.to_string().contains("must name files beside it"), "{shard}: {error}");
    }
}

#[test]
fn an_index_that_is_no_index_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for text in ["", "{}", "[]", "{\"weight_map\": 3}", "{\"weight_map\": {\"a\": 3}}", "{\"weight_map\": null}"] {
        std::fs::write(directory.path().join(INDEX), text).unwrap();
        let error = open(directory.path(), &tiny_spec()).unwrap_err();
        assert!(matches!(error, Error::Json { .. }), "{text}: {error}");
    }
    std::fs::write(directory.path().join(INDEX), "{\"weight_map\": {}}").unwrap();
    assert!(matches!(open(directory.path(), &tiny_spec()), Err(Error::MissingTensors { .. })));
}

#[test]
fn a_shard_s_own_header_counts_more_than_the_index() {
    let spec = tiny_spec();
    let directory = write_sharded(&TinyCheckpoint::whole(&spec));
    let mut weight_map = read_index(directory.path());
    let right = weight_map["model.norm.weight"].as_str().unwrap().to_owned();
    let wrong = if right.contains("00001-of") { "model-00002-of-00002.safetensors" } else { "model-00001-of-00002.safetensors" };
    weight_map["model.norm.weight"] = Value::from(wrong);
    write_index(directory.path(), &weight_map);
    let checkpoint = open(directory.path(), &spec).unwrap();
    let norm = TinyCheckpoint::whole(&spec).tensors.into_iter().find(|tensor| tensor.name == "model.norm.weight").unwrap();
    let values = pollster::block_on(checkpoint.read(Role::FinalNorm.of_model(), 0..1)).unwrap().values;
    assert_eq!(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>(), norm.bytes);
}

#[test]
fn a_tensor_in_two_shards_is_refused_unless_the_index_chooses() {
    let spec = tiny_spec();
    let whole = TinyCheckpoint::whole(&spec);
    let directory = write_sharded(&whole);
    let mut twice = TinyCheckpoint { tensors: whole.tensors.iter().skip(1).step_by(2).cloned().collect() };
    let other = whole.tensors[0].clone();
    twice.tensors.push(other.clone());
    std::fs::write(directory.path().join("model-00002-of-00002.safetensors"), twice.file()).unwrap();
    open(directory.path(), &spec).unwrap();

    let mut weight_map = read_index(directory.path());
    weight_map.as_object_mut().unwrap().remove(&other.name);
    write_index(directory.path(), &weight_map);
    let error = open(directory.path(), &spec).unwrap_err().to_string();
    assert!(error.contains(&format!("tensor `{}` is also in", other.name)), "{error}");
}
