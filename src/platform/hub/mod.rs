//! Models by name: a directory as it is, a hub id fetched into the usual hub cache.
//!
//! Requests go through `ureq`, and the cache has the layout that other tools share. This module decides which files are fetched and in which
//! order: what can be refused is refused before the weights.

mod cache;
mod checksum;
mod client;
mod environment;
mod gguf;
mod id;
mod listing;
mod snapshot;

pub use environment::HubOptions;
pub use listing::{CachedModel, cached_models, cached_models_with, remove_cached_model, remove_cached_model_with};

use super::background::in_background;
use super::gguf_name::is_gguf_name;
use super::{ByteSource, Fetching, Listener, Preview};
use crate::error::{Error, Result};
use cache::RepoCache;
use id::{HubId, is_plain_name, is_plain_path};
use serde::Deserialize;
use snapshot::Snapshot;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Small files that a model may have; fetched before the weights, so that whole weights mean that these are there too.
const OPTIONAL: [&str; 7] = [
    "generation_config.json",
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
];
/// What older repositories have in place of `tokenizer.json`.
const VOCABULARIES: [&str; 3] = ["vocab.json", "merges.txt", "tokenizer.model"];
/// The directory of further chat templates, each `NAME.jinja`.
const TEMPLATES: &str = "additional_chat_templates/";

/// How far the download of one file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownloadProgress<'a> {
    pub file: &'a str,
    /// Bytes on disk, those of an earlier attempt included.
    pub received_bytes: u64,
    /// `None` where the server does not say.
    pub total_bytes: Option<u64>,
    /// What the download waits for, in words, while no bytes come.
    pub waiting: Option<&'a str>,
}

impl<'a> DownloadProgress<'a> {
    fn waiting(file: &'a str, reason: &'a str) -> Self {
        DownloadProgress { file, received_bytes: 0, total_bytes: None, waiting: Some(reason) }
    }
}

/// Is told about every piece that arrives; false ends the download.
pub type OnProgress<'a> = dyn FnMut(DownloadProgress<'_>) -> bool + 'a;

/// Looks at a model before its weights are fetched; an error ends the download.
pub type Accept<'a> = dyn Fn(Preview<'_>) -> Result<()> + 'a;

/// Whether `name` is a hub id and no directory, so that it may be asked for on the hub, and where that is: `None` for a directory, for what
/// cannot be a hub id, and for a model that is whole in the cache.
///
/// # Errors
/// As [`HubOptions::from_env`].
pub fn hub_of(name: &str) -> Result<Option<String>> {
    Ok(hub_of_with(&HubOptions::from_env()?, name))
}

/// [`hub_of`] with the settings as values.
pub fn hub_of_with(options: &HubOptions, name: &str) -> Option<String> {
    let is_cached = |id: &HubId| {
        gguf::cached(options, id).is_some() || cached_snapshot(options, id).is_some_and(|directory| has_all_weights(&directory))
    };
    let asks = !is_local(name) && HubId::parse(name).is_ok_and(|id| !is_cached(&id));
    (asks && !options.offline).then(|| options.endpoint.clone())
}

/// Whether `name` is a model on this machine: a directory, or a GGUF file.
fn is_local(name: &str) -> bool {
    let path = Path::new(name);
    path.is_dir() || (path.is_file() && is_gguf_name(path))
}

/// The directory of the model `name`: an existing directory or GGUF file, or the hub id `org/name` or `org/name@revision`, which is fetched; of
/// `org/name:Q4_K_M`, and of a repository with one GGUF file alone, that file. A model that is complete in the cache needs no network, and stays
/// at the commit it was fetched from.
///
/// # Errors
/// [`Error::Argument`] if `name` can be neither, [`Error::Download`] with what the hub or the network said, and what `accept` refuses. Call
/// again to resume.
pub fn resolve_model(name: &str, accept: &Accept<'_>, progress: &mut OnProgress<'_>) -> Result<PathBuf> {
    if is_local(name) {
        return Ok(PathBuf::from(name));
    }
    resolve_model_with(&HubOptions::from_env()?, name, accept, progress)
}

/// [`resolve_model`] with the settings as values.
///
/// # Errors
/// As [`resolve_model`].
pub fn resolve_model_with(
    options: &HubOptions,
    name: &str,
    accept: &Accept<'_>,
    progress: &mut OnProgress<'_>,
) -> Result<PathBuf> {
    if is_local(name) {
        return Ok(PathBuf::from(name));
    }
    let id = HubId::parse(name)?;
    if let Some(file) = gguf::cached(options, &id) {
        return Ok(file);
    }
    let cached = cached_snapshot(options, &id).filter(|directory| has_all_weights(directory));
    match cached {
        Some(directory) if directory.join(TOKENIZER).is_file() => Ok(directory),
        // Perhaps the model has no tokenizer, perhaps the cache was filled by a tool that needed none: only the hub knows.
        Some(directory) => Ok(fetch_into_cache(options, &id, accept, progress).unwrap_or(directory)),
        None => fetch_into_cache(options, &id, accept, progress),
    }
}

