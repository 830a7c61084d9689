//! Repositories of GGUF files, from which one model is chosen: `org/name:Q4_K_M`.

use super::cache::RepoCache;
use super::environment::HubOptions;
use super::id::{HubId, is_plain_path};
use super::snapshot::Snapshot;
use super::{INDEX, OnProgress, WEIGHTS};
use crate::error::Result;
use crate::platform::{PartName, is_gguf_model};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

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
    for part in parts(&file).iter().filter(|part| snapshot.files.contains(*part)) {
        snapshot.fetch(part, progress)?;
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
    let is_whole = parts(file).iter().all(|part| files.contains(part));
    // Without a tag only the hub knows whether there are others.
    (is_whole && (id.tag.is_some() || options.offline)).then(|| directory.join(file))
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

fn listed(id: &HubId, models: &[&String]) -> String {
    const SHOWN: usize = 12;
    let tags: BTreeSet<String> = models.iter().map(|file| tag_of(file)).collect();
    let names: Vec<String> = tags.iter().take(SHOWN).map(|tag| format!("{}:{tag}", id.repo)).collect();
    let more = if tags.len() > SHOWN { ", .." } else { "" };
    format!("write one of {}{more}", names.join(", "))
}

/// The names of all files of a model, by that of its first.
fn parts(file: &str) -> Vec<String> {
    let Some(name) = PartName::of(Path::new(file)) else { return vec![file.to_owned()] };
    let folder = file.rfind('/').map_or("", |slash| &file[..=slash]);
    (0..name.count).map(|index| format!("{folder}{}", name.of_part(index))).collect()
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
