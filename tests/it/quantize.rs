//! Models written by `quantize`: they run as the original does with that `--quant`, and say what they are.

use crate::common::{Golden, demo_model, golden, gpu_or_skip, open, spec_of};
use moebius::checkpoint::{Checkpoint, ModelFiles, Synthetic, WeightStore};
use moebius::gpu::{DeviceChoice, DeviceOptions};
use moebius::model::{QuantizeOptions, Quantized, quantize, quantize_synthetic};
use moebius::quant::{CacheChoice, CacheFormat, QuantFormat};
use moebius::spec::{Role, WeightKey};
use moebius::{Engine, Error, LoadOptions};
use pollster::block_on;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn write(directory: &Path, out: &Path, quant: &str, max_file_bytes: u64) -> moebius::Result<Quantized> {
    let options = QuantizeOptions { quant: (!quant.is_empty()).then(|| quant.parse().unwrap()), max_file_bytes };
    block_on(quantize(directory, out, &options, &mut |done, total| {
        assert!(done > 0 && done <= total);
        true
    }))
}

/// `directory` quantised, in a directory that does not exist before.
fn quantized(directory: &Path, quant: &str, max_file_bytes: u64) -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("out");
    write(directory, &out, quant, max_file_bytes).unwrap();
    (parent, out)
}

