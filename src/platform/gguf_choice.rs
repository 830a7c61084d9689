//! Which GGUF file of a repository is meant: `org/name:Q4_K_M`.

use super::gguf_name::{PartName, is_gguf_model};
use std::collections::BTreeSet;
use std::path::Path;

/// Weights in the layout of transformers, which a name without a format means where they are there.
const OTHERS: [&str; 2] = ["model.safetensors", "model.safetensors.index.json"];

/// The part of a model's name that says which file of a repository it is.
#[derive(Debug, Clone, Copy)]
pub struct GgufChoice<'a> {
    /// `org/name`, for messages.
    pub repo: &'a str,
    /// What the name of the file has in it, such as `Q4_K_M`.
    pub tag: Option<&'a str>,
}

impl GgufChoice<'_> {
    /// Whether a GGUF file is meant, in a repository with these `files`.
    pub fn is_meant(self, files: &[&str]) -> bool {
        let has_others = files.iter().any(|file| OTHERS.contains(file));
        self.tag.is_some() || (!has_others && files.iter().any(|file| is_model(file)))
    }

    /// The paths of the file that is meant and of its other parts, in order; `None` where a model in another layout is meant.
    ///
    /// # Errors
    /// As [`one_of`](Self::one_of).
    pub fn of(self, files: &[&str]) -> Result<Option<Vec<String>>, String> {
        if self.is_meant(files) { self.one_of(files).map(Some) } else { Ok(None) }
    }

    /// The same where it is known that a GGUF file is meant.
    ///
    /// # Errors
    /// What is wrong with the choice, in words, if there is no such file among `files` or if there are several.
    pub fn one_of(self, files: &[&str]) -> Result<Vec<String>, String> {
        let models: Vec<&str> = files.iter().copied().filter(|file| is_model(file)).collect();
        let mut chosen = models.iter().filter(|file| self.tag.is_none_or(|tag| has_tag(file, tag)));
        match (chosen.next(), chosen.next()) {
            (Some(only), None) => Ok(gguf_parts(only)),
            (None, _) if models.is_empty() => Err("the repository has no GGUF file".to_owned()),
            (None, _) => {
                let tag = self.tag.unwrap_or_default();
                Err(format!("no GGUF file of the repository has `{tag}` in its name; {}", self.listed(&models)))
            }
            _ => Err(format!("the repository has {} models as GGUF; {}", models.len(), self.listed(&models))),
        }
    }

    fn listed(self, models: &[&str]) -> String {
        const SHOWN: usize = 12;
        let tags: BTreeSet<String> = models.iter().map(|file| tag_of(file)).collect();
        let names: Vec<String> = tags.iter().take(SHOWN).map(|tag| format!("{}:{tag}", self.repo)).collect();
        let more = if tags.len() > SHOWN { ", .." } else { "" };
        format!("write one of {}{more}", names.join(", "))
    }
}

/// The paths of all files of a model, by that of one of them.
pub fn gguf_parts(file: &str) -> Vec<String> {
    let Some(name) = PartName::of(Path::new(file)) else { return vec![file.to_owned()] };
    let folder = file.rfind('/').map_or("", |slash| &file[..=slash]);
    (0..name.count).map(|index| format!("{folder}{}", name.of_part(index))).collect()
}

fn is_model(file: &str) -> bool {
    is_gguf_model(Path::new(file))
}

/// Whether the name of a file has `tag` as a word of its own: Q4_K is not Q4_K_M.
fn has_tag(file: &str, tag: &str) -> bool {
    let name = file.to_ascii_lowercase();
    let tag = tag.to_ascii_lowercase();
    let is_edge = |character: Option<char>| character.is_none_or(|character| "-./".contains(character));
    name.match_indices(&tag)
        .any(|(at, found)| is_edge(name[..at].chars().last()) && is_edge(name[at + found.len()..].chars().next()))
}

/// The format in the name of a file, as tags name it.
fn tag_of(file: &str) -> String {
    let stem = PartName::of(Path::new(file)).map(|part| part.stem);
    let stem = stem.or_else(|| Some(Path::new(file).file_stem()?.to_string_lossy().into_owned())).unwrap_or_default();
    stem.rsplit(['-', '.']).next().unwrap_or_default().to_owned()
}
