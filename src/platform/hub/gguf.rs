//! Repositories of GGUF files, from which one model is chosen: `org/name:Q4_K_M`.

use super::cache::RepoCache;
use super::environment::HubOptions;
use super::id::{HubId, is_plain_path};
use super::snapshot::Snapshot;
use super::{INDEX, OnProgress, WEIGHTS};
use crate::error::Result;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const EXTENSION: &str = ".gguf";
/// What the name of the first of several parts has in it.
const FIRST_PART: &str = "-00001-of-";

/// Whether the id means a GGUF file of a repository with these files.
pub(super) fn is_meant(id: &HubId, files: &BTreeSet<String>) -> bool {
    let has_others = files.contains(WEIGHTS) || files.contains(INDEX);
    id.tag.is_some() || (!has_others && files.iter().any(|file| is_model(file)))
}

/// Fetches the GGUF file that the id means, with all of its parts.
///
/// # Errors
/// [`Error::Download`](crate::Error::Download) if there is none or several, and as [`Snapshot::fetch`].
pub(super) fn fetch(snapshot: Snapshot<'_>, id: &HubId, progress: &mut OnProgress<'_>) -> Result<PathBuf> {
    let models: Vec<&String> = snapshot.files.iter().filter(|file| is_model(file) && is_plain_path(file)).collect();
    let chosen: Vec<&&String> = models.iter().filter(|file| id.tag.as_deref().is_none_or(|tag| has_tag(file, tag))).collect();
    let file = match chosen.as_slice() {
        [only] => (**only).clone(),
        [] => {
            let tag = id.tag.as_deref().unwrap_or_default();
            return Err(
                snapshot.failed(format!("no GGUF file of the repository has `{tag}` in its name; {}", listed(id, &models)))
            );
        }
        _ => return Err(snapshot.failed(format!("the repository has {} models as GGUF; {}", models.len(), listed(id, &models)))),
    };
    for part in parts(&file, &snapshot.files) {
        snapshot.fetch(&part, progress)?;
    }
    Ok(snapshot.finish()?.join(file))
}

/// The GGUF file in the cache that the id means, if one alone is there with all of its parts.
pub(super) fn cached(options: &HubOptions, id: &HubId) -> Option<PathBuf> {
    let directory = RepoCache::new(options, id).snapshot_of(&id.revision)?;
    let files = files_below(&directory, "");
    if !is_meant(id, &files) {
        return None;
    }
    let mut models = files.iter().filter(|file| is_model(file) && id.tag.as_deref().is_none_or(|tag| has_tag(file, tag)));
    let file = models.next().filter(|_| models.next().is_none())?;
    let is_whole = parts(file, &files).len() == number_of_parts(file);
    // Without a tag only the hub knows whether there are others.
    (is_whole && (id.tag.is_some() || options.offline)).then(|| directory.join(file))
}

/// Whether a file is the first or only one of a model, and no projector of pictures beside one.
fn is_model(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file).to_ascii_lowercase();
    let is_later = name.contains("-of-") && !name.contains(FIRST_PART);
    name.ends_with(EXTENSION) && !is_later && !name.starts_with("mmproj")
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
fn tag_of(file: &str) -> &str {
    let stem = file.strip_suffix(EXTENSION).unwrap_or(file);
    let stem = stem.split_once(FIRST_PART).map_or(stem, |(stem, _)| stem);
    stem.rsplit(['-', '.', '/']).next().unwrap_or(stem)
}

fn listed(id: &HubId, models: &[&String]) -> String {
    const SHOWN: usize = 12;
    let tags: BTreeSet<&str> = models.iter().map(|file| tag_of(file)).collect();
    let names: Vec<String> = tags.iter().take(SHOWN).map(|tag| format!("{}:{tag}", id.repo)).collect();
    let more = if tags.len() > SHOWN { ", .." } else { "" };
    format!("write one of {}{more}", names.join(", "))
}

/// How many files a model has, by the name of its first.
fn number_of_parts(file: &str) -> usize {
    let count = file.split_once(FIRST_PART).and_then(|(_, rest)| rest.strip_suffix(EXTENSION)?.parse().ok());
    count.unwrap_or(1)
}

/// The files of a model among `files`, by the name of its first.
fn parts(file: &str, files: &BTreeSet<String>) -> Vec<String> {
    let Some((stem, rest)) = file.split_once(FIRST_PART) else { return vec![file.to_owned()] };
    let is_part = |name: &&String| {
        let middle = name.strip_prefix(stem).and_then(|name| name.strip_suffix(rest)?.strip_suffix("-of-")?.strip_prefix('-'));
        middle.is_some_and(|number| number.len() == 5 && number.bytes().all(|digit| digit.is_ascii_digit()))
    };
    files.iter().filter(is_part).cloned().collect()
}

/// The files in a directory and in those inside of it, as a repository names them.
fn files_below(directory: &Path, prefix: &str) -> BTreeSet<String> {
    #[allow(clippy::disallowed_methods, reason = "this module is part of platform")]
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files = BTreeSet::new();
    for entry in entries {
        let Some(name) = entry.file_name().to_str().map(|name| format!("{prefix}{name}")) else { continue };
        if entry.path().is_dir() {
            files.extend(files_below(&entry.path(), &format!("{name}/")));
        } else if entry.path().is_file() {
            files.insert(name);
        }
    }
    files
}