/// The logits of `prompt` with keys and values in f32: what is compared here are the weights.
fn logits(directory: &Path, device: DeviceChoice, quant: &str, prompt: &[u32]) -> Vec<f32> {
    let options = LoadOptions {
        device: DeviceOptions::from_env(device),
        quant: quant.parse().unwrap(),
        kv_cache: CacheChoice::Is(CacheFormat::F32),
        ..LoadOptions::default()
    };
    let mut engine = block_on(Engine::load(directory, &options, &mut |_| {})).unwrap();
    block_on(engine.forward(prompt)).unwrap().logits
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_quantised_model_gives_the_bits_of_quantising_while_loading() {
    if !gpu_or_skip() {
        return;
    }
    let some = [
        ("mixtral", "q4_0"),
        ("mixtral", "experts=q4_0,head=q8_0,attention=f16"),
        ("deepseek", "q4_1,shared=q8_0"),
        // Tied, latent attention, biases and MXFP4, a choice of projections, and a filter.
        ("granitemoe", "q8_0"),
        ("deepseek_v3_fp8", "q4_0"),
        ("gpt_oss", "experts=auto,attention=q8_0"),
        ("gpt_oss", "q4_0"),
        ("jetmoe", "mxfp4"),
        ("yuan", "q8_0"),
    ];
    for (name, quant) in some {
        let golden = Golden::load(name);
        let (_parent, out) = quantized(&golden.directory, quant, 20_000);
        let prompt = &golden.prompts[1];
        let expected = logits(&golden.directory, DeviceChoice::Auto, quant, prompt);
        assert!(logits(&out, DeviceChoice::Auto, "auto", prompt) == expected, "{name} {quant}");
    }
}

#[test]
fn every_weight_of_every_model_comes_back_as_it_was_packed() {
    for directory in crate::common::all_models() {
        let spec = spec_of(&directory);
        let (_parent, out) = quantized(&directory, "q4_0,attention=f16", 1 << 20);
        let (original, packed) = (open(&directory, &spec).unwrap(), open(&out, &spec).unwrap());
        assert_eq!(packed.packed_info().unwrap().quant, "q4_0,attention=f16");
        assert!(packed.ignored().is_empty());
        for key in WeightKey::all(&spec) {
            let quant = match key.class().map(|class| class.name()) {
                None => "f32",
                Some("attention") => "f16",
                Some(_) => "q4_0",
            };
            let quant = QuantFormat::find(quant).unwrap();
            assert_eq!(packed.stored_quant(key), quant, "{key:?}");
            let (rows, cols) = key.shape(&spec);
            // All of it, and a piece from the middle.
            for rows in [0..rows, rows / 2..rows] {
                let matrix = block_on(original.read(key, rows.clone())).unwrap();
                let bytes = quant.pack(&matrix.values, cols);
                assert!(block_on(packed.read_packed(key, rows.clone(), quant)).unwrap() == bytes, "{key:?} {rows:?}");
                let values = block_on(packed.read(key, rows.clone())).unwrap().values;
                assert!(values == quant.unpack(&bytes, cols), "{key:?} {rows:?}");
            }
        }
    }
}

#[test]
fn names_of_packed_weights_are_unique_and_stay_as_they_are() {
    for directory in crate::common::all_models() {
        let keys: Vec<WeightKey> = WeightKey::all(&spec_of(&directory)).collect();
        let names: BTreeSet<String> = keys.iter().map(|key| key.packed_name()).collect();
        assert_eq!(names.len(), keys.len(), "{}", directory.display());
    }
    // A checkpoint that was written once has to be found again: these never change within a version of the layout.
    assert_eq!(Role::Embedding.of_model().packed_name(), "embedding");
    assert_eq!(Role::Qkv.of_layer(3).packed_name(), "layers.3.qkv");
    assert_eq!(Role::ExpertGateUp.of_expert(0, 17).packed_name(), "layers.0.expert_gate_up.17");
}

#[test]
fn a_quantised_model_is_a_directory_like_any_other() {
    let (_parent, out) = quantized(&demo_model(), "q4_0", 1 << 30);
    assert_eq!(
        names(&out),
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    );
    // Any reader of safetensors finds its way: names, dtypes, shapes and metadata.
    let bytes = fs::read(out.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let down = tensors.tensor("layers.2.expert_down.5").unwrap();
    let spec = spec_of(&out);
    let (rows, cols) = Role::ExpertDown.of_expert(2, 5).shape(&spec);
    assert_eq!(
        (down.dtype(), down.shape()),
        (safetensors::Dtype::U8, &[rows, cols / 2 + (cols / 32 * 2).next_multiple_of(16)][..])
    );
    assert_eq!(tensors.tensor("final_norm").unwrap().dtype(), safetensors::Dtype::F32);
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = metadata.metadata().as_ref().unwrap();
    assert_eq!((metadata["format"].as_str(), metadata["version"].as_str()), ("moebius-packed", "1"));
    assert_eq!(metadata["quant"], "q4_0");
    let formats: serde_json::Value = serde_json::from_str(&metadata["formats"]).unwrap();
    assert_eq!((&formats["layers.2.expert_down.5"], &formats["layers.2.router"]), (&"q4_0".into(), &"f32".into()));
}

#[test]
fn large_models_are_written_in_shards() {
    let (_parent, out) = quantized(&golden("fixtures/mixtral"), "q8_0", 40_000);
    let shards = names(&out).into_iter().filter(|name| name.ends_with(".safetensors")).collect::<Vec<_>>();
    assert!(shards.len() > 3, "{shards:?}");
    assert_eq!(shards[0], format!("model-00001-of-{:05}.safetensors", shards.len()));
    for shard in &shards {
        let bytes = fs::read(out.join(shard)).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let data: usize = tensors.iter().map(|(_, tensor)| tensor.data().len()).sum();
        assert!(data <= 40_000 || tensors.len() == 1, "{shard}: {data}");
    }
    open(&out, &spec_of(&out)).unwrap();
    // Shards of two models are none of a third.
    let (_other, q4_0) = quantized(&golden("fixtures/mixtral"), "q4_0", 1 << 30);
    fs::copy(q4_0.join("model.safetensors"), out.join(&shards[0])).unwrap();
    let error = open(&out, &spec_of(&out)).unwrap_err().to_string();
    assert!(error.contains("not those of the other shards"), "{error}");
}

#[test]
fn without_a_choice_what_is_wide_becomes_q8_0() {
    let parent = tempfile::tempdir().unwrap();
    let written = write(&golden("fixtures/mixtral"), &parent.path().join("mixtral"), "", 1 << 30).unwrap();
    assert_eq!((written.quant.to_string().as_str(), written.num_files), ("q8_0", 1));
    assert_eq!(written.formats, ["q8_0", "bf16"]);
    let written = write(&golden("fixtures/gpt_oss"), &parent.path().join("gpt_oss"), "", 1 << 30).unwrap();
    assert_eq!(written.quant.to_string(), "q8_0,experts=auto");
    assert!(written.formats.contains(&"mxfp4"), "{:?}", written.formats);
}

#[test]
fn what_is_in_the_way_is_left_alone() {
    let mixtral = golden("fixtures/mixtral");
    let parent = tempfile::tempdir().unwrap();
    let full = parent.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("notes.txt"), "mine").unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "mine").unwrap();
    for path in [&full, &file] {
        let error = write(&mixtral, path, "q4_0", 1 << 30).unwrap_err();
        assert!(matches!(error, Error::Occupied { .. }) && error.hint().is_some(), "{error}");
    }
    assert_eq!(fs::read_to_string(full.join("notes.txt")).unwrap(), "mine");
    let error = write(&mixtral, &file.join("no/such/out"), "q4_0", 1 << 30).unwrap_err();
    assert!(error.to_string().contains("no/such/out"), "{error}");
    assert!(write(&parent.path().join("no model"), &parent.path().join("new/folder/out"), "q4_0", 1 << 30).is_err());
    assert_eq!(names(parent.path()), ["file", "full"], "nothing is left behind");
    write(&mixtral, &parent.path().join("new/folder/out"), "q4_0", 1 << 30).unwrap();
    assert_eq!(names(&parent.path().join("new/folder")), ["out"], "folders above it are made");
    fs::remove_dir_all(parent.path().join("new")).unwrap();
    // An empty directory is as good as none.
    let empty = parent.path().join("empty");
    fs::create_dir(&empty).unwrap();
    write(&mixtral, &empty, "q4_0", 1 << 30).unwrap();
    open(&empty, &spec_of(&empty)).unwrap();
}

