//! The tokenizer of a checkpoint, with what the files beside it say about special tokens and about generating.

use crate::error::{Error, Result};
use crate::platform;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::path::Path;

const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const CONFIG: &str = "config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// The texts of the files that [`Tokenizer::from_parts`] reads; only `tokenizer` is required.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenizerFiles<'a> {
    /// `tokenizer.json`
    pub tokenizer: &'a str,
    /// `tokenizer_config.json`
    pub tokenizer_config: Option<&'a str>,
    /// `generation_config.json`
    pub generation_config: Option<&'a str>,
    /// `config.json`, where `generation_config.json` does not name the ids that begin and end a text
    pub config: Option<&'a str>,
    /// `chat_template.jinja`, which wins over the template in `tokenizer_config.json`
    pub chat_template: Option<&'a str>,
}

/// The texts of the tokens with a role of their own, as chat templates use them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub unk: Option<String>,
    pub pad: Option<String>,
}

/// How the makers of a checkpoint want it to be sampled, from `generation_config.json`. Nothing here is checked for sense.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
pub struct GenerationDefaults {
    pub do_sample: Option<bool>,
    pub temperature: Option<f32>,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
}

/// Turns text into token ids and back.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: SpecialTokens,
    bos_id: Option<u32>,
    eos_ids: Vec<u32>,
    /// The checkpoint wants a beginning-of-text token that its `tokenizer.json` does not add.
    prepends_bos: bool,
    chat_template: Option<String>,
    defaults: GenerationDefaults,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and, where they are there, the files beside it in `dir`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] without a usable `tokenizer.json`, [`Error::Json`] for damage in the other files, [`Error::Io`].
    pub async fn open(dir: &Path) -> Result<Self> {
        let optional = async |name: &'static str| match platform::read_model_text(dir, name).await {
            Ok(text) => Ok(Some(text)),
            Err(Error::MissingFile { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        let Some(tokenizer) = optional(TOKENIZER).await? else { return Err(no_tokenizer(dir).await) };
        Self::from_parts(&TokenizerFiles {
            tokenizer: &tokenizer,
            tokenizer_config: optional(TOKENIZER_CONFIG).await?.as_deref(),
            generation_config: optional(GENERATION_CONFIG).await?.as_deref(),
            config: optional(CONFIG).await?.as_deref(),
            chat_template: optional(CHAT_TEMPLATE).await?.as_deref(),
        })
    }

    /// The same from the texts of the files, for where there is no directory.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a damaged `tokenizer.json`, [`Error::Json`] for damage in the other files.
    pub fn from_parts(files: &TokenizerFiles<'_>) -> Result<Self> {
        // `tokenizers` panics on text that is not JSON, and in a browser no panic can be caught.
        serde_json::from_str::<IgnoredAny>(files.tokenizer).map_err(damaged)?;
        let mut inner = contained(|| files.tokenizer.parse::<tokenizers::Tokenizer>()).map_err(damaged)?;
        // Both belong to batched training: one would cut a prompt silently, the other fill it up.
        inner.with_truncation(None).map_err(damaged)?;
        inner.with_padding(None);

        let raw: RawTokenizerConfig = parse(TOKENIZER_CONFIG, files.tokenizer_config)?;
        let generation: RawIds = parse(GENERATION_CONFIG, files.generation_config)?;
        let config: RawConfig = parse(CONFIG, files.config)?;
        let text_config = config.text_config.unwrap_or_default();

        let special = SpecialTokens {
            bos: raw.bos_token.map(TokenText::into_text),
            eos: raw.eos_token.map(TokenText::into_text),
            unk: raw.unk_token.map(TokenText::into_text),
            pad: raw.pad_token.map(TokenText::into_text),
        };
        let id_of = |text: &Option<String>| text.as_deref().and_then(|text| inner.token_to_id(text));
        let first = |ids: Option<Ids>| ids.and_then(|ids| ids.into_vec().first().copied());
        let bos_id =
            id_of(&special.bos).or(first(generation.bos_token_id.or(config.ids.bos_token_id).or(text_config.bos_token_id)));

        let named = generation.eos_token_id.or(config.ids.eos_token_id).or(text_config.eos_token_id);
        let mut eos_ids = named.map(Ids::into_vec).unwrap_or_default();
        eos_ids.extend(id_of(&special.eos));
        eos_ids.sort_unstable();
        eos_ids.dedup();

        let mut tokenizer = Tokenizer {
            inner,
            special,
            bos_id,
            eos_ids,
            prepends_bos: false,
            chat_template: files.chat_template.map(str::to_owned).or(raw.chat_template.and_then(RawTemplate::into_default)),
            defaults: parse(GENERATION_CONFIG, files.generation_config)?,
        };
        // One round trip, also so that a tokenizer that cannot work fails here and not in the middle of a conversation.
        let probe = tokenizer.encode("a", true)?;
        tokenizer.decode(&probe, false)?;
        tokenizer.prepends_bos = raw.add_bos_token == Some(true) && probe.first().copied() != bos_id;
        Ok(tokenizer)
    }

    /// The token ids of `text`; with `add_special_tokens` also those that the checkpoint wants around a text. Special tokens that
    /// are spelled out in `text` become their ids either way.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer refuses the text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encoding =
            contained(|| self.inner.encode_fast(text, add_special_tokens)).map_err(|source| failed("encode text", source))?;
        let prepended = self.bos_id.filter(|_| add_special_tokens && self.prepends_bos);
        Ok(prepended.into_iter().chain(encoding.get_ids().iter().copied()).collect())
    }

    /// The text of `ids`. Ids that the tokenizer does not know (models pad their vocabulary) give no text; bytes that are not UTF-8
    /// give U+FFFD.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the decoder of `tokenizer.json` fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        contained(|| self.inner.decode(ids, skip_special)).map_err(|source| failed("decode token ids", source))
    }

    /// How the vocabulary spells a token (`Ġthe`, `<0x0A>`), or `None` beyond its end.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether the token is a control token that [`Self::decode`] can skip.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner
            .get_added_vocabulary()
            .simple_id_to_token(id)
            .is_some_and(|text| self.inner.get_added_vocabulary().is_special_token(&text))
    }

    /// The ids that end a text, in ascending order; may be empty.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// The id that begins a text, where the checkpoint has one.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos_id
    }

    /// The number of tokens, added ones included. The embedding table of a model can have more rows.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    /// The source of the checkpoint's chat template, where it has one.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    pub fn generation_defaults(&self) -> &GenerationDefaults {
        &self.defaults
    }
}

