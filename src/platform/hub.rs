//! Models by name: a directory as it is, a hub id fetched into the usual hub cache.
//!
//! The crate `hf-hub` does the requests and the layout of the cache, which other tools share. It asks for the missing rest of a file
//! that was interrupted; this module decides which files, pins them to one commit, goes on after a cut connection and checks sizes.

use crate::error::{Error, Result};
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Small files that a model may have; fetched before the weights, so that whole weights mean that these are there too.
const OPTIONAL: [&str; 4] = ["generation_config.json", TOKENIZER, "tokenizer_config.json", "chat_template.jinja"];

/// Where models come from and where they are kept.
#[derive(Clone)]
pub struct HubOptions {
    /// Root of the hub's addresses, without a slash at the end.
    pub endpoint: String,
    /// The directory of `models--org--name`.
    pub cache_dir: PathBuf,
    /// For private and gated models.
    pub token: Option<String>,
}

impl HubOptions {
    /// What the tools of Hugging Face use: `HF_ENDPOINT`, `HF_HUB_CACHE` or `HF_HOME`, `HF_TOKEN` or the token file of their login.
    ///
    /// # Errors
    /// [`Error::Download`] if there is neither a home directory nor `HF_HOME`.
    pub fn from_env() -> Result<Self> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let home = set("HF_HOME").map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cache").join("huggingface")));
        let Some(home) = home else {
            let message = "there is no home directory to keep models in: set HF_HOME".to_owned();
            return Err(Error::Download { what: "models".to_owned(), message });
        };
        Ok(HubOptions {
            endpoint: set("HF_ENDPOINT").unwrap_or("https://huggingface.co".to_owned()).trim_end_matches('/').to_owned(),
            token: set("HF_TOKEN").or_else(|| Cache::new(home.join("hub")).token()),
            cache_dir: set("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
        })
    }
}

/// How far the download of one file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownloadProgress<'a> {
    pub file: &'a str,
    /// Bytes on disk, those of an earlier attempt included.
    pub received_bytes: u64,
    pub total_bytes: u64,
}

/// Is told about every piece that arrives.
pub type OnProgress<'a> = dyn FnMut(DownloadProgress<'_>) + 'a;

/// The directory of the model `name`: an existing directory, or the hub id `org/name` or `org/name@revision`, which is fetched. A
/// model that is complete in the cache needs no network, and stays at the commit it was fetched from.
///
/// # Errors
/// [`Error::Argument`] if `name` can be neither, [`Error::Download`] with what the hub or the network said. Call again to resume.
pub fn resolve_model(name: &str, progress: &mut OnProgress<'_>) -> Result<PathBuf> {
    if Path::new(name).is_dir() {
        return Ok(PathBuf::from(name));
    }
    resolve_model_with(&HubOptions::from_env()?, name, progress)
}

/// [`resolve_model`] with the settings as values.
///
/// # Errors
/// As [`resolve_model`].
pub fn resolve_model_with(options: &HubOptions, name: &str, progress: &mut OnProgress<'_>) -> Result<PathBuf> {
    if Path::new(name).is_dir() {
        return Ok(PathBuf::from(name));
    }
    let id = HubId::parse(name)?;
    let cached = id.cached_snapshot(options).filter(|directory| has_all_weights(directory));
    match cached {
        Some(directory) if directory.join(TOKENIZER).is_file() => Ok(directory),
        // Perhaps the model has no tokenizer, perhaps the cache was filled by a tool that needed none: only the hub knows.
        Some(directory) => Ok(fetch_model(options, &id, progress).unwrap_or(directory)),
        None => fetch_model(options, &id, progress),
    }
}

/// A directory with at least the `config.json` of the model `name`, without fetching its weights.
///
/// # Errors
/// As [`resolve_model`].
pub fn fetch_config_only(name: &str) -> Result<PathBuf> {
    if Path::new(name).is_dir() {
        return Ok(PathBuf::from(name));
    }
    fetch_config_only_with(&HubOptions::from_env()?, name)
}

/// [`fetch_config_only`] with the settings as values.
///
/// # Errors
/// As [`resolve_model`].
pub fn fetch_config_only_with(options: &HubOptions, name: &str) -> Result<PathBuf> {
    if Path::new(name).is_dir() {
        return Ok(PathBuf::from(name));
    }
    let id = HubId::parse(name)?;
    if let Some(directory) = id.cached_snapshot(options) {
        return Ok(directory);
    }
    let snapshot = Snapshot::open(options, &id)?;
    snapshot.fetch(CONFIG, &mut |_| ())?;
    snapshot.finish()
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
    let snapshot = Snapshot::open(options, &id)?;
    let files: Vec<String> = if snapshot.files.contains(WEIGHTS) {
        vec![WEIGHTS.to_owned()]
    } else if snapshot.files.contains(INDEX) {
        snapshot.fetch(INDEX, &mut |_| ())?;
        shards(&snapshot.directory)?.into_iter().collect()
    } else {
        return Err(snapshot.failed(format!("the repository has neither {WEIGHTS} nor {INDEX}; other formats are not read")));
    };
    files.into_iter().map(|file| snapshot.header(file)).collect()
}

