//! What `config.json` may say.

use crate::common::{FIXTURES, all_models, config_with, golden, spec_of};
use moebius::Error;
use moebius::gating::{Normalize, RouterSpec};
use moebius::spec::{ARCHS, Mask, ModelSpec};
use proptest::prelude::*;
use serde_json::{Value, json};

fn parse(changes: &[(&str, Value)]) -> moebius::Result<ModelSpec> {
    ModelSpec::parse(&config_with(changes), "config.json")
}

#[test]
fn mixtral_fixture_parses_to_its_spec() {
    let spec = spec_of(&golden("fixtures/mixtral"));
    assert_eq!((spec.family, spec.vocab_size, spec.hidden_size, spec.max_positions), ("mixtral", 430, 96, 1024));
    assert_eq!((spec.final_norm.eps, spec.tied_embeddings, spec.layers.len()), (1e-5, false, 3));
    for layer in &spec.layers {
        let attention = layer.attention().unwrap();
        assert_eq!((attention.num_heads, attention.num_kv_heads, attention.head_dim), (3, 1, 16));
        assert_eq!((attention.scale, attention.rope.as_ref().unwrap().theta, attention.mask), (0.25, 1e6, Mask::Causal));
        let router = RouterSpec { normalize: Normalize::Sum { floor: 0.0 }, ..RouterSpec::new(6, 2) };
        assert_eq!(layer.moe().unwrap().router, router);
        assert_eq!(layer.moe().unwrap().expert.intermediate_size, 52);
    }
}

#[test]
fn sliding_window_applies_to_every_layer() {
    let spec = spec_of(&golden("fixtures/mixtral_swa"));
    assert!(spec.layers.iter().all(|layer| layer.attention().unwrap().mask == Mask::Window(24)));
}

#[test]
fn every_model_in_the_repository_parses() {
    for directory in all_models() {
        let family = spec_of(&directory).family;
        assert!(ARCHS.iter().any(|arch| arch.name == family), "{}", directory.display());
    }
}

#[test]
fn absent_keys_have_the_defaults_of_transformers() {
    let absent = |key| (key, Value::Null);
    let keys = ["head_dim", "num_key_value_heads", "rms_norm_eps", "rope_theta", "hidden_act", "tie_word_embeddings"];
    let spec = parse(&keys.map(absent)).unwrap();
    let attention = spec.layers[0].attention().unwrap();
    assert_eq!((attention.head_dim, attention.num_kv_heads, attention.rope.as_ref().unwrap().theta), (4, 2, 1e6));
    assert_eq!((spec.final_norm.eps, spec.tied_embeddings), (1e-5, false));
}

#[test]
fn rope_theta_is_found_in_either_place() {
    let theta = |changes: &[(&str, Value)]| parse(changes).unwrap().layers[0].rope().unwrap().theta;
    assert_eq!(theta(&[("rope_theta", json!(5e5))]), 5e5);
    let nested = json!({ "rope_type": "default", "rope_theta": 2e4 });
    assert_eq!(theta(&[("rope_theta", Value::Null), ("rope_parameters", nested)]), 2e4);
    assert_eq!(theta(&[("rope_theta", json!(5e5)), ("rope_scaling", json!({ "type": "default" }))]), 5e5);
}