/// Runs `work` of the crate `tokenizers`, which unwraps what a damaged `tokenizer.json` promised, and makes its panic an error.
/// Nothing of ours is borrowed mutably inside, so no half-changed state is left behind.
fn contained<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(message.unwrap_or("unknown defect").to_owned().into())
    })
}

fn damaged(source: impl Display) -> Error {
    failed("be read", source)
}

fn failed(action: &str, source: impl Display) -> Error {
    Error::Tokenizer {
        problem: format!("{TOKENIZER} cannot {action}: {source}"),
        hint: Some("the file is damaged or newer than this version understands: fetch it again".to_owned()),
    }
}

/// Says which other tokenizer file lies there instead, and how to convert it.
async fn no_tokenizer(dir: &Path) -> Error {
    const OTHERS: [&str; 5] = ["tokenizer.model", "tekken.json", "tiktoken.model", "vocab.json", "spiece.model"];
    let mut found = None;
    for name in OTHERS {
        if platform::is_file(&dir.join(name)).await {
            found = Some(name);
            break;
        }
    }
    let convert = "transformers.AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)";
    Error::Tokenizer {
        problem: match found {
            Some(other) => format!("{} has no {TOKENIZER}, only {other}", dir.display()),
            None => format!("{} has no {TOKENIZER}", dir.display()),
        },
        hint: Some(match found {
            Some(other) => format!("convert {other} to {TOKENIZER} with Python: {convert}"),
            None => format!("copy {TOKENIZER} from the model's page, or write it with Python: {convert}"),
        }),
    }
}

/// The file as `T`, or the default for a file that is not there.
fn parse<T: DeserializeOwned + Default>(file: &str, text: Option<&str>) -> Result<T> {
    let Some(text) = text else { return Ok(T::default()) };
    serde_json::from_str(text).map_err(|source| Error::Json { file: file.to_owned(), message: source.to_string() })
}

#[derive(Default, Deserialize)]
struct RawTokenizerConfig {
    bos_token: Option<TokenText>,
    eos_token: Option<TokenText>,
    unk_token: Option<TokenText>,
    pad_token: Option<TokenText>,
    add_bos_token: Option<bool>,
    chat_template: Option<RawTemplate>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a special token must be a string or an object with a `content`")]
enum TokenText {
    Plain(String),
    Described { content: String },
}

impl TokenText {
    fn into_text(self) -> String {
        match self {
            TokenText::Plain(text) | TokenText::Described { content: text } => text,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "chat_template must be a string or a list of objects with `name` and `template`")]
enum RawTemplate {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl RawTemplate {
    /// The template named `default`, or else the first.
    fn into_default(self) -> Option<String> {
        match self {
            RawTemplate::One(template) => Some(template),
            RawTemplate::Named(mut list) => {
                let index = list.iter().position(|entry| entry.name == "default").unwrap_or(0);
                (index < list.len()).then(|| list.swap_remove(index).template)
            }
        }
    }
}

#[derive(Default, Deserialize)]
struct RawIds {
    bos_token_id: Option<Ids>,
    eos_token_id: Option<Ids>,
}

#[derive(Default, Deserialize)]
struct RawConfig {
    #[serde(flatten)]
    ids: RawIds,
    /// Where models that also see or hear keep what concerns text.
    text_config: Option<RawIds>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "bos_token_id and eos_token_id must be a token id or a list of token ids")]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

impl Ids {
    fn into_vec(self) -> Vec<u32> {
        match self {
            Ids::One(id) => vec![id],
            Ids::Many(ids) => ids,
        }
    }
}
