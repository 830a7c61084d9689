//! The tokenizer of a checkpoint, with what the files beside it say about special tokens and about generating.

use super::added_tokens;
use super::generation_config::{GenerationDefaults, TextConfig};
use super::tokenizer_config::TokenizerConfig;
use super::tokenizer_files::{OwnedFiles, TOKENIZER, TokenizerFiles};
use crate::checkpoint::ModelFiles;
use crate::checkpoint::gguf::{self, Gguf};
use crate::error::{Error, Result};
use crate::spec::foreign_text;
use serde::de::IgnoredAny;
use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::path::Path;

/// The texts of the tokens with a role of their own, as chat templates use them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub unk: Option<String>,
    pub pad: Option<String>,
    /// Others by their key in `tokenizer_config.json`, such as `image_token`.
    pub others: Vec<(String, String)>,
}

impl SpecialTokens {
    /// The key of each token, as templates name them, and its text.
    pub fn named(&self) -> impl Iterator<Item = (&str, &str)> {
        let known = [("bos_token", &self.bos), ("eos_token", &self.eos), ("unk_token", &self.unk), ("pad_token", &self.pad)];
        let known = known.into_iter().filter_map(|(key, text)| Some((key, text.as_deref()?)));
        known.chain(self.others.iter().map(|(key, text)| (key.as_str(), text.as_str())))
    }
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
    /// [`Self::encode`] begins a text with the beginning-of-text token.
    adds_bos: bool,
    /// By name, the default one first.
    chat_templates: Vec<(String, String)>,
    notes: Vec<String>,
    defaults: GenerationDefaults,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and, where they are there, the files beside it in `dir`. Of the older layout of two files, `vocab.json` and
    /// `merges.txt`, it reads what GPT-2 and Qwen2 tokenizers have. Where `dir` is a GGUF file, or holds one, its metadata describe the tokenizer.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] without a usable `tokenizer.json`, [`Error::Json`] for damage in the other files, [`Error::Gguf`], [`Error::Io`].
    pub async fn open(dir: &Path) -> Result<Self> {
        if let Some(file) = gguf::file_of(dir).await? {
            return Self::from_gguf(Gguf::open(&file).await?.metadata());
        }
        Self::from_parts(&OwnedFiles::read(dir).await?.as_files())
    }

    /// The tokenizer of a model whose config has been read.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn of(files: &ModelFiles) -> Result<Self> {
        match files.gguf() {
            Some(gguf) => Self::from_gguf(gguf.metadata()),
            None => Self::from_parts(&OwnedFiles::read(files.path()).await?.as_files()),
        }
    }

    /// The same from the texts of the files, for where there is no directory.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a damaged `tokenizer.json`, [`Error::Json`] for damage in the other files.
    pub fn from_parts(files: &TokenizerFiles<'_>) -> Result<Self> {
        let text = files.tokenizer.trim_start_matches('\u{feff}');
        // `tokenizers` panics on text that is not JSON, and in a browser no panic can be caught.
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| foreign_text(text).map_or_else(|| damaged(&error), damaged))?;
        let mut inner = contained(|| text.parse::<tokenizers::Tokenizer>()).map_err(damaged)?;
        // Both belong to batched training: one would cut a prompt silently, the other fill it up.
        inner.with_truncation(None).map_err(damaged)?;
        inner.with_padding(None);

        let text_config = TextConfig::read(files)?;
        let mut settings = TokenizerConfig::parse(files)?;
        contained(|| added_tokens::add(&mut inner, &mut settings, text_config.vocab_size)).map_err(damaged)?;
        let TokenizerConfig { special, add_bos, templates, mut notes, .. } = settings;
        notes.extend(text_config.notes);

        let id_of = |text: &Option<String>| text.as_deref().and_then(|text| inner.token_to_id(text));
        let bos_id = id_of(&special.bos).or(text_config.bos_id);
        let mut eos_ids = text_config.eos_ids;
        eos_ids.extend(id_of(&special.eos));
        eos_ids.sort_unstable();
        eos_ids.dedup();

        let mut tokenizer = Tokenizer {
            inner,
            special,
            bos_id,
            eos_ids,
            prepends_bos: false,
            adds_bos: false,
            chat_templates: templates,
            notes,
            defaults: text_config.defaults,
        };
        // One round trip, also so that a tokenizer that cannot work fails here and not in the middle of a conversation.
        let probe = tokenizer.encode("a", true)?;
        tokenizer.decode(&probe, false)?;
        let begins = bos_id.is_some() && probe.first().copied() == bos_id;
        tokenizer.prepends_bos = add_bos == Some(true) && !begins;
        tokenizer.adds_bos = begins || (tokenizer.prepends_bos && bos_id.is_some());
        Ok(tokenizer)
    }

    /// The same with more of what could not be honoured.
    pub(super) fn with_notes(mut self, notes: Vec<String>) -> Self {
        self.notes.extend(notes);
        self
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

    /// The source of the checkpoint's chat template, where it has one: of several, the one named `default`, or else the first.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_templates.first().map(|(_, source)| source.as_str())
    }

    /// The source of the chat template of that name.
    pub fn named_template(&self, name: &str) -> Option<&str> {
        self.chat_templates.iter().find(|(other, _)| other == name).map(|(_, source)| source.as_str())
    }

    /// What of the files could not be honoured, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether [`Self::encode`] begins a text with the beginning-of-text token.
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
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