fn fetch_model(options: &HubOptions, id: &HubId, progress: &mut OnProgress<'_>) -> Result<PathBuf> {
    let snapshot = Snapshot::open(options, id)?;
    snapshot.fetch(CONFIG, progress)?;
    for file in OPTIONAL.into_iter().filter(|file| snapshot.files.contains(*file)) {
        snapshot.fetch(file, progress)?;
    }
    if snapshot.files.contains(WEIGHTS) {
        snapshot.fetch(WEIGHTS, progress)?;
    } else if snapshot.files.contains(INDEX) {
        snapshot.fetch(INDEX, progress)?;
        for shard in shards(&snapshot.directory)? {
            snapshot.fetch(&shard, progress)?;
        }
    } else {
        return Err(snapshot.failed(format!("the repository has neither {WEIGHTS} nor {INDEX}; other formats are not read")));
    }
    snapshot.finish()
}

/// A model's name on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HubId {
    repo: String,
    revision: String,
}

impl HubId {
    fn parse(name: &str) -> Result<Self> {
        let (repo, revision) = name.split_once('@').unwrap_or((name, "main"));
        let is_id = repo.split('/').count() == 2 && repo.split('/').all(is_plain_name);
        if !is_id || !revision.split('/').all(is_plain_name) {
            return Err(Error::Argument {
                what: "model",
                expected: "an existing directory, or a hub id such as org/name or org/name@revision".to_owned(),
                found: format!("`{name}`, which is neither"),
            });
        }
        Ok(HubId { repo: repo.to_owned(), revision: revision.to_owned() })
    }

    fn at(&self, revision: &str) -> Repo {
        Repo::with_revision(self.repo.clone(), RepoType::Model, revision.to_owned())
    }

    /// The directory in the cache that holds this revision, if it has a `config.json`.
    fn cached_snapshot(&self, options: &HubOptions) -> Option<PathBuf> {
        let cache = Cache::new(options.cache_dir.clone()).repo(self.at(&self.revision));
        // A revision that is a commit has no entry of its own among the references.
        let by_commit = cache.pointer_path(&self.revision);
        if by_commit.join(CONFIG).is_file() { Some(by_commit) } else { cache.get(CONFIG)?.parent().map(Path::to_owned) }
    }
}

/// Whether `text` can be one step of a path and nothing else: names from the network become paths in the cache.
fn is_plain_name(text: &str) -> bool {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    !text.is_empty() && !text.starts_with('.') && text.chars().all(is_plain)
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

/// One commit of a model: what the hub has of it, and the directory in the cache that it goes to.
struct Snapshot<'a> {
    options: &'a HubOptions,
    id: &'a HubId,
    api: Api,
    repo: ApiRepo,
    commit: String,
    files: BTreeSet<String>,
    directory: PathBuf,
}

