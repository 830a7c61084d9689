//! Tokenizers from the metadata of GGUF files, against the ids that llama.cpp gave.

use crate::common::{GgufFile, GgufValue, golden};
use moebius::checkpoint::gguf::Gguf;
use moebius::generate::{ChatTemplate, Tokenizer};
use moebius::{Error, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

/// Models with stored ids, and the file with their vocabulary: some have the same.
const SOURCES: [(&str, &str); 11] = [
    ("mixtral", "mixtral"),
    ("phimoe", "mixtral"),
    ("qwen2_moe", "qwen2_moe"),
    ("qwen3_moe", "qwen2_moe"),
    ("olmoe", "olmoe"),
    ("deepseek_v2", "deepseek_v2_lite"),
    ("deepseek_v2_lite", "deepseek_v2_lite"),
    ("deepseek_v3", "deepseek_v3"),
    ("granitemoe", "granitemoe"),
    ("glm4_moe", "glm4_moe"),
    ("gpt_oss", "gpt_oss"),
];

/// Models whose own tokenizers bring a text to NFC, which llama.cpp does not, and the one stored text where that shows.
const NORMALIZED: [&str; 3] = ["qwen2_moe", "qwen3_moe", "olmoe"];
const COMBINING: &str = "combining";

fn read(path: &Path) -> Result<Tokenizer> {
    Tokenizer::from_gguf(pollster::block_on(Gguf::open(path))?.metadata())
}

fn stored(name: &str) -> Tokenizer {
    read(&golden(&format!("gguf/tokenizers/{name}.gguf"))).unwrap()
}

fn made(file: &GgufFile) -> Result<Tokenizer> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made.gguf");
    std::fs::write(&path, file.bytes()).unwrap();
    read(&path)
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn texts_have_the_ids_that_llama_cpp_gives_them() {
    let all: Value = serde_json::from_str(&std::fs::read_to_string(golden("gguf/tokenizers.json")).unwrap()).unwrap();
    assert_eq!(
        all.as_object().unwrap().keys().map(String::as_str).collect::<BTreeSet<_>>(),
        BTreeSet::from(SOURCES.map(|(name, _)| name))
    );
    let mut wrong = Vec::new();
    let (mut num_texts, mut normalized) = (0, 0);
    for (name, file) in SOURCES {
        let tokenizer = stored(file);
        assert_eq!(tokenizer.adds_bos(), all[name]["add_bos"] == "1" || all[name]["add_bos"] == 1, "{name}");
        for case in all[name]["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            num_texts += 1;
            let found = (tokenizer.encode(text, true).unwrap(), tokenizer.encode(text, false).unwrap());
            if NORMALIZED.contains(&name) && text.starts_with(COMBINING) {
                // As the composed letters.
                assert_eq!(found.1, tokenizer.encode("combining \u{e9} \u{e5} \u{f1}", false).unwrap(), "{name}");
                assert_ne!(found.1, ids(&case["ids_no_special"]), "{name}");
                normalized += 1;
            } else if found != (ids(&case["ids"]), ids(&case["ids_no_special"])) {
                wrong.push(format!("{name} {text:?}: expected {}, found {:?}", case["ids"], found.0));
            }
            // SentencePiece cannot tell a mark of its own from a space, nor a space behind a special token from its own.
            let is_altered = NORMALIZED.contains(&name) || (file == "mixtral" && text.contains(['▁', '<']));
            let decoded = tokenizer.decode(&found.1, false).unwrap();
            if !is_altered && decoded != text {
                wrong.push(format!("{name} {text:?}: decoded {decoded:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {num_texts}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!((num_texts, normalized), (550, 3));
}

#[test]
fn answers_end_with_every_token_that_the_file_names_or_spells() {
    let texts = |name: &str| {
        let tokenizer = stored(name);
        tokenizer.eos_ids().iter().map(|id| tokenizer.token_text(*id).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(texts("mixtral"), ["</s>"]);
    assert_eq!(texts("qwen2_moe"), ["<|endoftext|>", "<|im_end|>"]);
    assert_eq!(texts("glm4_moe"), ["<|endoftext|>", "<|user|>", "<|observation|>"]);
    // Where there is `<|return|>`, `<|end|>` ends a message only, and an answer begins with the thoughts.
    assert_eq!(texts("gpt_oss"), ["<|return|>"]);
    assert_eq!(texts("granitemoe"), ["<|end_of_text|>"]);
    let phi = byte_level(&["<|end|>", "<|endoftext|>"]).with("tokenizer.ggml.eos_token_id", GgufValue::u32(257));
    assert_eq!(made(&phi).unwrap().eos_ids(), [256, 257]);
}

#[test]
fn texts_begin_as_the_file_says_or_as_its_kind_does() {
    let begins = |file: GgufFile| {
        let tokenizer = made(&file).unwrap();
        let with = tokenizer.encode("!", true).unwrap();
        assert_eq!(tokenizer.encode("!", false).unwrap(), [33]);
        assert_eq!(tokenizer.adds_bos(), with[0] == 256);
        assert_eq!(tokenizer.encode("", true).unwrap(), with.iter().copied().filter(|id| *id != 33).collect::<Vec<_>>());
        with
    };
    let file = || {
        let file = byte_level(&["<b>", "<e>"]).with("tokenizer.ggml.bos_token_id", GgufValue::u32(256));
        file.with("tokenizer.ggml.eos_token_id", GgufValue::u32(257))
    };
    let add =
        |file: GgufFile, name: &str, value: bool| file.with(&format!("tokenizer.ggml.add_{name}_token"), GgufValue::bool(value));
    assert_eq!(begins(file()), [33]);
    assert_eq!(begins(add(file(), "bos", true)), [256, 33]);
    assert_eq!(begins(add(file(), "eos", true)), [33, 257]);
    assert_eq!(begins(add(add(file(), "eos", true), "bos", true)), [256, 33, 257]);
    assert_eq!(begins(file().with("tokenizer.ggml.pre", GgufValue::text("llama-bpe"))), [256, 33]);
    assert_eq!(begins(add(file().with("tokenizer.ggml.pre", GgufValue::text("llama-bpe")), "bos", false)), [33]);
    let mixtral = stored("mixtral");
    assert_eq!((mixtral.adds_bos(), mixtral.bos_id()), (true, Some(1)));
    assert_eq!(mixtral.special_tokens().bos.as_deref(), Some("<s>"));
    assert_eq!(mixtral.special_tokens().unk.as_deref(), Some("<unk>"));
    assert!(mixtral.is_special(0) && mixtral.is_special(1) && !mixtral.is_special(300));
}

#[test]
fn a_space_is_put_before_a_sentence_piece_text_unless_the_file_says_no() {
    let with = |prefix: Option<bool>| {
        let file = sentence_piece(&[("▁", -1.0), ("a", -2.0), ("▁a", -3.0)]);
        made(&prefix.into_iter().fold(file, |file, value| file.with("tokenizer.ggml.add_space_prefix", GgufValue::bool(value))))
            .unwrap()
    };
    for (prefix, expected) in [(None, [5]), (Some(true), [5]), (Some(false), [4])] {
        let tokenizer = with(prefix);
        assert_eq!(tokenizer.encode("a", false).unwrap(), expected);
        assert_eq!(tokenizer.decode(&[expected[0], 5], false).unwrap(), "a a");
    }
}

#[test]
fn merges_follow_the_scores() {
    // The pair that makes the better token is merged first, wherever it is.
    let tokens = [("▁", -9.0), ("a", -9.0), ("b", -9.0), ("c", -9.0), ("ab", -2.0), ("bc", -1.0), ("abc", -3.0)];
    let tokenizer = made(&sentence_piece(&tokens).with("tokenizer.ggml.add_space_prefix", GgufValue::bool(false))).unwrap();
    let spelled = |text: &str| {
        let ids = tokenizer.encode(text, false).unwrap();
        ids.into_iter().map(|id| tokenizer.token_text(id).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(spelled("ab"), ["ab"]);
    assert_eq!(spelled("abc"), ["abc"]);
    assert_eq!(spelled("abb"), ["ab", "b"]);
    assert_eq!(spelled("aabcc"), ["a", "abc", "c"]);
    // What has no token: an unknown one, because there are no tokens for bytes.
    assert_eq!(spelled("xaxx"), ["<unk>", "a", "<unk>"]);
}

#[test]
fn templates_and_sampling_come_along() {
    let file = byte_level(&["<|im_end|>"])
        .with("tokenizer.ggml.eos_token_id", GgufValue::u32(256))
        .with("tokenizer.chat_templates", GgufValue::texts(&["tool_use", "absent"]))
        .with("tokenizer.chat_template.tool_use", GgufValue::text("tools"))
        .with("tokenizer.chat_template", GgufValue::text("{{ messages[0].content }}{{ eos_token }}"))
        .with("general.sampling.temp", GgufValue::f32(0.5))
        .with("general.sampling.top_k", GgufValue::i32(20))
        .with("general.sampling.top_p", GgufValue::f32(0.75));
    let tokenizer = made(&file).unwrap();
    assert_eq!(tokenizer.named_template("tool_use"), Some("tools"));
    assert_eq!(tokenizer.named_template("absent"), None);
    let message = moebius::generate::ChatMessage::new("user", "hello");
    assert_eq!(ChatTemplate::of(&tokenizer).unwrap().render(&[message], true).unwrap(), "hello<|im_end|>");
    let defaults = tokenizer.generation_defaults();
    assert_eq!(
        (defaults.do_sample, defaults.temperature, defaults.top_k, defaults.top_p),
        (Some(true), Some(0.5), Some(20), Some(0.75))
    );
    assert!(tokenizer.notes().is_empty());
    let without = made(&byte_level(&[])).unwrap();
    assert!(ChatTemplate::of(&without).unwrap().is_plain());
    assert_eq!(without.generation_defaults().do_sample, None);
}

/// How GPT-2 writes a byte: as a character that can be seen.
fn seen_byte(byte: u8) -> char {
    let is_shown = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let hidden_before = (0..byte).filter(|byte| !is_shown(*byte)).count() as u32;
    if is_shown(byte) { char::from(byte) } else { char::from_u32(256 + hidden_before).unwrap() }
}

fn seen(text: &str) -> String {
    text.bytes().map(seen_byte).collect()
}

/// A byte-level tokenizer without merges, where a byte has itself as its id; the tokens behind those are control tokens.
fn byte_level(special: &[&str]) -> GgufFile {
    let mut tokens: Vec<String> = (0..=255).map(|byte| seen_byte(byte).to_string()).collect();
    tokens.extend(special.iter().map(|&token| token.to_owned()));
    let kinds: Vec<GgufValue> = (0..tokens.len()).map(|id| GgufValue::i32(if id < 256 { 1 } else { 3 })).collect();
    GgufFile::llama()
        .with("tokenizer.ggml.model", GgufValue::text("gpt2"))
        .with("tokenizer.ggml.pre", GgufValue::text("qwen2"))
        .with("tokenizer.ggml.tokens", GgufValue::texts(&tokens))
        .with("tokenizer.ggml.token_type", GgufValue::array(&kinds))
        .with("tokenizer.ggml.merges", GgufValue::texts(&["! !"; 0]))
}

/// A SentencePiece tokenizer with `<unk>`, `<s>` and `</s>` before the tokens.
fn sentence_piece(tokens: &[(&str, f32)]) -> GgufFile {
    let all: Vec<(&str, f32)> = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)].into_iter().chain(tokens.iter().copied()).collect();
    let kinds: Vec<GgufValue> = (0..all.len()).map(|id| GgufValue::i32([2, 3, 3].get(id).copied().unwrap_or(1))).collect();
    GgufFile::llama()
        .with("tokenizer.ggml.model", GgufValue::text("llama"))
        .with("tokenizer.ggml.tokens", GgufValue::texts(&all.iter().map(|(text, _)| *text).collect::<Vec<_>>()))
        .with("tokenizer.ggml.scores", GgufValue::array(&all.iter().map(|(_, score)| GgufValue::f32(*score)).collect::<Vec<_>>()))
        .with("tokenizer.ggml.token_type", GgufValue::array(&kinds))
        .with("tokenizer.ggml.bos_token_id", GgufValue::u32(1))
        .with("tokenizer.ggml.eos_token_id", GgufValue::u32(2))
}

/// How the rule `pre` cuts `text`: a tokenizer in which everything within a word can be merged.
fn words(pre: &str, text: &str) -> Vec<String> {
    let characters: Vec<char> = seen(text).chars().collect();
    let piece = |from: usize, to: usize| characters[from..to].iter().collect::<String>();
    let mut tokens: BTreeMap<(usize, String), BTreeSet<String>> = BTreeMap::new();
    for from in 0..characters.len() {
        for to in from + 1..=characters.len() {
            let splits = tokens.entry((to - from, piece(from, to))).or_default();
            splits.extend((from + 1..to).map(|at| format!("{} {}", piece(from, at), piece(at, to))));
        }
    }
    let merges: Vec<&String> = tokens.values().flatten().collect();
    let names: Vec<&String> = tokens.keys().map(|(_, token)| token).collect();
    let file = GgufFile::llama()
        .with("tokenizer.ggml.model", GgufValue::text("gpt2"))
        .with("tokenizer.ggml.pre", GgufValue::text(pre))
        .with("tokenizer.ggml.tokens", GgufValue::texts(&names))
        .with("tokenizer.ggml.merges", GgufValue::texts(&merges));
    let tokenizer = made(&file).unwrap();
    let ids = tokenizer.encode(text, false).unwrap();
    ids.iter().map(|id| tokenizer.decode(&[*id], false).unwrap()).collect()
}

#[test]
fn every_rule_cuts_words_as_its_family_does() {
    for (pre, text, expected) in [
        ("gpt-2", "ab12345 it's", &["ab", "12345", " it", "'s"][..]),
        ("smollm", "ab 123", &["ab", " ", "1", "2", "3"]),
        ("llama-bpe", "ab12345 IT'S", &["ab", "123", "45", " IT", "'S"]),
        ("glm4", "x\n\n y", &["x", "\n\n", " y"]),
        ("qwen2", "ab12 (c)", &["ab", "1", "2", " (", "c", ")"]),
        ("gpt-4o", "CamelCase'll /\n", &["Camel", "Case'll", " /\n"]),
        ("tekken", "isn't 12", &["isn", "'t", " ", "1", "2"]),
        ("kimi-k2", "ab\u{6c49}\u{5b57}c 1234", &["ab", "\u{6c49}\u{5b57}", "c", " ", "123", "4"]),
        ("deepseek-v3", "a,b 1234\u{4e2d}", &["a", ",b", " ", "123", "4", "\u{4e2d}"]),
        ("deepseek-llm", "ab, 123\n", &["ab", ",", " ", "123", "\n"]),
        ("deepseek-coder", "ab 12\n", &["ab", " ", "1", "2", "\n"]),
        ("bailingmoe2", "it'LL 12\n\n", &["it", "'LL", " ", "1", "2", "\n\n"]),
        ("afmoe", "12345 a", &["12", "345", " a"]),
        ("afmoe", "1234567\u{e01}\u{e02}", &["1", "234", "567", "\u{e01}\u{e02}"]),
        ("exaone-moe", "one two 12/", &["one two", " ", "1", "2", "/"]),
        ("seed-coder", "a!\n", &["a", "!", "\n"]),
        ("superbpe", "of the 12345", &["of the ", "12", "345"]),
        ("default", "ab+12345", &["ab", "+", "123", "45"]),
    ] {
        assert_eq!(words(pre, text), expected, "{pre}");
    }
}

#[test]
fn a_file_that_does_not_name_its_rule_is_read_with_a_note() {
    for file in
        [byte_level(&[]).without("tokenizer.ggml.pre"), byte_level(&[]).with("tokenizer.ggml.pre", GgufValue::text("default"))]
    {
        let tokenizer = made(&file).unwrap();
        assert_eq!(tokenizer.notes().len(), 1);
        assert!(tokenizer.notes()[0].contains("`tokenizer.ggml.pre`"), "{:?}", tokenizer.notes());
    }
}

#[test]
fn rules_and_kinds_that_are_not_known_are_refused_by_name() {
    let error = made(&byte_level(&[]).with("tokenizer.ggml.pre", GgufValue::text("bert-\u{1b}[31m"))).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains(r"`tokenizer.ggml.pre` is `bert-\u{1b}[31m`, which this version does not know; known: a.x-4.0, "),
        "{message}"
    );
    assert!(error.hint().unwrap().contains("tokenizer.json"));
    // All that it says it knows.
    for name in message.split_once("known: ").unwrap().1.split(", ") {
        let tokenizer = made(&byte_level(&[]).with("tokenizer.ggml.pre", GgufValue::text(name))).unwrap();
        let ids = tokenizer.encode("Don't 123 \u{4e2d}\n", false).unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), "Don't 123 \u{4e2d}\n", "{name}");
    }
    let error = made(&byte_level(&[]).with("tokenizer.ggml.model", GgufValue::text("bert"))).unwrap_err();
    assert!(error.to_string().contains("`tokenizer.ggml.model` is `bert`"), "{error}");
}

#[test]
fn damage_is_refused_by_the_name_of_its_key() {
    let merges = |merges: &[&str]| byte_level(&[]).with("tokenizer.ggml.merges", GgufValue::texts(merges));
    let pieces = || sentence_piece(&[("a", -1.0)]);
    let no_numbers = || GgufValue::array(&[]);
    for (file, expected) in [
        (byte_level(&[]).without("tokenizer.ggml.model"), "`tokenizer.ggml.model` is missing"),
        (byte_level(&[]).without("tokenizer.ggml.tokens"), "`tokenizer.ggml.tokens` is missing"),
        (byte_level(&[]).without("tokenizer.ggml.merges"), "`tokenizer.ggml.merges` is missing"),
        (pieces().without("tokenizer.ggml.scores"), "`tokenizer.ggml.scores` is missing"),
        (pieces().with("tokenizer.ggml.scores", no_numbers()), "`tokenizer.ggml.scores` has 0 numbers for 4 tokens"),
        (pieces().with("tokenizer.ggml.token_type", no_numbers()), "`tokenizer.ggml.token_type` has 0 numbers for 4 tokens"),
        (
            pieces().with("tokenizer.ggml.token_type", GgufValue::u8(1)),
            "`tokenizer.ggml.token_type` must be an array of integers",
        ),
        (pieces().with("tokenizer.ggml.tokens", GgufValue::u8(1)), "`tokenizer.ggml.tokens` must be an array of texts, found 1"),
        (sentence_piece(&[("a", -1.0), ("a", -2.0)]), "`tokenizer.ggml.tokens` has \"a\" twice, as 3 and as 4"),
        (merges(&["a b"]), "`tokenizer.ggml.merges`: number 0, \"a b\", needs the token \"ab\", which is not there"),
        (merges(&["ab"]), "number 0, \"ab\", is not two tokens"),
        (merges(&["", "a b"]), "number 0, \"\", is not two tokens"),
        (merges(&["a "]), "needs the token \"\", which is not there"),
        (
            pieces().with("tokenizer.ggml.bos_token_id", GgufValue::u32(4)),
            "`tokenizer.ggml.bos_token_id` is 4, but there are 4 tokens",
        ),
        (
            pieces().with("tokenizer.ggml.eos_token_id", GgufValue::i32(-1)),
            "`tokenizer.ggml.eos_token_id` must be an integer from 0 on",
        ),
        (
            pieces().with("tokenizer.ggml.add_bos_token", GgufValue::text("no")),
            "`tokenizer.ggml.add_bos_token` must be true or false",
        ),
        (pieces().with("tokenizer.chat_template", GgufValue::u8(1)), "`tokenizer.chat_template` must be a text, found 1"),
    ] {
        let error = made(&file).unwrap_err();
        assert!(
            matches!(error, Error::Gguf { .. }) && error.to_string().contains(expected),
            "expected {expected:?}, found {error}"
        );
    }
    let pad = pieces().with("tokenizer.ggml.padding_token_id", GgufValue::u32(u32::MAX));
    assert!(made(&pad).unwrap().notes()[0].contains("`tokenizer.ggml.padding_token_id` is 4294967295, which is left aside"));
}

#[test]
fn attacks_on_the_tokenizer_are_refused_or_do_no_harm() {
    for (name, expected) in [
        ("tokens_scores", "`tokenizer.ggml.scores` has 1 numbers for 2 tokens"),
        ("merge_unknown", "`tokenizer.ggml.merges`: number 0,"),
        ("bos_beyond", "`tokenizer.ggml."),
        ("good", "`tokenizer.ggml."),
        ("template_loop", "`tokenizer.ggml."),
    ] {
        let error = read(&golden(&format!("gguf/attacks/{name}.gguf"))).unwrap_err();
        assert!(error.to_string().contains(expected), "{name}: {error}");
    }
}

#[test]
fn metadata_of_the_wrong_kind_never_panics() {
    const KEYS: [&str; 19] = [
        "model",
        "pre",
        "tokens",
        "token_type",
        "scores",
        "merges",
        "bos_token_id",
        "eos_token_id",
        "eot_token_id",
        "eom_token_id",
        "unknown_token_id",
        "padding_token_id",
        "add_bos_token",
        "add_eos_token",
        "add_space_prefix",
        "../general.name",
        "../tokenizer.chat_template",
        "../tokenizer.chat_templates",
        "../general.sampling.temp",
    ];
    let values = [
        GgufValue::u32(0),
        GgufValue::u64(u64::MAX),
        GgufValue::i32(-1),
        GgufValue::f32(f32::NAN),
        GgufValue::f32(-1.0),
        GgufValue::bool(true),
        GgufValue::text(""),
        GgufValue::text("a"),
        GgufValue::text("gemma4"),
        GgufValue::text("superbpe"),
        GgufValue::array(&[]),
        GgufValue::texts(&["", "", "a", "▁", "a b"]),
        GgufValue::texts(&["a", "b", "ab", "c"]),
        GgufValue::array(&[GgufValue::f32(f32::NAN), GgufValue::f32(f32::INFINITY), GgufValue::f32(0.0), GgufValue::f32(-0.0)]),
        GgufValue::array(&[GgufValue::u8(9), GgufValue::u8(3), GgufValue::u8(4), GgufValue::u8(2)]),
    ];
    let mut usable = 0;
    for file in [byte_level(&["<b>"]), sentence_piece(&[("a", -1.0)])] {
        for (index, first) in values.iter().enumerate() {
            for (place, key) in KEYS.iter().enumerate() {
                let full = |key: &str| key.strip_prefix("../").map_or_else(|| format!("tokenizer.ggml.{key}"), str::to_owned);
                let second = &values[(index + place) % values.len()];
                let other = KEYS[(place + index * 7 + 1) % KEYS.len()];
                let damaged = file.clone().with(&full(other), second.clone()).with(&full(key), first.clone());
                if let Ok(tokenizer) = made(&damaged) {
                    let ids = tokenizer.encode("a <b> \n\u{4e2d}", true).unwrap_or_default();
                    let _ = (tokenizer.decode(&ids, true), ChatTemplate::of(&tokenizer));
                    usable += 1;
                }
            }
        }
    }
    assert!((20..500).contains(&usable), "{usable} of 570");
}

#[test]
fn large_vocabularies_are_read_in_seconds() {
    // Words over few letters, so that nearly every split of a token is two tokens.
    const LETTERS: [&str; 4] = ["▁", "e", "t", "ä"];
    let mut texts: Vec<String> = LETTERS.map(str::to_owned).to_vec();
    for len in 2.. {
        let first = texts.len() - 4usize.pow(len - 1);
        let longer: Vec<String> =
            texts[first..].iter().flat_map(|word| LETTERS.map(|letter| format!("{word}{letter}"))).collect();
        texts.extend(longer);
        if texts.len() > 131_072 {
            texts.truncate(131_072);
            break;
        }
    }
    let tokens: Vec<(&str, f32)> = texts.iter().enumerate().map(|(rank, text)| (text.as_str(), -(rank as f32))).collect();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large.gguf");
    std::fs::write(&path, sentence_piece(&tokens).bytes()).unwrap();
    let clock = Instant::now();
    let tokenizer = read(&path).unwrap();
    let seconds = clock.elapsed().as_secs_f64();
    eprintln!("{} tokens in {seconds:.2} s", tokenizer.vocab_size());
    assert!(seconds < 60.0, "{seconds} s");
    assert_eq!(tokenizer.vocab_size(), 131_075);
    let ids = tokenizer.encode("te ät", false).unwrap();
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "te ät");
}
