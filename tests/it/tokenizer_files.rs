//! Files beside `tokenizer.json`, and what there is instead of it in older repositories.

use crate::common::golden;
use moebius::Error;
use moebius::generate::{ChatMessage, ChatTemplate, TextStream, Tokenizer, TokenizerFiles};
use pollster::block_on;
use serde_json::{Value, json};
use std::fs;

/// A tokenizer of 256 bytes without any special token.
fn bytes() -> String {
    fs::read_to_string(golden("tokenizers/bytes.json")).unwrap()
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn open(files: &[(&str, &str)]) -> Tokenizer {
    block_on(Tokenizer::open(folder(files).path())).unwrap()
}

fn added(content: &str, special: bool) -> Value {
    json!({ "content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": special })
}

#[test]
fn tokens_of_added_tokens_decoder_that_the_tokenizer_lacks_are_added() {
    let decoder = json!({ "256": added("<|user|>", true), "257": added("<|end|>", true), "258": added("<think>", false) });
    let config = json!({ "added_tokens_decoder": decoder, "eos_token": "<|end|>" }).to_string();
    let tokenizer = open(&[("tokenizer.json", &bytes()), ("tokenizer_config.json", &config)]);
    let ids = tokenizer.encode("a<|user|>b<think>c<|end|>", true).unwrap();
    assert_eq!(ids, [97, 256, 98, 258, 99, 257]);
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "ab<think>c");
    assert_eq!((tokenizer.eos_ids(), tokenizer.vocab_size(), tokenizer.notes()), (&[257][..], 259, &[][..]));
}

#[test]
fn special_tokens_map_counts_where_there_is_no_added_tokens_decoder() {
    let template = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}[assistant]";
    let config = json!({ "model_max_length": 2048, "chat_template": template }).to_string();
    let map = json!({ "bos_token": added("<s>", false), "eos_token": "</s>", "additional_special_tokens": ["<extra>", added("<more>", true)] }).to_string();
    let files = [("tokenizer.json", &*bytes()), ("tokenizer_config.json", &config), ("special_tokens_map.json", &map)];
    let tokenizer = open(&files);
    let prompt = ChatTemplate::of(&tokenizer).unwrap().render(&[ChatMessage::new("user", "Hi")], true).unwrap();
    assert_eq!(prompt, "<s>[user]Hi</s>[assistant]");
    let ids = tokenizer.encode("<s>x</s><extra><more>", false).unwrap();
    assert_eq!((ids.len(), ids.iter().filter(|&&id| tokenizer.is_special(id)).count()), (5, 4));
    assert_eq!(tokenizer.eos_ids(), [ids[2]]);

    let newer = json!({ "added_tokens_decoder": {}, "bos_token": "<b>" }).to_string();
    let tokenizer = open(&[files[0], ("tokenizer_config.json", &newer), files[2]]);
    assert_eq!((tokenizer.special_tokens().bos.as_deref(), tokenizer.special_tokens().eos.as_deref()), (Some("<b>"), None));
}