impl<'a> Snapshot<'a> {
    /// Asks the hub which commit the revision is and which files it has.
    fn open(options: &'a HubOptions, id: &'a HubId) -> Result<Self> {
        let failed = |message: String| Error::Download { what: format!("`{}`", id.repo), message };
        let cache = Cache::new(options.cache_dir.clone());
        let api = ApiBuilder::from_cache(cache.clone())
            .with_endpoint(options.endpoint.clone())
            .with_token(options.token.clone())
            .with_progress(false)
            .with_user_agent("moebius", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let info = api.repo(id.at(&id.revision)).info().map_err(|error| failed(explain(&error, options, id)))?;
        if !is_plain_name(&info.sha) {
            return Err(failed(format!("{} answered with the impossible commit `{}`", options.endpoint, info.sha)));
        }
        let pinned = id.at(&info.sha);
        let directory = cache.repo(pinned.clone()).pointer_path(&info.sha);
        let files = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        let repo = api.repo(pinned);
        Ok(Snapshot { options, id, api, repo, commit: info.sha, files, directory })
    }

    fn failed(&self, message: String) -> Error {
        Error::Download { what: format!("`{}`", self.id.repo), message }
    }

    /// Fetches one file unless it is there, from where an earlier attempt stopped, and goes on as long as attempts bring new bytes.
    fn fetch(&self, file: &str, progress: &mut OnProgress<'_>) -> Result<()> {
        let target = self.directory.join(file);
        if target.is_file() {
            return Ok(());
        }
        // What is left of a deleted blob would keep the crate from linking to the new one.
        if target.is_symlink() {
            fs::remove_file(&target).map_err(Error::io("remove the broken link", &target))?;
        }
        let failed = |error: ApiError| self.failed(format!("{file}: {}", explain(&error, self.options, self.id)));
        loop {
            let metadata = self.api.metadata(&self.repo.url(file)).map_err(failed)?;
            let blob = Cache::new(self.options.cache_dir.clone()).repo(self.id.at(&self.commit)).blob_path(metadata.etag());
            let part = blob.with_extension("part");
            let size = metadata.size() as u64;
            let already = prepare_part(&part, size)?;
            match self.repo.download_with_progress(file, Reporter { file, received: 0, total: size, progress: &mut *progress }) {
                Ok(path) => return self.check_size(file, &path, &blob, size),
                Err(_) if length(&part) > already => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// The header of one safetensors file: its length in the first eight bytes, and then no more than that.
    fn header(&self, file: String) -> Result<RemoteHeader> {
        /// That of the safetensors crate.
        const MAX_HEADER_BYTES: u64 = 100_000_000;
        let url = self.repo.url(&file);
        let length: [u8; 8] = self.range(&file, &url, 0..8)?.try_into().expect("the range has eight bytes");
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES {
            return Err(self.failed(format!("{file}: a header of {length} bytes, expected at most {MAX_HEADER_BYTES}")));
        }
        let header = String::from_utf8(self.range(&file, &url, 8..8 + length)?);
        Ok(RemoteHeader { header: header.map_err(|_| self.failed(format!("{file}: the header is not text")))?, file })
    }

    /// Some bytes of a file, by a range request.
    fn range(&self, file: &str, url: &str, bytes: Range<u64>) -> Result<Vec<u8>> {
        let wanted = bytes.end - bytes.start;
        let mut request = ureq::get(url).header("Range", format!("bytes={}-{}", bytes.start, bytes.end.max(1) - 1));
        if let Some(token) = &self.options.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let failed =
            |error| self.failed(format!("{file}: {}", explain(&ApiError::RequestError(Box::new(error)), self.options, self.id)));
        let mut response = request.call().map_err(failed)?;
        if response.status() != 206 {
            return Err(self.failed(format!("{file}: the server does not answer requests for a part of a file")));
        }
        let found = response.body_mut().with_config().limit(wanted + 1).read_to_vec().map_err(failed)?;
        if found.len() as u64 != wanted {
            return Err(self.failed(format!("{file}: asked for {wanted} bytes, received {}", found.len())));
        }
        Ok(found)
    }

    /// A server that ignores the asked-for range sends the file from its beginning once more.
    fn check_size(&self, file: &str, path: &Path, blob: &Path, size: u64) -> Result<()> {
        let found = length(path);
        if found == size {
            return Ok(());
        }
        for path in [path, blob] {
            fs::remove_file(path).map_err(Error::io("remove the damaged download", path))?;
        }
        Err(self.failed(format!("{file}: expected {size} bytes, received {found}")))
    }

    /// Makes the requested revision mean this commit from now on, also without a network.
    fn finish(self) -> Result<PathBuf> {
        let cache = Cache::new(self.options.cache_dir.clone()).repo(self.id.at(&self.id.revision));
        cache.create_ref(&self.commit).map_err(Error::io("write to", &self.options.cache_dir))?;
        Ok(self.directory)
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Brings what an interrupted download left into a state that can be resumed, and says how many bytes that is.
fn prepare_part(part: &Path, size: u64) -> Result<u64> {
    let found = length(part);
    if found == 0 || found < size {
        return Ok(found);
    }
    // Whole but not renamed: asking for the empty rest would be refused, so fetch the last byte again. Longer: not this file.
    let keep = if found == size { size - 1 } else { 0 };
    fs::OpenOptions::new().write(true).open(part).and_then(|file| file.set_len(keep)).map_err(Error::io("shorten", part))?;
    Ok(keep)
}

/// What an error of `hf-hub` means for the one who asked for `id`.
fn explain(error: &ApiError, options: &HubOptions, id: &HubId) -> String {
    let ApiError::RequestError(source) = error else { return error.to_string() };
    let HubOptions { endpoint, .. } = options;
    let HubId { repo, revision } = id;
    match **source {
        ureq::Error::StatusCode(404) => {
            format!("{endpoint} has no {repo} at revision {revision} (HTTP 404), and there is no directory of that name")
        }
        ureq::Error::StatusCode(status @ (401 | 403)) => {
            format!("{endpoint} has no public {repo}: it does not exist, is private, or wants its terms accepted (HTTP {status})")
        }
        _ => format!("{endpoint}: {source}"),
    }
}

struct Reporter<'a, 'p> {
    file: &'a str,
    received: u64,
    total: u64,
    progress: &'a mut OnProgress<'p>,
}

impl hf_hub::api::Progress for Reporter<'_, '_> {
    fn init(&mut self, size: usize, _filename: &str) {
        self.received = 0;
        self.total = size as u64;
    }

    fn update(&mut self, size: usize) {
        self.received += size as u64;
        (self.progress)(DownloadProgress { file: self.file, received_bytes: self.received, total_bytes: self.total });
    }

    fn finish(&mut self) {}
}
