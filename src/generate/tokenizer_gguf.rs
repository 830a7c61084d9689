//! The tokenizer of a GGUF file, as the `tokenizer.json` that it was made from.

use super::tokenizer::Tokenizer;
use super::tokenizer_files::TokenizerFiles;
use super::tokenizer_merges::{self, Scored};
use super::tokenizer_words::{UNNAMED, Words};
use crate::checkpoint::gguf::{Metadata, MetadataValue};
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, HashMap};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const EOT: &str = "tokenizer.ggml.eot_token_id";
const EOM: &str = "tokenizer.ggml.eom_token_id";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
const PADDING: &str = "tokenizer.ggml.padding_token_id";
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// What SentencePiece has for a space.
const SPACE: &str = "▁";

/// Tokens that end an answer wherever they are in a vocabulary. Many files name that of the base model only.
const ENDS: [&str; 12] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<EOT>",
    "[EOT]",
];
/// In the format of gpt-oss, which has this token, [`MESSAGE_END`] ends a message, and thinking is one.
const ANSWER_END: &str = "<|return|>";
const MESSAGE_END: &str = "<|end|>";

/// What a token is for, by the number in `token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    /// Stands for what has no token.
    Unknown,
    /// Begins or ends something; is not shown.
    Control,
    /// Found in a text before it is cut into words.
    UserDefined,
    /// A byte of a character that has no token, or one that is never used.
    Other,
}

/// The tokens of a file.
struct Vocabulary<'a> {
    metadata: &'a Metadata,
    tokens: Vec<&'a str>,
    kinds: Vec<Kind>,
    ids: HashMap<&'a str, u32>,
}

/// Parts of a `tokenizer.json` that depend on the kind of the tokenizer.
struct Pipeline {
    model: Value,
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    /// Where the file does not say.
    adds_bos: bool,
    notes: Vec<String>,
}

