//! Models in formats that are not read say what they are.

use crate::common::{change_json, config_with, copy_of, tiny_spec};
use moebius::Error;
use moebius::checkpoint::{Checkpoint, ModelFiles};
use moebius::spec::ModelSpec;
use pollster::block_on;
use serde_json::{Value, json};
use std::fs;

fn refusal(changes: &[(&str, Value)]) -> Error {
    ModelSpec::parse(&config_with(changes), "config.json").unwrap_err()
}

#[test]
fn foreign_quantisations_are_named() {
    for (config, name) in [
        (json!({ "quant_method": "awq", "bits": 4 }), "AWQ"),
        (json!({ "quant_method": "gptq" }), "GPTQ"),
        (json!({ "quant_method": "bitsandbytes", "load_in_4bit": true }), "bitsandbytes"),
        (json!({ "load_in_8bit": true }), "bitsandbytes"),
        (json!({ "quant_method": "compressed-tensors", "format": "pack-quantized" }), "compressed-tensors"),
        (json!({ "quant_method": "hqq" }), "HQQ"),
        (json!({ "quant_method": "modelopt", "quant_algo": "NVFP4" }), "ModelOpt"),
        (json!({ "quant_method": "auto_round" }), "AutoRound"),
        (json!({ "group_size": 64, "bits": 4 }), "MLX"),
    ] {
        for changes in
            [vec![("quantization_config", config.clone())], vec![("text_config", json!({ "quantization_config": config }))]]
        {
            let error = refusal(&changes);
            assert!(matches!(error, Error::ForeignQuantization { .. }), "{name}: {error}");
            assert!(error.to_string().contains(name), "{error}");
            assert!(error.hint().unwrap().contains("--quant q4_0"), "{error}");
        }
    }
    assert!(refusal(&[("quantization", json!({ "group_size": 64, "bits": 4 }))]).to_string().contains("MLX"));
    let unknown = refusal(&[("quantization_config", json!({ "quant_method": "new_thing" }))]).to_string();
    assert!(unknown.contains("`quantization_config.quant_method` must be `mxfp4` or `fp8`"), "{unknown}");
    for nothing in [Value::Null, json!({})] {
        ModelSpec::parse(&config_with(&[("quantization_config", nothing)]), "config.json").unwrap();
    }
}

#[test]
fn dense_models_and_those_to_come_are_told_apart_from_unknown_ones() {
    let refused = |model_type: &str| refusal(&[("model_type", json!(model_type))]);
    for dense in ["qwen2", "olmo2", "gemma3", "gemma3_text", "phi3", "gpt2", "mistral"] {
        let error = refused(dense);
        assert!(matches!(error, Error::Dense { .. }) && error.to_string().contains("this one has no experts"), "{error}");
    }
    for (later, reason) in [("bailing_moe_linear", "linear attention"), ("falcon_h1", "Mamba"), ("nllb-moe", "encoder-decoder")] {
        let error = refused(later);
        assert!(matches!(error, Error::NotYet { .. }) && error.to_string().contains(reason), "{error}");
    }
    assert!(matches!(refused("never_heard"), Error::UnknownArchitecture { .. }));
}

#[test]
fn files_in_place_of_weights_are_told_apart() {
    let spec = tiny_spec();
    for (content, said) in [
        (&b""[..], "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html><body>not found</body></html>", "web page"),
        (b"\n<html>", "web page"),
        (b"GGUF\x03\0\0\0", "GGUF"),
        (b"PK\x03\x04 archive", "pickle"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("model.safetensors"), content).unwrap();
        let error = block_on(Checkpoint::open(directory.path(), &spec)).unwrap_err();
        assert!(error.to_string().contains(said) && error.to_string().contains("model.safetensors"), "{said}: {error}");
    }
}

#[test]
fn directories_in_other_layouts_say_which() {
    for (file, said) in [
        ("pytorch_model.bin", "pickles"),
        ("pytorch_model.bin.index.json", "pickles"),
        ("consolidated.safetensors", "Mistral's own layout"),
        ("params.json", "Mistral's own layout"),
        ("adapter_model.safetensors", "adapter"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(file), b"x").unwrap();
        let without_config = block_on(ModelFiles::open(directory.path())).unwrap_err();
        let without_weights = block_on(Checkpoint::open(directory.path(), &tiny_spec())).unwrap_err();
        for (error, missing) in [(without_config, "has no config.json"), (without_weights, "has no model.safetensors")] {
            assert!(matches!(error, Error::ForeignLayout { .. }), "{file}: {error}");
            let text = error.to_string();
            assert!(text.contains(said) && text.contains(file) && text.contains(missing), "{text}");
        }
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(block_on(ModelFiles::open(empty.path())), Err(Error::MissingFile { file: "config.json", .. })));
}

#[test]
fn a_tensor_in_another_shard_than_the_index_says_is_found() {
    let copy = copy_of("deepseek_v3");
    let index = copy.path().join("model.safetensors.index.json");
    let moved = "model.layers.1.mlp.experts.7.down_proj.weight";
    let json: Value = serde_json::from_str(&fs::read_to_string(&index).unwrap()).unwrap();
    for (shard, gone) in [("model-00003-of-00003.safetensors", false), ("model-00001-of-00003.safetensors", true)] {
        let mut changed = json["weight_map"].clone();
        changed[moved] = json!(shard);
        // Entries for tensors that no shard has, and tensors without an entry.
        changed["no.such.tensor"] = json!(shard);
        if gone {
            changed.as_object_mut().unwrap().remove("model.norm.weight");
        }
        change_json(&index, &[("weight_map", changed)]);
        let spec = block_on(ModelFiles::open(copy.path())).unwrap().spec().clone();
        block_on(Checkpoint::open(copy.path(), &spec)).unwrap();
    }
}

#[test]
fn stacked_experts_of_qwen3_vl_are_read_in_either_order() {
    let copy = copy_of("qwen3_vl_moe");
    let spec = block_on(ModelFiles::open(copy.path())).unwrap().spec().clone();
    let original = block_on(Checkpoint::open(copy.path(), &spec)).unwrap();
    let path = copy.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let stored = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let swapped = stored.iter().map(|(name, view)| {
        let (shape, data) = (view.shape().to_vec(), view.data());
        if !name.contains("mlp.experts.") {
            return (name.to_owned(), shape, data.to_vec());
        }
        let (experts, rows, cols) = (shape[0], shape[1], shape[2]);
        let element = |expert: usize, row: usize, col: usize| 2 * ((expert * rows + row) * cols + col);
        let mut turned = Vec::with_capacity(data.len());
        for (expert, col, row) in
            (0..experts).flat_map(|expert| (0..cols).flat_map(move |col| (0..rows).map(move |row| (expert, col, row))))
        {
            turned.extend_from_slice(&data[element(expert, row, col)..][..2]);
        }
        (name.to_owned(), vec![experts, cols, rows], turned)
    });
    let swapped: Vec<_> = swapped.collect();
    let views = swapped.iter().map(|(name, shape, data)| {
        (name.as_str(), safetensors::tensor::TensorView::new(safetensors::Dtype::BF16, shape.clone(), data).unwrap())
    });
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    let other = block_on(Checkpoint::open(other.path(), &spec)).unwrap();
    for key in moebius::spec::WeightKey::all(&spec) {
        let rows = 0..key.shape(&spec).0;
        let (found, expected) = (block_on(other.read(key, rows.clone())).unwrap(), block_on(original.read(key, rows)).unwrap());
        assert_eq!(found.values, expected.values, "{key:?}");
    }
}
