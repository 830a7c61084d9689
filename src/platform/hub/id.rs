//! Names of models on the hub, and what of a name may become a path.

use crate::error::{Error, Result};

/// A model's name on the hub: `org/name`, or `org/name@revision`, or `org/name:Q4_K_M` for one of several GGUF files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HubId {
    pub repo: String,
    /// A branch, a tag, a commit or `refs/pr/N`.
    pub revision: String,
    /// What the name of the GGUF file has in it.
    pub tag: Option<String>,
}

impl HubId {
    /// # Errors
    /// [`Error::Argument`] if `name` is not a hub id; it is not an existing directory either, or nobody would ask.
    pub fn parse(name: &str) -> Result<Self> {
        let (repo, revision) = name.split_once('@').unwrap_or((name, "main"));
        let (repo, tag) = repo.split_once(':').map_or((repo, None), |(repo, tag)| (repo, Some(tag)));
        let is_id = repo.split('/').count() == 2 && repo.split('/').all(is_plain_name);
        if !is_id || !revision.split('/').all(is_plain_name) || !tag.is_none_or(is_plain_name) {
            return Err(Error::Argument {
                what: "model",
                expected: "an existing directory or GGUF file, or a hub id such as org/name or org/name@revision".to_owned(),
                found: format!("`{name}`, which is neither"),
            });
        }
        Ok(HubId { repo: repo.to_owned(), revision: revision.to_owned(), tag: tag.map(str::to_owned) })
    }

    /// The directory of this model in a cache: `models--org--name`.
    pub fn folder(&self) -> String {
        format!("models--{}", self.repo.replace('/', "--"))
    }
}

/// Whether `text` can be one step of a path and nothing else: names from the network become paths in the cache.
pub(super) fn is_plain_name(text: &str) -> bool {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    !text.is_empty() && !text.starts_with('.') && text.chars().all(is_plain)
}

/// Whether `text` is a path of plain names that stays inside its directory.
pub(super) fn is_plain_path(text: &str) -> bool {
    text.split('/').all(is_plain_name)
}