impl Tokenizer {
    /// Makes the tokenizer that `metadata` describes, with its chat templates and the tokens that end an answer.
    ///
    /// # Errors
    /// [`Error::Gguf`] naming the key that is missing or damaged, [`Error::Tokenizer`] for a kind of tokenizer, or a way to cut words, that is
    /// not known. Never panics, whatever the metadata.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self> {
        let vocabulary = Vocabulary::read(metadata)?;
        let model = metadata.text(MODEL)?.ok_or_else(|| metadata.missing(MODEL))?;
        let mut pipeline = match model {
            "gpt2" => vocabulary.byte_level()?,
            "llama" => vocabulary.sentence_piece()?,
            "gemma4" => vocabulary.spaced()?,
            other => return Err(unknown(MODEL, other, &["gemma4", "gpt2", "llama"])),
        };
        let bos = vocabulary.token_of(BOS)?;
        let eos = vocabulary.token_of(EOS)?;
        let adds_bos = metadata.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(pipeline.adds_bos);
        let adds_eos = metadata.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
        let around = (bos.filter(|_| adds_bos), eos.filter(|_| adds_eos));
        let tokenizer_json = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": vocabulary.added_tokens()?,
            "normalizer": pipeline.normalizer.take(), "pre_tokenizer": pipeline.pre_tokenizer.take(),
            "post_processor": post_processor(around.0, around.1),
            "decoder": pipeline.decoder.take(), "model": pipeline.model.take(),
        });
        let mut settings = Map::new();
        for (name, token) in [("bos_token", bos), ("eos_token", eos)] {
            settings.extend(token.map(|(_, text)| (name.to_owned(), text.into())));
        }
        for (name, key) in [("unk_token", UNKNOWN), ("pad_token", PADDING)] {
            let token = vocabulary.optional_token_of(key, &mut pipeline.notes)?;
            settings.extend(token.map(|(_, text)| (name.to_owned(), text.into())));
        }
        let templates = templates(metadata)?;
        let mut generation = sampling(metadata)?;
        generation.insert("eos_token_id".to_owned(), json!(vocabulary.ends(&mut pipeline.notes)?));
        let files = TokenizerFiles {
            tokenizer: &tokenizer_json.to_string(),
            tokenizer_config: Some(&Value::Object(settings).to_string()),
            generation_config: Some(&Value::Object(generation).to_string()),
            named_templates: &templates,
            ..TokenizerFiles::default()
        };
        let tokenizer = Tokenizer::from_parts(&files).map_err(|error| match error {
            Error::Tokenizer { problem, .. } => metadata.error(format!("of what it says about its tokenizer, {problem}")),
            other => other,
        })?;
        Ok(tokenizer.with_notes(pipeline.notes))
    }
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &'a Metadata) -> Result<Self> {
        let tokens: Vec<&str> = metadata.texts(TOKENS)?.ok_or_else(|| metadata.missing(TOKENS))?.iter().collect();
        let kinds = match numbers(metadata, TOKEN_TYPE, tokens.len(), Metadata::integers)? {
            Some(numbers) => numbers.into_iter().map(Kind::of).collect(),
            None => vec![Kind::Normal; tokens.len()],
        };
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in (0u32..).zip(&tokens) {
            // Some files have holes.
            if !token.is_empty()
                && let Some(other) = ids.insert(*token, id)
            {
                return Err(metadata.error(format!("`{TOKENS}` has {token:?} twice, as {other} and as {id}")));
            }
        }
        Ok(Vocabulary { metadata, tokens, kinds, ids })
    }

    /// Tokens with their ids; holes are left out.
    fn each(&self) -> impl Iterator<Item = (u32, &'a str, Kind)> {
        (0u32..)
            .zip(&self.tokens)
            .zip(&self.kinds)
            .map(|((id, token), kind)| (id, *token, *kind))
            .filter(|(_, token, _)| !token.is_empty())
    }

    /// The token whose id is under `key`.
    fn token_of(&self, key: &str) -> Result<Option<(u32, &'a str)>> {
        let Some(id) = self.metadata.integer(key)? else { return Ok(None) };
        let token = usize::try_from(id).ok().and_then(|index| self.tokens.get(index));
        match token {
            Some(token) => Ok(Some((id as u32, token))),
            None => Err(self.metadata.error(format!("`{key}` is {id}, but there are {} tokens", self.tokens.len()))),
        }
    }

    /// The same of a key without which a text can be written: an id beyond the end is left aside with a note.
    fn optional_token_of(&self, key: &str, notes: &mut Vec<String>) -> Result<Option<(u32, &'a str)>> {
        match self.metadata.integer(key)? {
            Some(id) if id >= self.tokens.len() as u64 => {
                notes.push(format!("`{key}` is {id}, which is left aside: there are {} tokens", self.tokens.len()));
                Ok(None)
            }
            _ => self.token_of(key),
        }
    }

    fn vocab(&self) -> Value {
        self.each().map(|(id, token, _)| (token.to_owned(), id.into())).collect::<Map<String, Value>>().into()
    }

    /// The stored merges, each as its two parts.
    fn stored_merges(&self) -> Result<Value> {
        let merges = self.metadata.texts(MERGES)?.ok_or_else(|| self.metadata.missing(MERGES))?;
        let mut pairs = Vec::with_capacity(merges.len());
        for (index, merge) in merges.iter().enumerate() {
            // A part may begin with a space, but none is one alone.
            let space = merge.char_indices().skip(1).find(|(_, character)| *character == ' ');
            let (left, right) = match space {
                Some((at, _)) => (&merge[..at], &merge[at + 1..]),
                None => return Err(self.metadata.error(format!("`{MERGES}`: number {index}, {merge:?}, is not two tokens"))),
            };
            let whole = format!("{left}{right}");
            if let Some(missing) = [left, right, &whole].into_iter().find(|token| !self.ids.contains_key(token)) {
                let problem = format!("`{MERGES}`: number {index}, {merge:?}, needs the token {missing:?}, which is not there");
                return Err(self.metadata.error(problem));
            }
            pairs.push(json!([left, right]));
        }
        Ok(pairs.into())
    }

    /// Merges of the bytes of words, as GPT-2 began it.
    fn byte_level(&self) -> Result<Pipeline> {
        let mut notes = Vec::new();
        let words = match self.metadata.text(PRE)? {
            None | Some("default") => {
                notes.push(format!(
                    "the file does not say how its tokenizer cuts words (`{PRE}`): as llama.cpp does then, which may not be how the model was trained"
                ));
                &UNNAMED
            }
            Some(name) => Words::find(name).ok_or_else(|| unknown(PRE, name, &Words::names()))?,
        };
        let split = |pass: &&str| split(pass);
        let mut pre_tokenizers: Vec<Value> = words.passes.iter().map(split).collect();
        pre_tokenizers.push(json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false }));
        Ok(Pipeline {
            model: json!({
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "fuse_unk": false, "byte_fallback": false, "ignore_merges": words.ignore_merges,
                "vocab": self.vocab(), "merges": self.stored_merges()?,
            }),
            normalizer: if words.normalizes { json!({ "type": "NFC" }) } else { Value::Null },
            pre_tokenizer: json!({ "type": "Sequence", "pretokenizers": pre_tokenizers }),
            decoder: json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true }),
            adds_bos: words.adds_bos,
            notes,
        })
    }

    /// Merges of characters by the scores of the tokens, with bytes for what has no token.
    fn sentence_piece(&self) -> Result<Pipeline> {
        let scores = numbers(self.metadata, SCORES, self.tokens.len(), Metadata::floats)?;
        let scores = scores.ok_or_else(|| self.metadata.missing(SCORES))?;
        let scored =
            |(id, text, kind): (u32, &'a str, Kind)| (kind == Kind::Normal).then(|| Scored { text, score: scores[id as usize] });
        let scored: Vec<Scored> = self.each().filter_map(scored).collect();
        let merges: Vec<Value> =
            tokenizer_merges::merges(&scored).into_iter().map(|(left, right)| json!([left, right])).collect();
        let begins_with_space = self.metadata.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        let mut normalizers = vec![spaces_to_marks()];
        let mut decoders = decoders();
        if begins_with_space {
            normalizers.insert(0, json!({ "type": "Prepend", "prepend": SPACE }));
            decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        }
        Ok(Pipeline {
            model: self.with_bytes(merges.into())?,
            normalizer: json!({ "type": "Sequence", "normalizers": normalizers }),
            pre_tokenizer: Value::Null,
            decoder: json!({ "type": "Sequence", "decoders": decoders }),
            adds_bos: true,
            notes: Vec::new(),
        })
    }

    /// Stored merges of characters, within lines, with bytes for what has no token.
    fn spaced(&self) -> Result<Pipeline> {
        Ok(Pipeline {
            model: self.with_bytes(self.stored_merges()?)?,
            normalizer: spaces_to_marks(),
            pre_tokenizer: split(r"[^\n]+|\n+"),
            decoder: json!({ "type": "Sequence", "decoders": decoders() }),
            adds_bos: true,
            notes: Vec::new(),
        })
    }

    fn with_bytes(&self, merges: Value) -> Result<Value> {
        let unknown = self.each().find(|(_, _, kind)| *kind == Kind::Unknown).map(|(_, token, _)| token);
        Ok(json!({
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "vocab": self.vocab(), "merges": merges,
        }))
    }

    /// Tokens that are found in a text as they are spelled.
    fn added_tokens(&self) -> Result<Vec<Value>> {
        // GGUF does not keep that the tokens of this family take the spaces behind them.
        let name = self.metadata.text("general.name")?.unwrap_or_default().to_lowercase();
        let takes_spaces = name.contains("phi-3") || name.contains("phi3");
        let token = |(id, content, kind): (u32, &str, Kind)| {
            let special = kind == Kind::Control || kind == Kind::Unknown || ENDS.contains(&content);
            let strips = takes_spaces && kind == Kind::Control && !["<s>", "<|endoftext|>"].contains(&content);
            (special || kind == Kind::UserDefined).then(|| {
                json!({
                    "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": strips, "normalized": false,
                    "special": special,
                })
            })
        };
        Ok(self.each().filter_map(token).collect())
    }

    /// The ids that end an answer.
    fn ends(&self, notes: &mut Vec<String>) -> Result<BTreeSet<u32>> {
        let mut ends: BTreeSet<u32> = self.token_of(EOS)?.into_iter().map(|(id, _)| id).collect();
        for key in [EOT, EOM] {
            ends.extend(self.optional_token_of(key, notes)?.map(|(id, _)| id));
        }
        let only_messages = self.ids.contains_key(ANSWER_END);
        let spelled = ENDS.iter().filter(|end| !(only_messages && **end == MESSAGE_END));
        ends.extend(spelled.filter_map(|end| self.ids.get(end)));
        Ok(ends)
    }
}

