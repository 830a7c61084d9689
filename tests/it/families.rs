//! What is wrong with a checkpoint or a config of any family is named.

use crate::common::{FIXTURES, golden, open, spec_of};
use moebius::Error;
use moebius::checkpoint::WeightKey;
use moebius::spec::ModelSpec;
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
    // `latent.rs` does the same for matrices in eight bits, which come with their factors.
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

#[test]
fn an_unknown_kind_of_rope_is_refused_with_the_known_ones_in_any_family() {
    for name in FIXTURES {
        let error = refused(name, "rope_scaling", json!({ "rope_type": "spiral" }));
        if ["dbrx", "mimo_v2_flash"].contains(name) {
            assert!(error.contains("`rope_scaling` must be null or absent"), "{error}");
            continue;
        }
        let known = "must be `default`, `linear`, `llama3`, `yarn`, `longrope`, `su` or `dynamic`, found \"spiral\"";
        assert!(error.contains("rope_scaling.rope_type` ") && error.contains(known), "{name}: {error}");
    }
}

#[test]
fn an_unknown_way_to_score_experts_is_refused_with_the_known_ones() {
    let cases = [
        ("deepseek", "scoring_func", "`softmax`"),
        ("glm4_moe", "scoring_func", "`sigmoid`"),
        ("glm4_moe", "topk_method", "`noaux_tc`"),
        ("minimax_m2", "scoring_func", "`sigmoid`"),
        ("dots1", "scoring_func", "`noaux_tc` or `sigmoid`"),
        ("bailing_moe_v2", "score_function", "`softmax` or `sigmoid`"),
        ("afmoe", "score_func", "`sigmoid`"),
        ("llama_moe", "gate_type", "`TopKBalancedNoisyGate`"),
        ("llama_moe", "gate_network", "`mlp` or `linear`"),
        ("ernie4_5_moe", "moe_gate", "`topk` or `topk_fused`"),
    ];
    for (name, key, known) in cases {
        let error = refused(name, key, json!("dice"));
        assert_eq!(error, format!("config.json: `{key}` must be {known}, found \"dice\""), "{name}");
    }
}

#[test]
fn an_unknown_activation_is_refused_in_any_family() {
    for name in FIXTURES {
        // Grok-1 has one activation, whatever its converted config says.
        if *name == "grok1" {
            continue;
        }
        let (key, value) =
            if *name == "dbrx" { ("ffn_config.ffn_act_fn", json!({ "name": "mish" })) } else { ("hidden_act", json!("mish")) };
        let error = refused(name, key, value);
        assert!(error.contains("must be `silu`, found \"mish\""), "{name}: {error}");
    }
}

#[test]
fn more_experts_per_token_than_experts_are_refused_in_any_family() {
    for name in FIXTURES {
        let key = match *name {
            "dbrx" => "ffn_config.moe_top_k",
            "ernie4_5_moe" => "moe_k",
            "hunyuan_v1_moe" => "moe_topk",
            "llama_moe" => "num_selects",
            _ => "num_experts_per_tok",
        };
        let error = refused(name, key, json!(100));
        assert!(error.contains(key) && error.contains("experts"), "{name}: {error}");
    }
}

#[test]
fn what_a_family_cannot_do_is_refused_by_name() {
    let cases = [
        ("olmoe", "clip_qkv", json!(8.0), "null or absent"),
        ("phimoe", "num_experts_per_tok", json!(1), "2: the router has two rounds"),
        ("phimoe", "rope_scaling.short_factor", json!([1.0]), "a list of 6 numbers"),
        ("gpt_oss", "quantization_config.quant_method", json!("int3"), "`mxfp4`"),
        ("gpt_oss", "hidden_size", json!(100), "a multiple of 32"),
        ("gpt_oss", "layer_types", json!(["linear_attention"]), "a list of `sliding_attention` or `full_attention`"),
        ("gpt_oss", "layer_types", json!(["full_attention"]), "one entry per layer"),
        ("llama4", "no_rope_layers", json!([1]), "one entry per layer"),
        ("llama4_text", "layer_types", json!(["linear"]), "a list of `chunked_attention` or `full_attention`"),
        ("bailing_moe_v2", "n_group", json!(3), "a divisor of the number of experts (16)"),
        ("bailing_moe_v2", "topk_group", json!(5), "an integer from 1 to 4"),
        ("bailing_moe_v2", "norm_head", json!(true), "false or absent"),
        ("glm4_moe", "partial_rotary_factor", json!(0.1), "a whole number of pairs"),
        ("minimax_m2", "rotary_dim", json!(7), "an even integer"),
        ("minimax_m2", "attn_type_list", json!([1, 0, 1]), "softmax attention in every layer"),
        ("ernie4_5_moe", "use_bias", json!(true), "false or absent"),
        ("hunyuan_v1_moe", "moe_topk", json!([2]), "a number, or a list with one per layer"),
        ("hunyuan_v1_moe", "rope_scaling.alpha", Value::Null, "a number from"),
        ("deepseek", "n_shared_experts", json!(1000), "an integer from 0 to 64"),
        ("qwen2_moe", "mlp_only_layers", json!(2), "a list of integers"),
        ("afmoe", "layer_types", json!(["full_attention"]), "one entry per layer"),
        ("llama_moe", "size_experts", json!([[1]]), "null or absent"),
        ("llama_moe", "intermediate_size", json!(225), "a multiple of num_experts (8)"),
        ("llama_moe", "score_scale_factor", json!("4"), "a number from"),
        ("mimo_v2_flash", "moe_layer_freq", json!([1]), "one per layer"),
        ("mimo_v2_flash", "hybrid_layer_pattern", Value::Null, "one per layer"),
        ("mimo_v2_flash", "v_head_dim", json!(6), "a multiple of 4"),
        ("mimo_v2_flash", "swa_num_key_value_heads", json!(3), "a divisor of num_attention_heads (8)"),
        ("mimo_v2_flash", "scoring_func", json!("dice"), "`sigmoid`"),
        ("arctic", "moe_token_dropping", json!(true), "false or absent"),
        ("dbrx", "attn_config.kv_n_heads", json!(2), "a divisor of n_heads (3)"),
    ];
    for (name, key, value, expected) in cases {
        let error = refused(name, key, value);
        assert!(error.contains(key) && error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn every_range_of_rows_of_every_storage_equals_that_part_of_the_whole() {
    for name in FIXTURES {
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
