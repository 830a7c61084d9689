//! Repositories of GGUF files, from which one model is chosen: `org/name:Q4_K_M`.

use super::OnProgress;
use super::cache::RepoCache;
use super::environment::HubOptions;
use super::id::{HubId, is_plain_path};
use super::snapshot::Snapshot;
use crate::error::Result;
use crate::platform::ByteSource;
use crate::platform::gguf_choice::GgufChoice;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Whether the id means a GGUF file of a repository with these files.
pub(super) fn is_meant(id: &HubId, files: &BTreeSet<String>) -> bool {
    choice(id).is_meant(&plain_paths(files))
}

/// The GGUF file that the id means, and its other parts; `None` where it means no such file.
///
/// # Errors
/// [`Error::Download`](crate::Error::Download) if there is none or several.
pub(super) fn meant(id: &HubId, snapshot: &Snapshot<'_>) -> Result<Option<Vec<String>>> {
    choice(id).of(&plain_paths(&snapshot.files)).map_err(|problem| snapshot.failed(problem))
}

/// The parts that the hub has, of which only what is read is fetched; `None` where it does not say how long they are.
pub(super) fn sources(snapshot: &Snapshot<'_>, parts: &[String]) -> Option<Vec<ByteSource>> {
    parts.iter().filter(|part| snapshot.files.contains(*part)).map(|part| snapshot.remote(part)).collect()
}

/// Fetches all parts of a GGUF file; the first is what to open.
///
/// # Errors
/// As [`Snapshot::fetch`].
pub(super) fn fetch(snapshot: Snapshot<'_>, parts: &[String], progress: &mut OnProgress<'_>) -> Result<PathBuf> {
    for part in parts.iter().filter(|part| snapshot.files.contains(*part)) {
        snapshot.fetch(part, progress)?;
    }
    Ok(snapshot.finish()?.join(&parts[0]))
}

/// The GGUF file in the cache that the id means, if one alone is there with all of its parts.
pub(super) fn cached(options: &HubOptions, id: &HubId) -> Option<PathBuf> {
    let directory = RepoCache::new(options, id).snapshot_of(&id.revision)?;
    let files = files_below(&directory, "");
    if !is_meant(id, &files) {
        return None;
    }
    let parts = choice(id).one_of(&plain_paths(&files)).ok()?;
    let is_whole = parts.iter().all(|part| files.contains(part));
    // Without a tag only the hub knows whether there are others.
    (is_whole && (id.tag.is_some() || options.offline)).then(|| directory.join(&parts[0]))
}

fn choice(id: &HubId) -> GgufChoice<'_> {
    GgufChoice { repo: &id.repo, tag: id.tag.as_deref() }
}

fn plain_paths(files: &BTreeSet<String>) -> Vec<&str> {
    files.iter().map(String::as_str).filter(|file| is_plain_path(file)).collect()
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