impl Kind {
    fn of(number: u64) -> Self {
        match number {
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 | 6 => Kind::Other,
            // Also 0, which some writers leave.
            _ => Kind::Normal,
        }
    }
}

/// The numbers under `key`, of which there has to be one for each of `len` tokens.
fn numbers<T>(
    metadata: &Metadata,
    key: &str,
    len: usize,
    read: impl Fn(&Metadata, &str) -> Result<Option<Vec<T>>>,
) -> Result<Option<Vec<T>>> {
    match metadata.get(key) {
        Some(MetadataValue::Numbers(numbers)) if numbers.len() != len => {
            Err(metadata.error(format!("`{key}` has {} numbers for {len} tokens", numbers.len())))
        }
        _ => read(metadata, key),
    }
}

fn unknown(key: &str, found: &str, known: &[&str]) -> Error {
    let found: String = found.chars().take(80).flat_map(char::escape_debug).collect();
    Error::Tokenizer {
        problem: format!("`{key}` is `{found}`, which this version does not know; known: {}", known.join(", ")),
        hint: Some("take the model in the layout of Hugging Face, with its tokenizer.json".to_owned()),
    }
}

/// A pre-tokenizer that isolates what `expression` matches.
fn split(expression: &str) -> Value {
    json!({ "type": "Split", "pattern": { "Regex": expression }, "behavior": "Isolated", "invert": false })
}

