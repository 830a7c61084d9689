//! What the hub cache on this machine holds.

use super::cache::RepoCache;
use super::environment::HubOptions;
use super::id::HubId;
use super::{CONFIG, has_all_weights};
use crate::error::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// One revision of a model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModel {
    /// `org/name`, with `@revision` where that is not `main`.
    pub id: String,
    /// The folder with its `config.json`.
    pub directory: PathBuf,
    /// All that the cache keeps of the model, other revisions and unfinished downloads included.
    pub bytes: u64,
    /// All weights are there.
    pub is_whole: bool,
}

/// The models in the cache, by name. Repositories without a `config.json` (data sets, adapters) are left out.
///
/// # Errors
/// As [`HubOptions::from_env`].
pub fn cached_models() -> Result<Vec<CachedModel>> {
    Ok(cached_models_with(&HubOptions::from_env()?))
}

/// [`cached_models`] with the settings as values.
pub fn cached_models_with(options: &HubOptions) -> Vec<CachedModel> {
    let mut models: Vec<CachedModel> = Vec::new();
    for folder in names_in(&options.cache_dir) {
        let Some((organisation, name)) = folder.strip_prefix("models--").and_then(|rest| rest.split_once("--")) else { continue };
        let root = options.cache_dir.join(&folder);
        for revision in revisions(&root.join("refs"), "") {
            let written = if revision == "main" { String::new() } else { format!("@{revision}") };
            let id = format!("{organisation}/{name}{written}");
            let Ok(parsed) = HubId::parse(&id) else { continue };
            let directory = RepoCache::new(options, &parsed).snapshot_of(&revision).filter(|found| found.join(CONFIG).is_file());
            if let Some(directory) = directory {
                models.push(CachedModel { id, bytes: bytes_below(&root), is_whole: has_all_weights(&directory), directory });
            }
        }
    }
    models.sort_by(|one, other| one.id.cmp(&other.id));
    models
}

/// Removes the model `id` with all its revisions from the cache, and says how many bytes that were.
///
/// # Errors
/// [`Error::Argument`] if the cache has no such model, [`Error::Io`] if something cannot be removed.
pub fn remove_cached_model(id: &str) -> Result<u64> {
    remove_cached_model_with(&HubOptions::from_env()?, id)
}

/// [`remove_cached_model`] with the settings as values.
///
/// # Errors
/// As [`remove_cached_model`].
pub fn remove_cached_model_with(options: &HubOptions, id: &str) -> Result<u64> {
    let parsed = HubId::parse(id)?;
    let root = options.cache_dir.join(parsed.folder());
    if !root.is_dir() {
        return Err(Error::Argument {
            what: "model",
            expected: format!("a model in {}", options.cache_dir.display()),
            found: format!("`{id}`, which is not there"),
        });
    }
    let bytes = bytes_below(&root);
    fs::remove_dir_all(&root).map_err(Error::io("remove", &root))?;
    // Locks have no content; another process may hold one.
    let _ = fs::remove_dir_all(options.cache_dir.join(".locks").join(parsed.folder()));
    Ok(bytes)
}

/// The revisions that the files below `refs` name: `main`, `refs/pr/1`.
fn revisions(folder: &Path, prefix: &str) -> Vec<String> {
    let of_entry = |name: String| {
        let path = folder.join(&name);
        if path.is_dir() { revisions(&path, &format!("{prefix}{name}/")) } else { vec![format!("{prefix}{name}")] }
    };
    names_in(folder).into_iter().flat_map(of_entry).collect()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Links count as nothing: what they lead to is counted where it lies.
fn bytes_below(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    if metadata.is_dir() {
        names_in(path).into_iter().map(|name| bytes_below(&path.join(name))).sum()
    } else if metadata.is_file() {
        metadata.len()
    } else {
        0
    }
}