#[test]
fn nonsense_values_name_the_key_and_what_it_may_be() {
    let huge = json!(1u64 << 63);
    let cases = [
        ("num_attention_heads", json!(0), "an integer from 1 to 1024"),
        ("num_attention_heads", json!(3), "a multiple of num_key_value_heads (2)"),
        ("num_key_value_heads", json!(0), "an integer from 1 to 1024"),
        ("num_hidden_layers", json!(0), "an integer from 1 to 1024"),
        ("num_hidden_layers", json!(1025), "an integer from 1 to 1024"),
        ("num_local_experts", json!(0), "an integer from 1 to 1024"),
        ("num_experts_per_tok", json!(0), "an integer from 1 to 1024"),
        ("num_experts_per_tok", json!(4), "at most num_local_experts (3)"),
        ("head_dim", json!(7), "a multiple of 4"),
        ("head_dim", json!(6), "a multiple of 4"),
        ("head_dim", json!(-4), "an integer from 1 to 1024"),
        ("hidden_size", json!(8.0), "an integer from 1 to"),
        ("hidden_size", json!("8"), "an integer from 1 to"),
        ("hidden_size", Value::Null, "an integer from 1 to"),
        ("intermediate_size", huge.clone(), "an integer from 1 to"),
        ("vocab_size", huge.clone(), "an integer from 1 to"),
        ("max_position_embeddings", huge, "an integer from 1 to 2147483647"),
        ("hidden_act", json!("gelu"), "`silu`"),
        ("rms_norm_eps", json!(0), "a number from"),
        ("rms_norm_eps", json!(-1e-5), "a number from"),
        ("rms_norm_eps", json!("1e-5"), "a number from"),
        ("rope_theta", json!(0), "a number from"),
        ("rope_theta", json!(1e300), "a number from"),
        ("sliding_window", json!(0), "an integer from 1 to"),
        ("tie_word_embeddings", json!("no"), "true or false"),
        ("model_type", json!(7), "a string"),
        ("model_type", Value::Null, "a string"),
        ("rope_scaling", json!([1]), "an object or null"),
    ];
    for (key, value, wanted) in cases {
        let changes = [("num_key_value_heads", json!(2)), (key, value.clone())];
        match parse(&changes) {
            Err(Error::Config { file, key: found_key, expected, found }) => {
                assert_eq!((file.as_str(), found_key.as_str()), ("config.json", key));
                assert!(expected.contains(wanted), "{key} = {value}: expected {expected}");
                assert_eq!(found, if value.is_null() { "null".to_owned() } else { value.to_string() });
            }
            other => panic!("{key} = {value}: {other:?}"),
        }
    }
}

#[test]
fn head_dim_is_checked_where_it_is_derived_too() {
    let derived = |hidden: usize, heads: usize| {
        let changes = [("head_dim", Value::Null), ("hidden_size", json!(hidden)), ("num_attention_heads", json!(heads))];
        parse(&changes).unwrap_err().to_string()
    };
    assert!(derived(12, 2).contains("`head_dim` must be even"), "{}", derived(12, 2));
    assert!(derived(4096, 2).contains("at most 1024, found 2048"), "{}", derived(4096, 2));
    assert!(derived(9, 2).contains("`hidden_size` must be a multiple of num_attention_heads (2)"), "{}", derived(9, 2));
}

#[test]
fn nonsense_rope_is_refused_by_name() {
    let cases = [
        ("rope_scaling", json!({ "type": "ntk", "factor": 4.0 }), "`rope_scaling.type` must be `default`, `linear`, `llama3`"),
        ("rope_parameters", json!({ "rope_type": 3 }), "`rope_parameters.rope_type`"),
        ("rope_parameters", json!({ "rope_type": "llama3", "rope_theta": 1e4 }), "`rope_parameters.factor`"),
        ("rope_scaling", json!({ "type": "dynamic", "alpha": -2.0 }), "`rope_scaling.alpha`"),
        ("rope_scaling", json!({ "type": "longrope", "short_factor": [1, 1], "long_factor": [1] }), "`rope_scaling.long_factor`"),
        ("rope_parameters", json!({ "rope_theta": -1 }), "`rope_parameters.rope_theta`"),
        ("rope_parameters", json!({ "partial_rotary_factor": 0.4 }), "`rope_parameters.partial_rotary_factor`"),
        ("rope_parameters", json!({ "full_attention": { "rope_theta": 1e4 } }), "`rope_parameters`"),
    ];
    for (key, value, named) in cases {
        let message = parse(&[(key, value)]).unwrap_err().to_string();
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn sizes_of_all_experts_may_be_listed_where_they_are_equal() {
    let text = std::fs::read_to_string(golden("fixtures/llama_moe/config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let plain = ModelSpec::parse(&text, "config.json").unwrap();
    config["size_experts"] = json!(vec![vec![28; 8]; 3]);
    assert_eq!(ModelSpec::parse(&config.to_string(), "config.json").unwrap(), plain);
}

#[test]
fn gaps_of_older_versions_are_read() {
    let with = |name: &str, key: &str, value: Value| {
        let text = std::fs::read_to_string(golden("fixtures").join(name).join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config[key] = value;
        ModelSpec::parse(&config.to_string(), "config.json").unwrap().layers.remove(0)
    };
    let layer = with("olmoe", "clip_qkv", json!(8.0));
    let attention = layer.attention().unwrap();
    assert_eq!((attention.clip, attention.clip_after_norm), (Some(8.0), true));
    let layer = with("grok1", "router_logit_softcapping", json!(30.0));
    assert_eq!(layer.moe().unwrap().router.softcap, Some(30.0));
}

#[test]
fn too_many_experts_over_all_layers_are_refused() {
    let error = parse(&[("num_hidden_layers", json!(1024)), ("num_local_experts", json!(1024))]).unwrap_err();
    assert!(error.to_string().contains("at most 131072 over all 1024 layers"), "{error}");
}

#[test]
fn unknown_model_type_lists_the_known_ones() {
    let error = parse(&[("model_type", json!("spiral"))]).unwrap_err();
    let known: Vec<&str> = ARCHS.iter().flat_map(|arch| arch.model_types).copied().collect();
    assert_eq!(error.to_string(), format!("unknown model_type `spiral`; known: {}", known.join(", ")));
    assert!(error.hint().is_some());
}

#[test]
fn text_that_is_no_json_object_is_refused() {
    for text in ["", "{", "[]", "null", "\"mixtral\"", "{} {}", "{\"vocab_size\": 1e999}", &"[".repeat(100_000)] {
        assert!(matches!(ModelSpec::parse(text, "config.json"), Err(Error::Json { .. })), "{:.20}", text);
    }
}

#[test]
fn long_values_are_cut_in_messages() {
    let error = parse(&[("hidden_act", json!("ü".repeat(10_000)))]).unwrap_err();
    assert!(error.to_string().len() < 300, "{error}");
}

#[test]
fn every_architecture_says_what_it_covers() {
    for arch in ARCHS {
        assert!(!arch.name.is_empty() && !arch.covers.is_empty() && !arch.model_types.is_empty(), "{arch:?}");
    }
}

/// Any JSON, with the numbers that hurt.
fn any_json() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0u64..70).prop_map(|bits| Value::from(1u64.checked_shl(bits as u32).unwrap_or(u64::MAX))),
        (0u64..5000).prop_map(Value::from),
    ];
    let text = prop_oneof![Just("default".to_owned()), Just("mixtral".to_owned()), Just("silu".to_owned()), ".{0,12}"];
    let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), number, text.prop_map(Value::from)];
    let key = prop_oneof![Just("rope_type".to_owned()), Just("rope_theta".to_owned()), "[a-z_]{0,8}"];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..5).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// Keys that only some configs have.
