//! The files that make up a tokenizer, and what to say where the main one is missing.

use super::tokenizer_legacy;
use crate::error::{Error, Result};
use crate::platform;
use std::path::Path;

pub const TOKENIZER: &str = "tokenizer.json";
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
pub const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
pub const ADDED_TOKENS: &str = "added_tokens.json";
pub const GENERATION_CONFIG: &str = "generation_config.json";
pub const CONFIG: &str = "config.json";
pub const CHAT_TEMPLATE: &str = "chat_template.jinja";
pub const CHAT_TEMPLATE_JSON: &str = "chat_template.json";
/// Templates in files of their own. Their names are fixed, because a folder cannot be listed everywhere.
const NAMED_TEMPLATES: [(&str, &str); 3] = [
    ("default", "additional_chat_templates/default.jinja"),
    ("tool_use", "additional_chat_templates/tool_use.jinja"),
    ("rag", "additional_chat_templates/rag.jinja"),
];

/// The texts of the files that [`Tokenizer::from_parts`](super::Tokenizer::from_parts) reads; only `tokenizer` is required.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenizerFiles<'a> {
    /// `tokenizer.json`
    pub tokenizer: &'a str,
    /// `tokenizer_config.json`
    pub tokenizer_config: Option<&'a str>,
    /// `special_tokens_map.json`, which counts where `tokenizer_config.json` has no `added_tokens_decoder`
    pub special_tokens_map: Option<&'a str>,
    /// `added_tokens.json`, likewise
    pub added_tokens: Option<&'a str>,
    /// `generation_config.json`
    pub generation_config: Option<&'a str>,
    /// `config.json`, where `generation_config.json` does not name the ids that begin and end a text
    pub config: Option<&'a str>,
    /// `chat_template.jinja`, which wins over the template in `tokenizer_config.json`
    pub chat_template: Option<&'a str>,
    /// `chat_template.json`, where there is no other
    pub chat_template_json: Option<&'a str>,
    /// Name and text of the files in `additional_chat_templates`
    pub named_templates: &'a [(String, String)],
}

/// The same with the texts in it.
pub struct OwnedFiles {
    tokenizer: String,
    tokenizer_config: Option<String>,
    special_tokens_map: Option<String>,
    added_tokens: Option<String>,
    generation_config: Option<String>,
    config: Option<String>,
    chat_template: Option<String>,
    chat_template_json: Option<String>,
    named_templates: Vec<(String, String)>,
}

impl OwnedFiles {
    /// # Errors
    /// [`Error::Tokenizer`] if there is no tokenizer, [`Error::Io`].
    pub async fn read(dir: &Path) -> Result<Self> {
        let tokenizer_config = optional(dir, TOKENIZER_CONFIG).await?;
        let tokenizer = match optional(dir, TOKENIZER).await? {
            Some(text) => text,
            None => from_older_files(dir, tokenizer_config.as_deref()).await?,
        };
        let mut named_templates = Vec::new();
        for (name, file) in NAMED_TEMPLATES {
            named_templates.extend(optional(dir, file).await?.map(|text| (name.to_owned(), text)));
        }
        Ok(OwnedFiles {
            tokenizer,
            tokenizer_config,
            special_tokens_map: optional(dir, SPECIAL_TOKENS_MAP).await?,
            added_tokens: optional(dir, ADDED_TOKENS).await?,
            generation_config: optional(dir, GENERATION_CONFIG).await?,
            config: optional(dir, CONFIG).await?,
            chat_template: optional(dir, CHAT_TEMPLATE).await?,
            chat_template_json: optional(dir, CHAT_TEMPLATE_JSON).await?,
            named_templates,
        })
    }

    pub fn as_files(&self) -> TokenizerFiles<'_> {
        TokenizerFiles {
            tokenizer: &self.tokenizer,
            tokenizer_config: self.tokenizer_config.as_deref(),
            special_tokens_map: self.special_tokens_map.as_deref(),
            added_tokens: self.added_tokens.as_deref(),
            generation_config: self.generation_config.as_deref(),
            config: self.config.as_deref(),
            chat_template: self.chat_template.as_deref(),
            chat_template_json: self.chat_template_json.as_deref(),
            named_templates: &self.named_templates,
        }
    }
}

pub(super) async fn optional(dir: &Path, name: &'static str) -> Result<Option<String>> {
    match platform::read_model_text(dir, name).await {
        Ok(text) => Ok(Some(text)),
        Err(Error::MissingFile { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `tokenizer.json` as it would be, made of `vocab.json` and `merges.txt`.
async fn from_older_files(dir: &Path, tokenizer_config: Option<&str>) -> Result<String> {
    let (vocab, merges) = (optional(dir, "vocab.json").await?, optional(dir, "merges.txt").await?);
    match (vocab, merges) {
        (Some(vocab), Some(merges)) => tokenizer_legacy::tokenizer_json(&vocab, &merges, tokenizer_config),
        _ => Err(no_tokenizer(dir).await),
    }
}

/// How to make the missing file.
pub const CONVERT: &str =
    "python3 -c \"from transformers import AutoTokenizer as T; T.from_pretrained('DIR').save_pretrained('DIR')\"";

/// Says which other tokenizer file lies there instead, and how to convert it.
async fn no_tokenizer(dir: &Path) -> Error {
    const OTHERS: [(&str, &str); 7] = [
        ("tokenizer.model", "sentencepiece, protobuf"),
        ("spiece.model", "sentencepiece, protobuf"),
        ("sentencepiece.bpe.model", "sentencepiece, protobuf"),
        ("tekken.json", "mistral-common"),
        ("tiktoken.model", "tiktoken"),
        ("vocab.json", ""),
        ("vocab.txt", ""),
    ];
    let mut found = None;
    for (name, needs) in OTHERS {
        if platform::is_file(&dir.join(name)).await {
            found = Some((name, needs));
            break;
        }
    }
    let convert = CONVERT.replace("DIR", &dir.display().to_string());
    let problem = format!("{} has no {TOKENIZER}", dir.display());
    match found {
        Some((other, needs)) => {
            let packages = if needs.is_empty() { "transformers".to_owned() } else { format!("transformers, {needs}") };
            Error::Tokenizer {
                problem: format!("{problem}, only {other}, which is not read"),
                hint: Some(format!("convert {other} to {TOKENIZER} with Python (pip install {packages}): {convert}")),
            }
        }
        None => Error::Tokenizer {
            problem,
            hint: Some(format!(
                "copy {TOKENIZER} from the model's page, or write it with Python (pip install transformers): {convert}"
            )),
        },
    }
}