/// [`resolve_model`] for whoever may not wait: the requests are made on a thread of their own. Dropping the future ends them, and what has
/// arrived stays.
///
/// # Errors
/// As [`resolve_model`].
pub async fn fetch_model(
    name: &str,
    accept: fn(Preview<'_>) -> Result<()>,
    listener: &mut Listener<'_, Fetching>,
) -> Result<PathBuf> {
    if is_local(name) {
        return Ok(PathBuf::from(name));
    }
    fetch_model_with(HubOptions::from_env()?, name, accept, listener).await
}

/// [`fetch_model`] with the settings as values.
///
/// # Errors
/// As [`resolve_model`].
pub async fn fetch_model_with(
    options: HubOptions,
    name: &str,
    accept: fn(Preview<'_>) -> Result<()>,
    listener: &mut Listener<'_, Fetching>,
) -> Result<PathBuf> {
    let name = name.to_owned();
    let work = move |tell: &mut dyn FnMut(Fetching) -> bool| {
        if let Some(endpoint) = hub_of_with(&options, &name) {
            tell(Fetching::Asking { endpoint });
        }
        resolve_model_with(&options, &name, &accept, &mut |progress| {
            tell(match progress.waiting {
                Some(reason) => Fetching::Waiting { reason: reason.to_owned() },
                None => Fetching::File {
                    file: progress.file.to_owned(),
                    received_bytes: progress.received_bytes,
                    total_bytes: progress.total_bytes,
                },
            })
        })
    };
    in_background(work, listener).await
}

/// A directory with at least the `config.json` of the model `name`, without fetching its weights.
///
/// # Errors
/// As [`resolve_model`].
pub fn fetch_config_only(name: &str) -> Result<PathBuf> {
    if is_local(name) {
        return Ok(PathBuf::from(name));
    }
    fetch_config_only_with(&HubOptions::from_env()?, name)
}

/// [`fetch_config_only`] with the settings as values.
///
/// # Errors
/// As [`resolve_model`].
pub fn fetch_config_only_with(options: &HubOptions, name: &str) -> Result<PathBuf> {
    if is_local(name) {
        return Ok(PathBuf::from(name));
    }
    let id = HubId::parse(name)?;
    if let Some(file) = gguf::cached(options, &id) {
        return Ok(file);
    }
    if let Some(directory) = cached_snapshot(options, &id).filter(|_| id.tag.is_none()) {
        return Ok(directory);
    }
    let snapshot = Snapshot::open(options, &id, &mut |_| true)?;
    if gguf::is_meant(&id, &snapshot.files) {
        return Err(snapshot.failed(format!("a GGUF file has no {CONFIG} beside it: it is all in its header")));
    }
    check_files(&snapshot)?;
    snapshot.fetch(CONFIG, &mut |_| true)?;
    snapshot.finish()
}

/// All parts of the GGUF file that `name` means on the hub, of which only what is read is fetched; `None` for a directory, a file, another model, and
/// what is whole in the cache.
///
/// # Errors
/// As [`resolve_model`].
pub fn fetch_gguf_start(name: &str) -> Result<Option<Vec<ByteSource>>> {
    if is_local(name) { Ok(None) } else { fetch_gguf_start_with(&HubOptions::from_env()?, name) }
}

/// [`fetch_gguf_start`] with the settings as values.
///
/// # Errors
/// As [`resolve_model`].
pub fn fetch_gguf_start_with(options: &HubOptions, name: &str) -> Result<Option<Vec<ByteSource>>> {
    let id = HubId::parse(name)?;
    if gguf::cached(options, &id).is_some() || (id.tag.is_none() && cached_snapshot(options, &id).is_some()) {
        return Ok(None);
    }
    let snapshot = Snapshot::open(options, &id, &mut |_| true)?;
    let Some(parts) = gguf::meant(&id, &snapshot)? else { return Ok(None) };
    let unknown = || snapshot.failed(format!("{}: the server does not say how long it is", parts[0]));
    gguf::sources(&snapshot, &parts).map(Some).ok_or_else(unknown)
}

/// One safetensors file on the hub, of which only the header was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteHeader {
    pub file: String,
    /// The JSON that a safetensors file begins with.
    pub header: String,
}

/// The headers of all weights of the hub model `name`: a few kilobytes of each file, none of the weights.
///
/// # Errors
/// As [`resolve_model`].
pub fn fetch_headers(name: &str) -> Result<Vec<RemoteHeader>> {
    fetch_headers_with(&HubOptions::from_env()?, name)
}

/// [`fetch_headers`] with the settings as values.
///
/// # Errors
/// As [`resolve_model`].
pub fn fetch_headers_with(options: &HubOptions, name: &str) -> Result<Vec<RemoteHeader>> {
    let id = HubId::parse(name)?;
    let snapshot = Snapshot::open(options, &id, &mut |_| true)?;
    let files: Vec<String> = if snapshot.files.contains(WEIGHTS) {
        vec![WEIGHTS.to_owned()]
    } else if snapshot.files.contains(INDEX) {
        snapshot.fetch(INDEX, &mut |_| true)?;
        shards(&snapshot.directory)?.into_iter().collect()
    } else {
        return Err(without_weights(&snapshot));
    };
    files.into_iter().map(|file| snapshot.header(file)).collect()
}

fn fetch_into_cache(options: &HubOptions, id: &HubId, accept: &Accept<'_>, progress: &mut OnProgress<'_>) -> Result<PathBuf> {
    let snapshot = Snapshot::open(options, id, progress)?;
    if let Some(parts) = gguf::meant(id, &snapshot)? {
        // Where a server does not send parts of a file, the header is looked at once all of it is there.
        gguf::sources(&snapshot, &parts).map_or(Ok(()), |sources| accept(Preview::Gguf(sources)))?;
        return gguf::fetch(snapshot, &parts, progress);
    }
    check_files(&snapshot)?;
    snapshot.fetch(CONFIG, progress)?;
    let config = snapshot.directory.join(CONFIG);
    #[allow(clippy::disallowed_methods, reason = "this module is part of platform")]
    accept(Preview::Config(&fs::read_to_string(&config).map_err(Error::io("read", config))?))?;
    let has_weights = snapshot.files.contains(WEIGHTS);
    if !has_weights && !snapshot.files.contains(INDEX) {
        return Err(without_weights(&snapshot));
    }
    let templates = snapshot.files.iter().map(String::as_str).filter(|file| file.starts_with(TEMPLATES) && is_plain_path(file));
    let vocabularies = VOCABULARIES.into_iter().filter(|_| !snapshot.files.contains(TOKENIZER));
    for file in OPTIONAL.into_iter().chain(vocabularies).filter(|file| snapshot.files.contains(*file)).chain(templates) {
        snapshot.fetch(file, progress)?;
    }
    if has_weights {
        snapshot.fetch(WEIGHTS, progress)?;
    } else {
        snapshot.fetch(INDEX, progress)?;
        for shard in shards(&snapshot.directory)? {
            snapshot.fetch(&shard, progress)?;
        }
    }
    snapshot.finish()
}

/// The directory in the cache that holds this revision, if it has a `config.json`.
fn cached_snapshot(options: &HubOptions, id: &HubId) -> Option<PathBuf> {
    RepoCache::new(options, id).snapshot_of(&id.revision).filter(|directory| directory.join(CONFIG).is_file())
}

/// A repository without `config.json` is told by what it has instead.
fn check_files(snapshot: &Snapshot) -> Result<()> {
    if snapshot.files.contains(CONFIG) {
        return Ok(());
    }
    Err(snapshot.failed(format!("the repository has no {CONFIG}{}", instead(&snapshot.files))))
}

fn without_weights(snapshot: &Snapshot) -> Error {
    let instead = instead(&snapshot.files);
    snapshot.failed(format!("the repository has neither {WEIGHTS} nor {INDEX}{instead}"))
}

/// What a repository has in place of the files that are read, and what can be done.
fn instead(files: &BTreeSet<String>) -> String {
    type Kind = (fn(&str) -> bool, &'static str);
    const KINDS: [Kind; 5] = [
        (
            |file| file == "params.json" || file.starts_with("consolidated"),
            "Mistral's own layout, which is not read: look for a repository in the layout of transformers",
        ),
        (
            |file| file.starts_with("pytorch_model") && (file.ends_with(".bin") || file.ends_with(".bin.index.json")),
            "weights as Python pickles, which are not read because they may run code: convert them to safetensors, for example with \
             `save_pretrained` of transformers",
        ),
        (|file| file == "adapter_config.json", "an adapter (LoRA), which is not read: merge it into its base model first"),
        (|file| file.ends_with(".onnx"), "a model for ONNX Runtime, which is not read: look for the repository it was made from"),
        (|file| file.ends_with(".safetensors"), "safetensors under other names, which are not read"),
    ];
    for (is_it, what) in KINDS {
        if let Some(file) = files.iter().find(|file| is_it(file)) {
            return format!("; it has `{file}`: {what}");
        }
    }
    "; other formats are not read".to_owned()
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// The shards that the index in `directory` names.
fn shards(directory: &Path) -> Result<BTreeSet<String>> {
    let damaged = |message: String| Error::Json { file: INDEX.to_owned(), message };
    let path = directory.join(INDEX);
    #[allow(clippy::disallowed_methods, reason = "this module is part of platform")]
    let text = fs::read_to_string(&path).map_err(Error::io("read", path))?;
    let index: ShardIndex = serde_json::from_str(&text).map_err(|source| damaged(source.to_string()))?;
    let shards: BTreeSet<String> = index.weight_map.into_values().collect();
    match shards.iter().find(|shard| !is_plain_name(shard)) {
        Some(shard) => Err(damaged(format!("`{shard}` is not a file name"))),
        None => Ok(shards),
    }
}

fn has_all_weights(directory: &Path) -> bool {
    directory.join(WEIGHTS).is_file()
        || shards(directory).is_ok_and(|shards| !shards.is_empty() && shards.iter().all(|shard| directory.join(shard).is_file()))
}