const OTHER_KEYS: &[&str] = &[
    "attention_bias",
    "attention_chunk_size",
    "head_dim",
    "layer_types",
    "mlp_only_layers",
    "moe_layers",
    "n_group",
    "no_rope_layers",
    "num_key_value_heads",
    "partial_rotary_factor",
    "quantization_config",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "rotary_dim",
    "sliding_window",
    "topk_group",
    "use_sliding_window",
];

/// The config of any family.
fn any_config() -> impl Strategy<Value = Value> {
    let read = |name: &str| std::fs::read_to_string(golden("fixtures").join(name).join("config.json")).unwrap();
    let fixtures = FIXTURES.iter().map(|name| serde_json::from_str(&read(name)).unwrap());
    prop::sample::select(fixtures.chain([serde_json::from_str(&config_with(&[])).unwrap()]).collect::<Vec<Value>>())
}

/// The object to change: the whole, or one that is in it.
fn inside(config: &mut Value, nested: bool) -> &mut serde_json::Map<String, Value> {
    let sections = ["text_config", "attn_config", "ffn_config", "rope_scaling"];
    let section = sections.into_iter().find(|section| nested && config[section].is_object());
    match section {
        Some(section) => config[section].as_object_mut().unwrap(),
        None => config.as_object_mut().unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is accepted can also be counted.
    #[test]
    fn mutated_configs_never_panic(
        mut config in any_config(),
        changes in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>(), prop::option::of(any_json())), 0..4),
    ) {
        for (nested, index, value) in changes {
            let object = inside(&mut config, nested);
            let mut keys: Vec<String> = object.keys().cloned().collect();
            keys.extend(OTHER_KEYS.iter().map(|key| (*key).to_owned()));
            let key = index.get(&keys);
            match value {
                Some(value) => drop(object.insert(key.clone(), value)),
                None => drop(object.remove(key)),
            }
        }
        match ModelSpec::parse(&config.to_string(), "config.json") {
            Ok(spec) => {
                let counts = moebius::spec::Parameters::of(&spec);
                prop_assert!(counts.active() <= counts.total());
                prop_assert!(spec.weight_bytes(&moebius::quant::F32) >= 4 * counts.total());
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn mutated_config_text_never_panics(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = config_with(&[]).into_bytes();
        for (position, byte) in edits {
            let position = position.index(bytes.len());
            bytes[position] = byte;
        }
        if let Ok(spec) = ModelSpec::parse(&String::from_utf8_lossy(&bytes), "config.json") {
            prop_assert!(ARCHS.iter().any(|arch| arch.name == spec.family));
        }
    }
}