#[test]
fn what_fails_or_is_stopped_leaves_nothing_behind() {
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("out");
    let mut pieces = 0;
    let outcome = block_on(quantize(&golden("fixtures/mixtral"), &out, &QuantizeOptions::default(), &mut |_, _| {
        pieces += 1;
        pieces < 5
    }));
    assert!(matches!(outcome, Err(Error::Stopped { .. })), "{outcome:?}");
    assert_eq!(names(parent.path()), [""; 0]);
    let error = write(&golden("fixtures"), &out, "q4_0", 1 << 30).unwrap_err();
    assert!(matches!(error, Error::MissingFile { .. }), "{error}");
    assert_eq!(names(parent.path()), [""; 0]);
}

#[test]
fn a_quantised_model_is_not_quantised_again_but_may_be_widened() {
    let golden = Golden::load("mixtral");
    let (parent, out) = quantized(&golden.directory, "q4_0", 1 << 30);
    let error = write(&out, &parent.path().join("again"), "q8_0", 1 << 30).unwrap_err();
    assert!(matches!(&error, Error::AlreadyPacked { quant, .. } if quant == "q4_0"), "{error}");
    assert!(error.hint().is_some());
    assert_eq!(names(parent.path()), ["out"]);
    // The reference reads it, and so does a device in other formats: the values are those that were stored.
    let narrow = logits(&out, DeviceChoice::Cpu, "auto", &golden.prompts[0]);
    assert!(narrow.iter().all(|logit| logit.is_finite()));
    if gpu_or_skip() {
        let wide = logits(&out, DeviceChoice::Auto, "f32", &golden.prompts[0]);
        assert!(crate::common::max_difference(&narrow, &wide) < 1e-3);
    }
}

/// `out/model.safetensors` with some text of its header replaced by one of the same length.
fn spoil(out: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let path = out.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect("it is there");
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn metadata_that_make_no_sense_are_refused_with_what_is_wrong() {
    let golden = Golden::load("mixtral");
    for (from, to, words) in [
        (r#""version":"1""#, r#""version":"2""#, ["version 2", "known: 1"]),
        (r#""version":"1""#, r#""version":"x""#, ["version x", "known: 1"]),
        (r#""version":"1""#, r#""Version":"1""#, ["no `version`", "metadata"]),
        (r#"\"head\":\"q4_0\""#, r#"\"head\":\"q9_0\""#, ["`q9_0`", "known: f32"]),
        (r#"\"head\":\"q4_0\""#, r#"\"haed\":\"q4_0\""#, ["no format of `head`", "metadata"]),
        (r#"\"head\":\"q4_0\""#, r#"\"head\":\"q8_0\""#, ["`head`", "expected shape"]),
        (r#""formats":"{"#, r#""formats":"["#, ["`formats`", "metadata"]),
        (r#""layers.0.qkv":{"#, r#""layers.0.qvk":{"#, ["no format of `layers.0.qvk`", "metadata"]),
    ] {
        let (_parent, out) = quantized(&golden.directory, "q4_0", 1 << 30);
        spoil(&out, from, to);
        let error = open(&out, &golden.spec).unwrap_err();
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{to}: {error}");
        assert!(error.hint().is_some(), "{error}");
    }
    assert_eq!(block_on(Checkpoint::packed_info_of(&golden.directory)).unwrap(), None);
}

#[test]
fn random_weights_in_the_shapes_of_a_config_are_a_packed_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("random");
    let config = golden("fixtures/mixtral/config.json");
    let options = QuantizeOptions { quant: Some("q4_0".parse().unwrap()), ..QuantizeOptions::default() };
    let written = block_on(quantize_synthetic(&config, Some(1), &out, &options, &mut |_, _| true)).unwrap();
    let weights = block_on(block_on(ModelFiles::open(&out)).unwrap().weights()).unwrap();
    assert_eq!(weights.spec().layers.len(), 1);
    assert_eq!(weights.packed_info().unwrap().quant, "q4_0");
    let files: u64 = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(files > written.weight_bytes);
    // The values are those that a benchmark without files computes with.
    let key = Role::ExpertDown.of_expert(0, 1);
    let random = WeightStore::Synthetic(Synthetic::new(weights.spec()));
    let (rows, quant) = (0..key.shape(weights.spec()).0, weights.stored_quant(key));
    let stored = block_on(weights.read_packed(key, rows.clone(), quant)).unwrap();
    assert_eq!(stored, *block_on(random.packed(key, rows, quant)).unwrap());

    for (layers, said) in [(0, "1 to "), (99, "1 to ")] {
        let error = block_on(quantize_synthetic(&config, Some(layers), &folder.path().join("x"), &options, &mut |_, _| true));
        assert!(error.unwrap_err().to_string().contains(said));
    }
    assert!(!folder.path().join("x").exists());
}
