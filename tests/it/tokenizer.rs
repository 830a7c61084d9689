//! Tokenizers against the ids that transformers gave, and against damage.

use crate::common::{FIXTURES, demo_model, golden};
use moebius::Error;
use moebius::generate::{Tokenizer, TokenizerFiles};
use pollster::block_on;
use serde_json::{Value, json};
use std::path::Path;

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn demo_json() -> String {
    read(&demo_model().join("tokenizer.json"))
}

/// The demo tokenizer without the post-processor that adds `<s>`.
fn demo_without_post_processor() -> String {
    let mut json: Value = serde_json::from_str(&demo_json()).unwrap();
    json["post_processor"] = Value::Null;
    json.to_string()
}

#[test]
fn the_demo_prompts_give_the_stored_ids_and_the_stored_continuations() {
    let tokenizer = block_on(Tokenizer::open(&demo_model())).unwrap();
    let expected: Value = serde_json::from_str(&read(&demo_model().join("expected.json"))).unwrap();
    let prompts = expected.as_array().unwrap();
    assert_eq!(prompts.len(), 5);
    for case in prompts {
        let prompt = case["prompt"].as_str().unwrap();
        assert_eq!(tokenizer.encode(prompt, true).unwrap(), ids(&case["ids"]), "{prompt}");
        assert_eq!(tokenizer.encode(prompt, false).unwrap(), ids(&case["ids"])[1..], "{prompt}");
        assert_eq!(tokenizer.decode(&ids(&case["ids"]), true).unwrap(), prompt);
        assert_eq!(tokenizer.decode(&ids(&case["greedy"]), true).unwrap(), case["text"].as_str().unwrap());
    }
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_ids(), tokenizer.vocab_size()), (Some(1), &[2][..], 4096));
    assert_eq!(tokenizer.special_tokens().unk.as_deref(), Some("<unk>"));
    assert_eq!(tokenizer.token_text(263).as_deref(), Some("Ġthe"));
    assert_eq!((tokenizer.token_text(4096), tokenizer.is_special(1), tokenizer.is_special(263)), (None, true, false));
    let defaults = tokenizer.generation_defaults();
    assert_eq!(
        (defaults.do_sample, defaults.temperature, defaults.top_p, defaults.top_k),
        (Some(true), Some(0.8), Some(0.95), None)
    );
}

#[test]
fn the_fixtures_texts_encode_and_decode_as_in_transformers() {
    for name in FIXTURES.iter() {
        let tokenizer = block_on(Tokenizer::open(&golden(&format!("fixtures/{name}")))).unwrap();
        let expected: Value = serde_json::from_str(&read(&golden(&format!("fixtures/{name}")).join("expected.json"))).unwrap();
        let cases = expected["tokenizer"]["cases"].as_array().unwrap();
        assert!(cases.len() >= 10);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text, true).unwrap(), ids(&case["ids"]), "{name}: {text:?}");
            assert_eq!(tokenizer.encode(text, false).unwrap(), ids(&case["ids_no_special"]), "{name}: {text:?}");
            assert_eq!(
                tokenizer.decode(&ids(&case["ids"]), true).unwrap(),
                case["decoded"].as_str().unwrap(),
                "{name}: {text:?}"
            );
        }
        for case in expected["greedy"].as_array().unwrap() {
            // With the special tokens that random weights choose.
            assert_eq!(tokenizer.decode(&ids(&case["ids"]), false).unwrap(), case["text"].as_str().unwrap(), "{name}");
        }
        // One row of the embedding table has no token.
        assert_eq!(tokenizer.decode(&[tokenizer.vocab_size() as u32], true).unwrap(), "");
    }
}

#[test]
fn bos_is_prepended_where_only_the_config_asks_for_it() {
    let open = |add_bos: Value| {
        let config = json!({ "bos_token": "<s>", "add_bos_token": add_bos }).to_string();
        let tokenizer = demo_without_post_processor();
        Tokenizer::from_parts(&TokenizerFiles { tokenizer: &tokenizer, tokenizer_config: Some(&config), ..Default::default() })
            .unwrap()
    };
    assert_eq!(open(json!(true)).encode("In the", true).unwrap(), [1, 990, 263]);
    assert_eq!(open(json!(true)).encode("", true).unwrap(), [1]);
    assert_eq!(open(json!(true)).encode("In the", false).unwrap(), [990, 263]);
    assert_eq!(open(json!(false)).encode("In the", true).unwrap(), [990, 263]);
    assert_eq!(open(json!(null)).encode("In the", true).unwrap(), [990, 263]);
}

