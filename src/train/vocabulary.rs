//! How text becomes tokens, and the files that say so beside a trained model.

use super::settings::BYTES;
use crate::error::{Error, Result};
use crate::generate::Tokenizer;
use crate::platform::NewDirectory;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// The bytes of a text, or the tokens of a model that there is.
#[derive(Debug, Clone)]
pub enum Vocabulary {
    Bytes,
    Of { directory: PathBuf, tokenizer: Box<Tokenizer>, size: usize },
}

/// What ends a document where tokens are bytes.
const END: u32 = 256;
const END_TEXT: &str = "<|endoftext|>";

/// What a tokenizer consists of, as far as it is there.
const FILES: [&str; 5] =
    ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"];

impl Vocabulary {
    /// That of the setting `data.tokenizer`.
    ///
    /// # Errors
    /// As [`Tokenizer::open`].
    pub async fn open(name: &str) -> Result<Self> {
        if name == BYTES {
            return Ok(Vocabulary::Bytes);
        }
        let directory = PathBuf::from(name);
        let tokenizer = Tokenizer::open(&directory).await?;
        let size = tokenizer.vocab_size();
        Ok(Vocabulary::Of { directory, tokenizer: Box::new(tokenizer), size })
    }

    /// Tokens that there are.
    pub fn size(&self) -> usize {
        match self {
            Vocabulary::Bytes => END as usize + 1,
            Vocabulary::Of { size, .. } => *size,
        }
    }

    /// What stands between two documents, where something does.
    pub fn end_id(&self) -> Option<u32> {
        match self {
            Vocabulary::Bytes => Some(END),
            Vocabulary::Of { tokenizer, .. } => tokenizer.eos_ids().first().copied(),
        }
    }

    /// A document, and what ends it.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = match self {
            Vocabulary::Bytes => text.bytes().map(u32::from).collect(),
            Vocabulary::Of { tokenizer, .. } => tokenizer.encode(text, false)?,
        };
        ids.extend(self.end_id());
        Ok(ids)
    }

    /// Makes sure that a model with so many rows of embedding can read these tokens.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub fn check(&self, vocab_size: usize) -> Result<()> {
        if self.size() <= vocab_size {
            return Ok(());
        }
        let expected = format!("a tokenizer of at most {vocab_size} tokens, which the model has");
        Err(Error::Argument { what: "data.tokenizer", expected, found: format!("{} tokens", self.size()) })
    }

    /// Writes the files of the tokenizer.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn write(&self, new: &NewDirectory) -> Result<()> {
        match self {
            Vocabulary::Bytes => {
                let config = json!({ "eos_token": END_TEXT, "tokenizer_class": "PreTrainedTokenizerFast" });
                for (name, content) in [(FILES[0], bytes_json()), (FILES[1], config)] {
                    write_text(new, name, &format!("{content:#}\n"))?;
                }
                Ok(())
            }
            Vocabulary::Of { directory, .. } => FILES.iter().try_for_each(|name| new.copy(directory, name).map(drop)),
        }
    }
}

pub(super) fn write_text(new: &NewDirectory, name: &str, text: &str) -> Result<()> {
    let mut file = new.create(name)?;
    file.write(text.as_bytes())?;
    file.finish()
}

/// Reads the documents at `path`: one text, or every `.txt` in a folder, by name.
///
/// # Errors
/// [`Error::Io`], [`Error::Argument`] where there is none.
pub(super) async fn read_documents(path: &Path) -> Result<Vec<String>> {
    if crate::platform::is_file(path).await {
        return Ok(vec![crate::platform::read_text(path).await?]);
    }
    let mut names = crate::platform::file_names(path);
    names.retain(|name| name.ends_with(".txt"));
    names.sort();
    if names.is_empty() {
        let expected = "a text, or a folder with .txt files".to_owned();
        return Err(Error::Argument { what: "data.path", expected, found: format!("`{}`", path.display()) });
    }
    let mut documents = Vec::new();
    for name in names {
        documents.push(crate::platform::read_text(&path.join(name)).await?);
    }
    Ok(documents)
}

/// A byte-level BPE without merges, whose ids are the bytes.
fn bytes_json() -> Value {
    let vocabulary: Map<String, Value> = (0..=255).map(|byte| (letter(byte).to_string(), json!(byte))).collect();
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [{
            "id": END, "content": END_TEXT, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true
        }],
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "vocab": vocabulary,
            "merges": [],
        },
    })
}

/// How tokenizers write a byte: those that can be seen as themselves, the others from 256 on, in order.
fn letter(byte: u8) -> char {
    let is_visible = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if is_visible(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|other| !is_visible(*other)).count() as u32;
    char::from_u32(256 + before).expect("there are letters beyond 256")
}
