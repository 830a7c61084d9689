//! Tokenizers of the older layout: `vocab.json` and `merges.txt`, as GPT-2 and Qwen2 have them.

use super::tokenizer_config::parse;
use super::tokenizer_files::{CONVERT, TOKENIZER, TOKENIZER_CONFIG};
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};

/// How Qwen2 cuts a text into words, after `tokenization_qwen2.py` of transformers.
const QWEN2_WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const END_OF_TEXT: &str = "<|endoftext|>";

/// The `tokenizer.json` that transformers would write for these two files.
///
/// # Errors
/// [`Error::Tokenizer`] for classes of tokenizers that are not known, or for damaged files.
pub fn tokenizer_json(vocab: &str, merges: &str, tokenizer_config: Option<&str>) -> Result<String> {
    let settings: Map<String, Value> = parse(TOKENIZER_CONFIG, tokenizer_config)?;
    let class = settings.get("tokenizer_class").and_then(Value::as_str).unwrap_or("not named");
    let adds_space = settings.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(false);
    let bytes = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": adds_space, "trim_offsets": true, "use_regex": use_regex });
    let (normalizer, words) = match class.strip_suffix("Fast").unwrap_or(class) {
        "GPT2Tokenizer" => (Value::Null, bytes(true)),
        "Qwen2Tokenizer" => {
            let split = json!({ "type": "Split", "pattern": { "Regex": QWEN2_WORDS }, "behavior": "Isolated", "invert": false });
            (json!({ "type": "NFC" }), json!({ "type": "Sequence", "pretokenizers": [split, bytes(false)] }))
        }
        _ => {
            return Err(Error::Tokenizer {
                problem: format!(
                    "there is no {TOKENIZER}, only vocab.json and merges.txt, which are read for GPT2Tokenizer and Qwen2Tokenizer; the \
                     tokenizer_class of {TOKENIZER_CONFIG} is {class}"
                ),
                hint: Some(format!("write {TOKENIZER} with Python, DIR being the folder of the model: {CONVERT}")),
            });
        }
    };
    let vocab: Map<String, Value> = parse("vocab.json", Some(vocab))?;
    // Both classes know this token whether or not their settings name it.
    let added: Vec<Value> = vocab.get(END_OF_TEXT).into_iter().map(|id| {
        json!({ "id": id, "content": END_OF_TEXT, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true })
    }).collect();
    let merges: Vec<&str> = merges.lines().filter(|line| !line.is_empty() && !line.starts_with("#version")).collect();
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "",
        "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": merges,
    });
    let post = json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true });
    let decoder = json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true });
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": words, "post_processor": post, "decoder": decoder, "model": model,
    })
    .to_string())
}
