//! What `tokenizer_config.json` and the files that it replaced say: special tokens, tokens to add, chat templates.

use super::tokenizer::SpecialTokens;
use super::tokenizer_files::{ADDED_TOKENS, CHAT_TEMPLATE_JSON, SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG, TokenizerFiles};
use crate::error::{Error, Result};
use crate::spec::parse_json;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A token that the tokenizer is to know as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TokenToAdd {
    pub content: String,
    #[serde(default)]
    pub single_word: bool,
    #[serde(default)]
    pub lstrip: bool,
    #[serde(default)]
    pub rstrip: bool,
    #[serde(default)]
    pub normalized: Option<bool>,
    #[serde(default)]
    pub special: bool,
}

impl TokenToAdd {
    fn special(content: &str) -> Self {
        let content = content.to_owned();
        TokenToAdd { content, single_word: false, lstrip: false, rstrip: false, normalized: Some(false), special: true }
    }

    /// A token as files write it: a text, or an object with its `content`.
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::special(text)),
            Value::Object(_) => TokenToAdd::deserialize(value).ok(),
            _ => None,
        }
    }
}

/// The settings of a tokenizer.
#[derive(Debug, Default)]
pub struct TokenizerConfig {
    pub special: SpecialTokens,
    pub add_bos: Option<bool>,
    /// Tokens with the ids that the files give them.
    pub by_id: BTreeMap<u32, TokenToAdd>,
    /// Special tokens whose ids the files do not give.
    pub special_tokens: Vec<TokenToAdd>,
    /// Chat templates by name, the default one first.
    pub templates: Vec<(String, String)>,
    /// What could not be honoured.
    pub notes: Vec<String>,
}

impl TokenizerConfig {
    /// Like transformers, `special_tokens_map.json` and `added_tokens.json` count only where there is no `added_tokens_decoder`.
    ///
    /// # Errors
    /// [`Error::Json`] for a file that is not JSON, or whose chat template is neither a text nor a list of named ones.
    pub fn parse(files: &TokenizerFiles<'_>) -> Result<Self> {
        let mut keys: Map<String, Value> = parse(TOKENIZER_CONFIG, files.tokenizer_config)?;
        let mut config = TokenizerConfig::default();
        match keys.remove("added_tokens_decoder") {
            Some(Value::Object(decoder)) => config.read_decoder(&decoder),
            _ => {
                let older: Map<String, Value> = parse(SPECIAL_TOKENS_MAP, files.special_tokens_map)?;
                keys.extend(older);
            }
        }
        config.add_bos = keys.get("add_bos_token").and_then(Value::as_bool);
        config.read_special(&keys);
        if config.by_id.is_empty() {
            config.read_added(&parse(ADDED_TOKENS, files.added_tokens)?);
        }
        config.templates = templates(files, keys.remove("chat_template"))?;
        Ok(config)
    }

    fn read_decoder(&mut self, decoder: &Map<String, Value>) {
        for (id, token) in decoder {
            match (id.parse(), TokenToAdd::of(token)) {
                (Ok(id), Some(token)) => drop(self.by_id.insert(id, token)),
                _ => self.notes.push(format!("{TOKENIZER_CONFIG}: entry {id:?} of added_tokens_decoder is no token: left aside")),
            }
        }
    }

    /// Keys that end in `_token`, and the lists of more special tokens.
    fn read_special(&mut self, keys: &Map<String, Value>) {
        for (key, value) in keys {
            // `add_bos_token` and the like are no tokens.
            if !key.ends_with("_token") || value.is_null() || value.is_boolean() {
                continue;
            }
            match TokenToAdd::of(value) {
                Some(token) => self.name(key, token),
                None => self
                    .notes
                    .push(format!("{TOKENIZER_CONFIG}: `{key}` is neither a text nor an object with a `content`: left aside")),
            }
        }
        for key in ["additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens"] {
            match keys.get(key) {
                Some(Value::Array(list)) => self.special_tokens.extend(list.iter().filter_map(TokenToAdd::of)),
                Some(Value::Object(named)) => {
                    for (key, token) in named.iter().filter_map(|(key, value)| Some((key, TokenToAdd::of(value)?))) {
                        self.name(key, token);
                    }
                }
                _ => {}
            }
        }
        for token in &mut self.special_tokens {
            token.special = true;
        }
    }

    fn name(&mut self, key: &str, token: TokenToAdd) {
        let text = token.content.clone();
        match key {
            "bos_token" => self.special.bos = Some(text),
            "eos_token" => self.special.eos = Some(text),
            "unk_token" => self.special.unk = Some(text),
            "pad_token" => self.special.pad = Some(text),
            _ => self.special.others.push((key.to_owned(), text)),
        }
        self.special_tokens.push(token);
    }

    fn read_added(&mut self, added: &Map<String, Value>) {
        for (content, id) in added {
            let special = self.special_tokens.iter().any(|token| token.content == *content);
            let token = TokenToAdd { special, normalized: Some(!special), ..TokenToAdd::special(content) };
            match id.as_u64().and_then(|id| u32::try_from(id).ok()) {
                Some(id) => drop(self.by_id.insert(id, token)),
                None => self.notes.push(format!("{ADDED_TOKENS}: `{content}` has no id: left aside")),
            }
        }
    }
}

/// Files win over keys, and keys over the file of older processors.
fn templates(files: &TokenizerFiles<'_>, key: Option<Value>) -> Result<Vec<(String, String)>> {
    let mut templates = files.named_templates.to_vec();
    if let Some(source) = files.chat_template
        && !templates.iter().any(|(name, _)| name == "default")
    {
        templates.insert(0, ("default".to_owned(), source.to_owned()));
    }
    if templates.is_empty()
        && let Some(value) = key.filter(|value| !value.is_null())
    {
        templates = listed(TOKENIZER_CONFIG, value)?;
    }
    if templates.is_empty() {
        let mut keys: Map<String, Value> = parse(CHAT_TEMPLATE_JSON, files.chat_template_json)?;
        if let Some(value) = keys.remove("chat_template").filter(|value| !value.is_null()) {
            templates = listed(CHAT_TEMPLATE_JSON, value)?;
        }
    }
    if let Some(index) = templates.iter().position(|(name, _)| name == "default") {
        templates[..=index].rotate_right(1);
    }
    for (_, source) in &mut templates {
        if let Some(rest) = source.strip_prefix('\u{feff}') {
            *source = rest.to_owned();
        }
    }
    Ok(templates)
}

fn listed(file: &str, value: Value) -> Result<Vec<(String, String)>> {
    let wrong = || Error::Json {
        file: file.to_owned(),
        message: "chat_template must be a string, an object of strings or a list of objects with `name` and `template`"
            .to_owned(),
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match value {
        Value::String(source) => Ok(vec![("default".to_owned(), source)]),
        Value::Array(list) => {
            let named = |entry: &Value| Some((text(entry.get("name")?)?, text(entry.get("template")?)?));
            list.iter().map(|entry| named(entry).ok_or_else(wrong)).collect()
        }
        Value::Object(named) => named.into_iter().map(|(name, source)| Ok((name, text(&source).ok_or_else(wrong)?))).collect(),
        _ => Err(wrong()),
    }
}

/// The file as `T`, or the default for a file that is not there.
///
/// # Errors
/// [`Error::Json`].
pub fn parse<T: DeserializeOwned + Default>(file: &str, text: Option<&str>) -> Result<T> {
    let Some(text) = text else { return Ok(T::default()) };
    serde_json::from_value(parse_json(text, file)?)
        .map_err(|source| Error::Json { file: file.to_owned(), message: source.to_string() })
}