#[test]
fn eos_comes_from_generation_config_before_config_and_always_from_the_tokenizer() {
    let json = demo_json();
    let eos = |tokenizer_config: Option<&str>, generation_config: Option<&str>, config: Option<&str>| {
        let files = TokenizerFiles { tokenizer: &json, tokenizer_config, generation_config, config, ..Default::default() };
        Tokenizer::from_parts(&files).map(|tokenizer| tokenizer.eos_ids().to_vec())
    };
    assert_eq!(eos(None, None, None).unwrap(), [] as [u32; 0]);
    assert_eq!(eos(None, None, Some(r#"{"eos_token_id": 7}"#)).unwrap(), [7]);
    assert_eq!(eos(None, None, Some(r#"{"text_config": {"eos_token_id": [9, 8]}}"#)).unwrap(), [8, 9]);
    assert_eq!(eos(None, Some(r#"{"eos_token_id": [6, 5, 6]}"#), Some(r#"{"eos_token_id": 7}"#)).unwrap(), [5, 6]);
    assert_eq!(eos(Some(r#"{"eos_token": {"content": "</s>"}}"#), Some(r#"{"eos_token_id": 6}"#), None).unwrap(), [2, 6]);
    for damage in ["{", "[]1", "[]"] {
        let error = eos(None, Some(damage), None).unwrap_err();
        assert!(matches!(&error, Error::Json { file, .. } if file == "generation_config.json"), "{damage}: {error}");
    }
}

#[test]
fn values_that_cannot_be_used_are_left_aside_with_a_note() {
    let json = demo_json();
    let open = |generation_config: &str| {
        let config = Some(r#"{"eos_token_id": 7, "time_limit": Infinity}"#);
        let files = TokenizerFiles { tokenizer: &json, generation_config: Some(generation_config), config, ..Default::default() };
        Tokenizer::from_parts(&files).unwrap()
    };
    for id in ["-1", "\"two\"", "4294967296", "[]", "[-1]", "2.5"] {
        let tokenizer = open(&format!(r#"{{"eos_token_id": {id}}}"#));
        assert_eq!(tokenizer.eos_ids(), [7], "{id}");
        assert_eq!(tokenizer.notes().len(), usize::from(id != "[]"), "{id}: {:?}", tokenizer.notes());
    }
    let tokenizer =
        open(r#"{"eos_token_id": [2, -1], "do_sample": true, "temperature": 0.6, "top_k": -1, "top_p": 7, "min_p": "x"}"#);
    assert_eq!(tokenizer.eos_ids(), [2]);
    let defaults = tokenizer.generation_defaults();
    assert_eq!((defaults.temperature, defaults.top_k, defaults.top_p, defaults.min_p), (Some(0.6), None, None, None));
    for key in ["eos_token_id", "top_k", "top_p", "min_p"] {
        let said =
            |note: &String| note.starts_with("generation_config.json: `") && note.contains(key) && note.contains("left aside");
        assert!(tokenizer.notes().iter().any(said), "{key}: {:?}", tokenizer.notes());
    }
    let tokenizer = open(r#"{"top_k": 20.0, "temperature": null}"#);
    assert_eq!(tokenizer.generation_defaults().top_k, Some(20));
    assert!(tokenizer.notes().is_empty());
}

#[test]
fn a_chat_template_file_wins_and_a_list_gives_its_default() {
    let json = demo_json();
    let template = |config: Value, chat_template: Option<&str>| {
        let config = config.to_string();
        let files = TokenizerFiles { tokenizer: &json, tokenizer_config: Some(&config), chat_template, ..Default::default() };
        Tokenizer::from_parts(&files).unwrap().chat_template().map(str::to_owned)
    };
    assert_eq!(template(json!({}), None), None);
    assert_eq!(template(json!({ "chat_template": "one" }), None).as_deref(), Some("one"));
    assert_eq!(template(json!({ "chat_template": "one" }), Some("file")).as_deref(), Some("file"));
    let list = json!([{ "name": "tool_use", "template": "tools" }, { "name": "default", "template": "plain" }]);
    assert_eq!(template(json!({ "chat_template": list }), None).as_deref(), Some("plain"));
    assert_eq!(template(json!({ "chat_template": [] }), None), None);
}

#[test]
fn truncation_and_padding_of_the_file_are_not_applied_to_prompts() {
    let mut json: Value = serde_json::from_str(&demo_json()).unwrap();
    json["truncation"] = json!({ "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0 });
    json["padding"] = json!({ "strategy": { "Fixed": 8 }, "direction": "Left", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>" });
    let json = json.to_string();
    let tokenizer = Tokenizer::from_parts(&TokenizerFiles { tokenizer: &json, ..Default::default() }).unwrap();
    assert_eq!(tokenizer.encode("In the beginning", true).unwrap(), [1, 990, 263, 3288]);
    assert_eq!(tokenizer.encode("In", true).unwrap(), [1, 990]);
}

#[test]
fn a_directory_without_tokenizer_json_says_what_lies_there_instead_and_how_to_convert_it() {
    let dir = tempfile::tempdir().unwrap();
    let error = block_on(Tokenizer::open(dir.path())).unwrap_err();
    assert!(error.to_string().contains("has no tokenizer.json"), "{error}");
    std::fs::write(dir.path().join("tekken.json"), "{}").unwrap();
    let error = block_on(Tokenizer::open(dir.path())).unwrap_err();
    assert!(error.to_string().contains("only tekken.json"), "{error}");
    assert!(error.hint().unwrap().contains("convert tekken.json to tokenizer.json"), "{error}");
    assert!(error.hint().unwrap().contains("save_pretrained"), "{error}");
}

#[test]
fn damaged_tokenizers_are_errors_and_never_panics() {
    let whole = demo_json();
    let small: Value = {
        // A vocabulary of single bytes keeps every one of the many parses below cheap.
        let mut json: Value = serde_json::from_str(&whole).unwrap();
        json["model"]["vocab"] = json!({ "<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, "ab": 5 });
        json["model"]["merges"] = json!([["a", "b"]]);
        json
    };
    let text = small.to_string();
    let open = |json: &str| Tokenizer::from_parts(&TokenizerFiles { tokenizer: json, ..Default::default() });
    assert_eq!(open(&text).unwrap().encode("ab", false).unwrap(), [5]);
    for cut in (0..text.len()).step_by(7) {
        assert!(matches!(open(&text[..cut]).unwrap_err(), Error::Tokenizer { .. }), "cut at {cut}");
    }
    let damages: [(&str, Value); 12] = [
        ("/model", json!(null)),
        ("/model/type", json!("Nonsense")),
        ("/model/vocab", json!([])),
        ("/model/vocab/a", json!(-1)),
        ("/model/vocab/a", json!(4294967295u32)),
        ("/model/merges", json!([["a", "missing"]])),
        ("/model/merges", json!(["a b c"])),
        ("/added_tokens/1/id", json!(77)),
        ("/added_tokens/1/content", json!("")),
        ("/pre_tokenizer", json!({ "type": "Split", "pattern": { "Regex": "(" }, "behavior": "Isolated", "invert": false })),
        ("/post_processor/special_tokens", json!({})),
        ("/decoder", json!({ "type": "Strip", "content": "long", "start": 1, "stop": 0 })),
    ];
    for (pointer, value) in damages {
        let mut json = small.clone();
        *json.pointer_mut(pointer).unwrap() = value.clone();
        // Some damage leaves a usable tokenizer: then it has to work.
        match open(&json.to_string()) {
            Ok(tokenizer) => drop(tokenizer.encode("ab <s> c", true).and_then(|ids| tokenizer.decode(&ids, false))),
            Err(error) => assert!(matches!(error, Error::Tokenizer { .. }), "{pointer} = {value}: {error}"),
        }
    }
}