#[test]
fn added_tokens_json_gives_ids_and_gaps_are_filled() {
    let map = json!({ "eos_token": "<end>" }).to_string();
    let tokenizer = open(&[
        ("tokenizer.json", &bytes()),
        ("added_tokens.json", r#"{"<b>": 300, "<end>": 256}"#),
        ("special_tokens_map.json", &map),
    ]);
    assert_eq!(tokenizer.encode("<end>a<b>", true).unwrap(), [256, 97, 300]);
    assert!(tokenizer.is_special(256) && !tokenizer.is_special(300));
    assert_eq!(tokenizer.decode(&[97, 280, 98], true).unwrap(), "ab");
}

#[test]
fn what_cannot_be_honoured_is_said() {
    let notes = |config: Value, model: Option<&str>| {
        let (config, bytes) = (config.to_string(), bytes());
        let files = TokenizerFiles { tokenizer: &bytes, tokenizer_config: Some(&config), config: model, ..Default::default() };
        Tokenizer::from_parts(&files).unwrap().notes().join("\n")
    };
    let decoder = |id: &str, token: &str| json!({ "added_tokens_decoder": { id: added(token, true) } });
    assert!(notes(decoder("97", "<x>"), None).contains("cannot have its id 97"));
    assert!(notes(decoder("4294967295", "<x>"), None).contains("cannot have its id 4294967295"));
    assert!(notes(decoder("300", "<x>"), Some(r#"{"vocab_size": 264}"#)).contains("no row for"));
    assert!(notes(decoder("98", "a"), None).contains("97 is used"));
    assert!(notes(decoder("x", "a"), None).contains("no token"));
    assert!(notes(json!({ "pad_token": "[PAD]" }), Some(r#"{"vocab_size": 256}"#)).contains("[PAD]"));
    assert!(notes(json!({ "bos_token": 7 }), None).contains("bos_token"));
    assert_eq!(
        notes(json!({ "bos_token": null, "add_bos_token": false, "pad_token": "[PAD]" }), Some(r#"{"vocab_size": "many"}"#)),
        ""
    );
}

#[test]
fn chat_templates_are_read_from_every_place_that_transformers_reads() {
    let bytes = bytes();
    let of = |files: &[(&str, &str)]| {
        let all = [&[("tokenizer.json", bytes.as_str())], files].concat();
        let tokenizer = open(&all);
        (tokenizer.chat_template().map(str::to_owned), tokenizer.named_template("tool_use").map(str::to_owned))
    };
    let pair = |default: &str, tools: Option<&str>| (Some(default.to_owned()), tools.map(str::to_owned));
    let list = r#"{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#;
    assert_eq!(of(&[("tokenizer_config.json", list)]), pair("d", Some("t")));
    assert_eq!(of(&[("tokenizer_config.json", list), ("chat_template.jinja", "\u{feff}file")]), pair("file", None));
    assert_eq!(of(&[("chat_template.json", r#"{"chat_template": "json"}"#)]), pair("json", None));
    assert_eq!(
        of(&[("chat_template.json", r#"{"chat_template": "json"}"#), ("tokenizer_config.json", list)]),
        pair("d", Some("t"))
    );
    let folder = [("chat_template.jinja", "file"), ("additional_chat_templates/tool_use.jinja", "tools")];
    assert_eq!(of(&folder), pair("file", Some("tools")));
    assert_eq!(of(&[("tokenizer_config.json", "\u{feff}{\"chat_template\": null}")]), (None, None));

    let tokenizer = open(&[("tokenizer.json", &bytes), folder[0], folder[1]]);
    let template = ChatTemplate::of(&tokenizer).unwrap();
    let request = |tools| moebius::generate::ChatRequest { tools, ..Default::default() };
    assert_eq!(template.render_with(&request(None)).unwrap(), "file");
    assert_eq!(template.render_with(&request(Some(&[]))).unwrap(), "tools");
}

#[test]
fn vocab_and_merges_of_gpt2_and_qwen2_are_read_and_of_others_refused() {
    let vocab = r#"{"a": 0, "b": 1, "c": 2, "Ġ": 3, "ab": 4, "Ġab": 5, "1": 6, "<|endoftext|>": 7}"#;
    let merges = "#version: 0.2\na b\nĠ ab\n";
    let tokenizer = |class: &str| {
        let config = json!({ "tokenizer_class": class, "eos_token": "<|endoftext|>" }).to_string();
        let files = [("vocab.json", vocab), ("merges.txt", merges), ("tokenizer_config.json", &*config)];
        block_on(Tokenizer::open(folder(&files).path()))
    };
    for class in ["GPT2Tokenizer", "GPT2TokenizerFast", "Qwen2Tokenizer"] {
        let tokenizer = tokenizer(class).unwrap();
        let ids = tokenizer.encode("ab abc<|endoftext|>11", true).unwrap();
        assert_eq!(ids, [4, 5, 2, 7, 6, 6], "{class}");
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), "ab abc11");
        assert_eq!(tokenizer.eos_ids(), [7]);
    }
    let error = tokenizer("CodeGenTokenizer").unwrap_err();
    assert!(error.to_string().contains("CodeGenTokenizer") && error.hint().unwrap().contains("save_pretrained"), "{error}");
    let damaged =
        [("vocab.json", "{"), ("merges.txt", merges), ("tokenizer_config.json", r#"{"tokenizer_class": "GPT2Tokenizer"}"#)];
    assert!(matches!(block_on(Tokenizer::open(folder(&damaged).path())).unwrap_err(), Error::Json { .. }));
}

/// The decoder of Llama and Mixtral: a space before the first word is taken off.
pub fn with_space_in_front() -> String {
    let special = |id: u32, content: &str| {
        let mut token = added(content, true);
        token["id"] = json!(id);
        token
    };
    let words = ["<unk>", "<s>", "</s>", "▁", "a", "b", "c", "▁a", "▁b", "▁c", "<0xC3>", "<0xA9>"];
    let vocab: serde_json::Map<String, Value> =
        words.iter().enumerate().map(|(id, word)| (word.to_string(), json!(id))).collect();
    let decoders = json!([{ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }, { "type": "ByteFallback" }, { "type": "Fuse" }, { "type": "Strip", "content": " ", "start": 1, "stop": 0 }]);
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "pre_tokenizer": { "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": false },
        "post_processor": null, "decoder": { "type": "Sequence", "decoders": decoders },
        "model": { "type": "BPE", "dropout": null, "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": false, "vocab": vocab, "merges": ["▁ a", "▁ b", "▁ c"] },
    })
    .to_string()
}

#[test]
fn new_text_continues_the_prompt_with_its_space() {
    let json = with_space_in_front();
    let tokenizer = Tokenizer::from_parts(&TokenizerFiles { tokenizer: &json, ..Default::default() }).unwrap();
    let prompt = tokenizer.encode("a b c", false).unwrap();
    let text = |prompt: &[u32], new: &[u32]| {
        let mut stream = TextStream::after(&tokenizer, prompt, true).unwrap();
        let mut text: String = new.iter().map(|&id| stream.push(id).unwrap()).collect();
        text += &stream.flush().unwrap();
        text
    };
    assert_eq!(text(&prompt, &[7, 8]), " a b");
    // After nothing but control tokens a text begins.
    assert_eq!(text(&[1], &[7, 8]), "a b");
    assert_eq!(text(&[], &[7, 8]), "a b");
    // Control tokens in between change nothing.
    assert_eq!(text(&[prompt.as_slice(), &[2, 1]].concat(), &[2, 7]), " a");
    // A character that began in the prompt, and a space that ends it.
    assert_eq!(text(&[4, 10], &[11, 5]), "éb");
    assert_eq!(text(&[4, 3], &[4]), "a");
    assert_eq!(text(&[3], &[7]), " a");
}