fn spaces_to_marks() -> Value {
    json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE })
}

/// From tokens of characters and bytes to a text.
fn decoders() -> Vec<Value> {
    vec![
        json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ]
}

/// What stands around every text.
fn post_processor(first: Option<(u32, &str)>, last: Option<(u32, &str)>) -> Value {
    if first.is_none() && last.is_none() {
        return Value::Null;
    }
    let special = |token: Option<(u32, &str)>| token.map(|(_, text)| json!({ "SpecialToken": { "id": text, "type_id": 0 } }));
    let sequence = |name: &str| Some(json!({ "Sequence": { "id": name, "type_id": 0 } }));
    let listed = |(id, text): (u32, &str)| (text.to_owned(), json!({ "id": text, "ids": [id], "tokens": [text] }));
    let within = |parts: &[Option<Value>]| parts.iter().flatten().cloned().collect::<Vec<Value>>();
    let single = within(&[special(first), sequence("A"), special(last)]);
    let pair = within(&[special(first), sequence("A"), sequence("B"), special(last)]);
    let special_tokens: Map<String, Value> = first.into_iter().chain(last).map(listed).collect();
    json!({ "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special_tokens })
}

/// The chat templates by name.
fn templates(metadata: &Metadata) -> Result<Vec<(String, String)>> {
    let mut templates = Vec::new();
    if let Some(source) = metadata.text(CHAT_TEMPLATE)? {
        templates.push(("default".to_owned(), source.to_owned()));
    }
    if let Some(names) = metadata.texts("tokenizer.chat_templates")? {
        for name in names.iter() {
            if let Some(source) = metadata.text(&format!("{CHAT_TEMPLATE}.{name}"))? {
                templates.push((name.to_owned(), source.to_owned()));
            }
        }
    }
    Ok(templates)
}

/// How the makers want the model to be sampled, with the keys of `generation_config.json`.
fn sampling(metadata: &Metadata) -> Result<Map<String, Value>> {
    let mut settings = Map::new();
    for (key, name) in [("temp", "temperature"), ("top_p", "top_p"), ("min_p", "min_p"), ("penalty_repeat", "repetition_penalty")]
    {
        let value = metadata.float(&format!("general.sampling.{key}"))?;
        settings.extend(value.map(|value| (name.to_owned(), value.into())));
    }
    settings.extend(metadata.integer("general.sampling.top_k")?.map(|value| ("top_k".to_owned(), value.into())));
    // Who names a temperature samples.
    if settings.get("temperature").and_then(Value::as_f64).is_some_and(|temperature| temperature > 0.0) {
        settings.insert("do_sample".to_owned(), true.into());
    }
    Ok(settings)
}
