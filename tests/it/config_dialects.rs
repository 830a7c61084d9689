//! Configs as other programs write them.

use crate::common::{change_json, config_with, copy_of, golden};
use moebius::gpu::{DeviceChoice, DeviceOptions};
use moebius::spec::{ModelSpec, RopeScaling};
use moebius::{Engine, Error, LoadOptions};
use pollster::block_on;
use serde_json::{Value, json};
use std::path::Path;

fn parse(text: &str) -> Result<ModelSpec, Error> {
    ModelSpec::parse(text, "config.json")
}

fn spec_with(changes: &[(&str, Value)]) -> ModelSpec {
    parse(&config_with(changes)).unwrap()
}

fn load(directory: &Path) -> Result<Engine, Error> {
    let device = DeviceOptions::from_env(DeviceChoice::Cpu);
    block_on(Engine::load(directory, &LoadOptions { device, ..LoadOptions::default() }, &mut |_| {}))
}

fn logits(directory: &Path) -> Vec<f32> {
    block_on(load(directory).unwrap().forward(&[5, 17, 99])).unwrap().logits
}

#[test]
fn configs_that_transformers_wrote_anew_mean_the_same_model() {
    let (mut num_configs, mut differing) = (0, Vec::new());
    for entry in std::fs::read_dir(golden("configs-of-transformers")).unwrap() {
        let path = entry.unwrap().path();
        let fixture = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let original = std::fs::read_to_string(golden("fixtures").join(&fixture).join("config.json")).unwrap();
        match parse(&std::fs::read_to_string(&path).unwrap()) {
            Ok(spec) if spec == parse(&original).unwrap() => num_configs += 1,
            Ok(spec) => differing.push(format!("{fixture}:\n{spec:?}\n{:?}", parse(&original).unwrap())),
            Err(error) => differing.push(format!("{fixture}: {error}")),
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    assert_eq!(num_configs, 36);
}

#[test]
fn a_theta_among_the_rope_parameters_counts_more_than_one_outside() {
    let theta = |changes: &[(&str, Value)]| spec_with(changes).layers[0].rope().unwrap().theta;
    let nested = json!({ "rope_type": "default", "rope_theta": 1e6 });
    assert_eq!(theta(&[("rope_theta", json!(10000.0)), ("rope_parameters", nested.clone())]), 1e6);
    assert_eq!(theta(&[("rope_theta", Value::Null), ("rope_parameters", nested)]), 1e6);
    assert_eq!(theta(&[("rope_theta", json!(500.0)), ("rope_parameters", json!({ "rope_type": "default" }))]), 500.0);
    assert_eq!(theta(&[("rope_theta", json!(500.0)), ("rope_parameters", Value::Null)]), 500.0);
    assert_eq!(theta(&[("rope_theta", json!(500.0)), ("rope_scaling", json!({}))]), 500.0);
}

#[test]
fn words_for_numbers_that_json_lacks_matter_only_where_a_number_is_needed() {
    let with = |extra: &str| config_with(&[]).replacen('{', &format!("{{{extra},"), 1);
    let plain = parse(&config_with(&[])).unwrap();
    for extra in
        [r#""limits": [0.0, Infinity], "other": NaN, "low": -Infinity"#, r#""text": "NaN and \"Infinity\" \\", "high": Infinity"#]
    {
        assert_eq!(parse(&with(extra)).unwrap(), plain, "{extra}");
    }
    let error = parse(&config_with(&[]).replace("1000000.0", "Infinity")).unwrap_err();
    assert!(error.to_string().contains("`rope_theta`") && error.to_string().contains("Infinity"), "{error}");
    assert!(matches!(parse(&with("\"a\": Infinite")), Err(Error::Json { .. })));
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_file() {
    assert!(parse(&format!("\u{feff}{}", config_with(&[]))).is_ok());
    let copy = copy_of("mixtral");
    for name in ["config.json", "tokenizer_config.json", "generation_config.json", "tokenizer.json"] {
        let path = copy.path().join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("\u{feff}{text}")).unwrap();
    }
    load(copy.path()).unwrap();
}

#[test]
fn files_in_place_of_a_config_are_told_apart() {
    for (text, said) in [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "Git LFS pointer"),
        ("<!DOCTYPE html><html></html>", "web page"),
        ("  \n", "empty"),
        ("{\"a\": }", "line 1"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.to_string().contains(said), "{text}: {error}");
    }
}

#[test]
fn yarn_without_a_factor_stretches_to_the_length_of_the_model() {
    let yarn = |factor: Value| {
        let scaling = json!({ "rope_type": "yarn", "original_max_position_embeddings": 16, "factor": factor });
        spec_with(&[("rope_scaling", scaling)]).layers[0].rope().unwrap().scaling.clone()
    };
    assert!(matches!(yarn(Value::Null), RopeScaling::Yarn { factor: 4.0, .. }));
    assert_eq!(yarn(Value::Null), yarn(json!(4.0)));
}

#[test]
fn dynamic_scaling_begins_where_the_context_ends() {
    let scaling = json!({ "type": "dynamic", "factor": 2.0 });
    assert_eq!(spec_with(&[("rope_scaling", scaling)]), spec_with(&[]));
}

#[test]
fn a_head_that_differs_from_the_embedding_is_used_and_said() {
    let copy = copy_of("mixtral");
    let untouched = logits(copy.path());
    change_json(&copy.path().join("config.json"), &[("tie_word_embeddings", json!(true))]);
    assert_eq!(logits(copy.path()), untouched);
    let engine = load(copy.path()).unwrap();
    assert!(engine.notes().iter().any(|note| note.contains("tie_word_embeddings") && note.contains("lm_head.weight")));
    assert!(!engine.ignored_tensors().iter().any(|name| name == "lm_head.weight"));

    // Quantised, the two stay two.
    let out = copy.path().join("out");
    let options = moebius::model::QuantizeOptions { quant: Some("f32".parse().unwrap()), ..Default::default() };
    block_on(moebius::model::quantize(copy.path(), &out, &options, &mut |_, _| true)).unwrap();
    assert_eq!(logits(&out), untouched);
}

#[test]
fn a_head_that_equals_the_embedding_stays_tied() {
    let mut spec = crate::common::tiny_spec();
    let mut tiny = crate::common::TinyCheckpoint::whole(&spec);
    let embedding = tiny.tensors.iter().find(|tensor| tensor.name == "model.embed_tokens.weight").unwrap().bytes.clone();
    tiny.tensors.iter_mut().find(|tensor| tensor.name == "lm_head.weight").unwrap().bytes = embedding;
    spec.tied_embeddings = true;
    let directory = tiny.write();
    let checkpoint = crate::common::open(directory.path(), &spec).unwrap();
    assert!(checkpoint.spec().tied_embeddings && checkpoint.notes().is_empty());
    assert_eq!(checkpoint.ignored(), ["lm_head.weight"]);
}

#[test]
fn a_missing_head_speaks_of_the_key_that_ties_it() {
    let spec = crate::common::tiny_spec();
    let mut tiny = crate::common::TinyCheckpoint::whole(&spec);
    tiny.tensors.retain(|tensor| tensor.name != "lm_head.weight");
    let directory = tiny.write();
    let error = crate::common::open(directory.path(), &spec).unwrap_err();
    assert!(error.hint().unwrap().contains("tie_word_embeddings"), "{error}");
}

#[test]
fn a_config_that_cuts_the_model_is_refused_unless_it_says_so() {
    for (key, value, said) in [
        ("num_hidden_layers", json!(2), "it counts 2 layers, but the checkpoint has 3"),
        ("num_local_experts", json!(5), "tensor `model.layers.0.block_sparse_moe.gate.weight`"),
    ] {
        let copy = copy_of("mixtral");
        change_json(&copy.path().join("config.json"), &[(key, value)]);
        let error = load(copy.path()).unwrap_err();
        assert!(error.to_string().contains(said), "{key}: {error}");
    }
    let copy = copy_of("mixtral");
    let config = copy.path().join("config.json");
    change_json(&config, &[("num_hidden_layers", json!(2))]);
    assert!(load(copy.path()).unwrap_err().hint().unwrap().contains("allow_unused_weights"));
    change_json(&config, &[("allow_unused_weights", json!(true))]);
    load(copy.path()).unwrap();
}

#[test]
fn experts_that_the_config_does_not_count_are_named() {
    let spec = crate::common::tiny_spec();
    let mut tiny = crate::common::TinyCheckpoint::whole(&spec);
    for matrix in ["w1", "w2", "w3"] {
        let of = |expert: usize| format!("model.layers.1.block_sparse_moe.experts.{expert}.{matrix}.weight");
        let mut more = tiny.tensors.iter().find(|tensor| tensor.name == of(2)).unwrap().clone();
        more.name = of(3);
        tiny.tensors.push(more);
    }
    let directory = tiny.write();
    let error = crate::common::open(directory.path(), &spec).unwrap_err();
    assert!(error.to_string().contains("it counts 3 experts, but layers of the checkpoint have 4"), "{error}");
}

#[test]
fn layers_that_predict_further_tokens_stay_aside() {
    let spec = crate::common::tiny_spec();
    let mut tiny = crate::common::TinyCheckpoint::whole(&spec);
    let more: Vec<_> = tiny.tensors.iter().filter(|tensor| tensor.name.starts_with("model.layers.1.")).cloned().collect();
    for mut tensor in more {
        tensor.name = tensor.name.replace("layers.1.", "layers.2.");
        tiny.tensors.push(tensor);
    }
    let directory = tiny.write();
    assert!(matches!(crate::common::open(directory.path(), &spec), Err(Error::CutModel { .. })));
    tiny.tensors.push(crate::common::TinyTensor::new("model.layers.2.eh_proj.weight", &[1], [0.0]));
    let directory = tiny.write();
    crate::common::open(directory.path(), &spec).unwrap();
}
