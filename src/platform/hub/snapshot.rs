//! One commit of a model, fetched file by file.

use super::cache::{RepoCache, create_parent};
use super::checksum;
use super::client::{Answer, Client, Failure, because, is_page, normal_etag, page_failure, range_text, text_of, without_query};
use super::environment::HubOptions;
use super::id::{HubId, is_plain_name, is_plain_path};
use super::{DownloadProgress, OnProgress, RemoteHeader};
use crate::error::{Error, Result, human_bytes};
use crate::platform::ByteSource;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 256 << 10;
const RESUME: &str = "what has arrived is kept: run the command again to resume";
const OFFLINE: &str =
    "unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE to fetch it; `moebius models` lists what is on this machine already";
/// Attempts in a row that bring nothing new.
const MAX_IDLE_ATTEMPTS: u32 = 3;

/// What the hub has of one commit, and the directory in the cache that it goes to.
pub(super) struct Snapshot<'a> {
    options: &'a HubOptions,
    id: &'a HubId,
    client: Client<'a>,
    cache: RepoCache,
    commit: String,
    pub files: BTreeSet<String>,
    pub directory: PathBuf,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// What is known of a file once the hub has answered.
struct Remote {
    etag: String,
    size_bytes: Option<u64>,
}

/// A file on its way into the cache.
struct Arrival<'x> {
    file: &'x str,
    /// Where it is gathered.
    part: &'x Path,
    /// Bytes that are there already.
    from: u64,
    remote: &'x Remote,
}

/// Why a file did not arrive.
enum Trouble {
    /// Bytes came, then no more.
    Cut(String),
    Failed(Failure),
    /// On this machine.
    Local(Error),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Trouble::Failed(failure)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Local(error)
    }
}

impl Arrival<'_> {
    /// Writes the body of `answer` behind what is there; `reached` is how many bytes of the file that makes.
    fn receive(&self, mut answer: Answer, reached: &mut u64, progress: &mut OnProgress<'_>) -> Result<(), Trouble> {
        let Arrival { file, part, from, remote } = *self;
        let written = |error| Trouble::Local(Error::io("write", part)(error));
        let mut target: File = OpenOptions::new().create(true).append(true).open(part).map_err(written)?;
        target.set_len(from).map_err(written)?;
        let mut buffer = vec![0; PIECE_BYTES];
        let mut received = from;
        let mut body = answer.body.as_reader();
        loop {
            if !progress(DownloadProgress { file, received_bytes: received, total_bytes: remote.size_bytes, waiting: None }) {
                return Err(Trouble::Local(Error::Stopped { what: "the download" }));
            }
            let read = match body.read(&mut buffer) {
                Ok(read) => read,
                Err(error) => {
                    let message =
                        format!("{}: {} after {}", without_query(&answer.url), because(&error.into()), human_bytes(received));
                    return Err(Trouble::Cut(message));
                }
            };
            if read == 0 {
                break;
            }
            target.write_all(&buffer[..read]).map_err(written)?;
            received += read as u64;
            *reached = received;
        }
        match remote.size_bytes {
            Some(expected) if received < expected => {
                Err(Trouble::Cut(format!("expected {expected} bytes, received {received}: the connection was cut")))
            }
            _ => Ok(()),
        }
    }
}

impl<'a> Snapshot<'a> {
    /// Asks the hub which commit the revision is and which files it has.
    pub fn open(options: &'a HubOptions, id: &'a HubId, progress: &mut OnProgress<'_>) -> Result<Self> {
        let failed = |message, hint| Error::Download { what: format!("`{}`", id.repo), message, hint };
        let cache = RepoCache::new(options, id);
        if options.offline {
            let place = options.cache_dir.join(id.folder());
            let message = format!(
                "it is not whole in {}, and HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set, so nothing is requested",
                place.display()
            );
            return Err(failed(message, Some(OFFLINE)));
        }
        let client = Client::new(options);
        let HubOptions { endpoint, .. } = options;
        let url = format!("{endpoint}/api/models/{}/revision/{}", id.repo, id.revision.replace('/', "%2F"));
        let text = client.get_json(&url, &mut |note| {
            progress(DownloadProgress::waiting("", note));
        });
        let text = text.map_err(|failure| {
            let hint = failure.hint;
            failed(explained(failure, options, id), hint)
        })?;
        let info: Info = serde_json::from_str(&text).map_err(|error| {
            failed(format!("{url} answered with something that is no list of a model's files: {error}"), None)
        })?;
        if !is_plain_name(&info.sha) {
            return Err(failed(format!("{endpoint} answered with the impossible commit `{}`", info.sha), None));
        }
        let directory = cache.snapshot(&info.sha);
        let files = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        Ok(Snapshot { options, id, client, cache, commit: info.sha, files, directory })
    }

    /// A failure that trying again will not mend.
    pub fn failed(&self, message: String) -> Error {
        Error::Download { what: format!("`{}`", self.id.repo), message, hint: None }
    }

    /// A failure after which the same command goes on from where this one stopped.
    fn interrupted(&self, message: String) -> Error {
        Error::Download { what: format!("`{}`", self.id.repo), message, hint: Some(RESUME) }
    }

    /// Fetches one file unless it is there, from where an earlier attempt stopped.
    ///
    /// # Errors
    /// [`Error::Download`] with what the hub or the network said, [`Error::Io`] if the cache cannot be written. What has arrived stays.
    pub fn fetch(&self, file: &str, progress: &mut OnProgress<'_>) -> Result<()> {
        debug_assert!(is_plain_path(file), "names are checked where they come in");
        if self.directory.join(file).is_file() {
            return Ok(());
        }
        // A server that always begins anew and stops early brings bytes each time, and no progress.
        let (mut idle_attempts, mut furthest) = (0, 0);
        loop {
            let mut reached = 0;
            match self.attempt(file, &mut reached, progress) {
                Ok(()) => return Ok(()),
                Err(Trouble::Local(error)) => return Err(error),
                Err(Trouble::Failed(failure)) => {
                    let Failure { is_transient, hint, .. } = failure;
                    let message = format!("{file}: {}", of_file(failure, self.options, self.id));
                    let hint = if is_transient { Some(RESUME) } else { hint };
                    return Err(Error::Download { what: format!("`{}`", self.id.repo), message, hint });
                }
                Err(Trouble::Cut(message)) => {
                    idle_attempts = if reached > furthest { 0 } else { idle_attempts + 1 };
                    furthest = furthest.max(reached);
                    if idle_attempts == MAX_IDLE_ATTEMPTS {
                        return Err(self.interrupted(format!("{file}: {message}")));
                    }
                    if !progress(DownloadProgress::waiting(file, &message)) {
                        return Err(Error::Stopped { what: "the download" });
                    }
                    std::thread::sleep(self.options.first_pause);
                }
            }
        }
    }

    /// One request for the rest of a file. `reached` is how many bytes of it were there in the end.
    fn attempt(&self, file: &str, reached: &mut u64, progress: &mut OnProgress<'_>) -> Result<(), Trouble> {
        let url = self.url(file);
        let get = |range: Option<&str>, progress: &mut OnProgress<'_>| {
            self.client.get(&url, range, &mut |note| {
                progress(DownloadProgress::waiting(file, note));
            })
        };
        // Where something may be resumed, its name in the cache has to be known before content is asked for.
        let described = if self.cache.has_incomplete() { self.client.describe(&url).ok() } else { None };
        let (remote, first) = match described {
            Some(answer) => (self.described(file, &answer)?, None),
            None => {
                let answer = get(None, progress)?;
                (self.described(file, &answer)?, Some(answer))
            }
        };
        let mut lock = self.cache.lock(&remote.etag)?;
        let _guard = lock.write().map_err(Error::io("lock the cache at", &self.options.cache_dir))?;
        let blob = self.cache.blob(&remote.etag);
        let part = self.cache.incomplete(&remote.etag);
        create_parent(&part)?;
        if !blob.is_file() {
            let already = keep_part(&part, remote.size_bytes)?;
            let answer = match first {
                Some(answer) if already == 0 => answer,
                _ => get((already > 0).then(|| format!("bytes={already}-")).as_deref(), progress)?,
            };
            if is_page(&answer.headers) {
                return Err(page_failure(&answer.url).into());
            }
            let from = if starts_at(&answer, already) { already } else { 0 };
            let arrival = Arrival { file, part: &part, from, remote: &remote };
            arrival.receive(answer, reached, progress)?;
            self.check(&arrival)?;
            fs::rename(&part, &blob).map_err(Error::io("write to the cache at", &blob))?;
        }
        Ok(self.cache.link(&self.commit, file, &blob)?)
    }

    /// What the headers of an answer say about the file.
    fn described(&self, file: &str, answer: &Answer) -> Result<Remote, Trouble> {
        if is_page(&answer.headers) && !file.ends_with(".html") {
            return Err(page_failure(&answer.url).into());
        }
        let etag = answer.linked.etag.clone().or_else(|| text_of(&answer.headers, "etag").map(normal_etag));
        let Some(etag) = etag.filter(|etag| is_plain_name(etag)) else {
            let message = format!("{file}: {} names no checksum (ETag) for it: is this a model hub?", self.options.endpoint);
            return Err(self.failed(message).into());
        };
        let length = text_of(&answer.headers, "content-length").filter(|_| answer.status.is_success());
        let length = length.and_then(|size| size.parse().ok());
        Ok(Remote { etag, size_bytes: answer.linked.size_bytes.or(length) })
    }

    /// Throws away what is not the file.
    fn check(&self, &Arrival { file, part, from, remote }: &Arrival) -> Result<(), Trouble> {
        let found = length(part);
        let problem = match remote.size_bytes {
            Some(expected) if expected != found => Some(format!("expected {expected} bytes, received {found}")),
            _ => checksum::differs(part, found, &remote.etag)?
                .map(|sum| format!("expected the checksum {}, received bytes with {sum}", remote.etag)),
        };
        let Some(problem) = problem else { return Ok(()) };
        fs::remove_file(part).map_err(Error::io("remove the damaged download", part))?;
        if from > 0 {
            return Err(Trouble::Cut(format!("{problem}: beginning anew")));
        }
        let message =
            format!("{file}: {problem}: it was damaged on the way or by a proxy, and has been thrown away ({})", self.url(file));
        Err(self.failed(message).into())
    }

    /// The header of one safetensors file: its length in the first eight bytes, and then no more than that.
    ///
    /// # Errors
    /// [`Error::Download`].
    pub fn header(&self, file: String) -> Result<RemoteHeader> {
        /// That of the safetensors crate.
        const MAX_HEADER_BYTES: u64 = 100_000_000;
        let length: [u8; 8] = self.range(&file, 0..8)?.try_into().expect("the range has eight bytes");
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES {
            return Err(self.failed(format!("{file}: a header of {length} bytes, expected at most {MAX_HEADER_BYTES}")));
        }
        let header = String::from_utf8(self.range(&file, 8..8 + length)?);
        Ok(RemoteHeader { header: header.map_err(|_| self.failed(format!("{file}: the header is not text")))?, file })
    }

    /// Some bytes of a file, by a range request.
    fn range(&self, file: &str, bytes: Range<u64>) -> Result<Vec<u8>> {
        let failed = |failure: Failure| self.failed(format!("{file}: {}", of_file(failure, self.options, self.id)));
        range(&self.client, &self.url(file), bytes).map_err(failed)
    }

    /// A file of which only what is read is fetched; `None` where the hub does not say how long it is.
    pub fn remote(&self, file: &str) -> Option<ByteSource> {
        let url = self.url(file);
        let answer = self.client.describe(&url).ok()?;
        let len = self.described(file, &answer).ok()?.size_bytes?;
        let (options, id, name) = (self.options.clone(), self.id.clone(), file.to_owned());
        let ask = move |bytes: Range<u64>| {
            range(&Client::new(&options), &url, bytes).map_err(|failure| {
                let hint = failure.hint;
                let message = format!("{name}: {}", of_file(failure, &options, &id));
                Error::Download { what: format!("`{}`", id.repo), message, hint }
            })
        };
        Some(ByteSource::remote(file, len, Box::new(ask)))
    }

    /// Makes the requested revision mean this commit from now on, also without a network.
    ///
    /// # Errors
    /// [`Error::Io`] if the cache cannot be written.
    pub fn finish(self) -> Result<PathBuf> {
        self.cache.set_revision(&self.id.revision, &self.commit)?;
        Ok(self.directory)
    }

    fn url(&self, file: &str) -> String {
        format!("{}/{}/resolve/{}/{file}", self.options.endpoint, self.id.repo, self.commit)
    }
}

/// Some bytes of the file at `url`, and no others.
fn range(client: &Client<'_>, url: &str, bytes: Range<u64>) -> Result<Vec<u8>, Failure> {
    let wanted = bytes.end - bytes.start;
    let mut answer = client.get(url, Some(&range_text(bytes)), &mut |_| ())?;
    if is_page(&answer.headers) {
        return Err(page_failure(&answer.url));
    }
    if answer.status.as_u16() != 206 {
        return Err(Failure::new("the server does not answer requests for a part of a file".to_owned()));
    }
    let mut found = Vec::new();
    let read = answer.body.as_reader().take(wanted + 1).read_to_end(&mut found);
    read.map_err(|error| Failure::new(because(&error.into())))?;
    if found.len() as u64 != wanted {
        return Err(Failure::new(format!("asked for {wanted} bytes, received {}", found.len())));
    }
    Ok(found)
}

/// Whether an answer continues a file at byte `at`: a server may ignore the asked-for range.
fn starts_at(answer: &Answer, at: u64) -> bool {
    let range = text_of(&answer.headers, "content-range");
    answer.status.as_u16() == 206
        && range.is_some_and(|range| range.strip_prefix("bytes ").is_some_and(|rest| rest.starts_with(&format!("{at}-"))))
}

pub(super) fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Brings what an interrupted download left into a state that can be resumed, and says how many bytes that is.
fn keep_part(part: &Path, size_bytes: Option<u64>) -> Result<u64> {
    let found = length(part);
    let keep = match size_bytes {
        // Whole but not renamed: asking for the empty rest would be refused, so fetch the last byte again.
        Some(size) if found == size => size.saturating_sub(1),
        Some(size) if found < size => found,
        // Longer than the file, or nobody knows how long it is.
        _ => 0,
    };
    if keep != found {
        OpenOptions::new().write(true).open(part).and_then(|file| file.set_len(keep)).map_err(Error::io("shorten", part))?;
    }
    Ok(keep)
}

/// What a failure means for one file of a model that the hub has.
fn of_file(failure: Failure, options: &HubOptions, id: &HubId) -> String {
    match failure.status.map(|status| status.as_u16()) {
        Some(404) => format!("{}, though the hub lists the file", failure.message),
        Some(401 | 403) if failure.code.as_deref() != Some("GatedRepo") => format!("{}: {}", failure.message, access(options)),
        _ => explained(failure, options, id),
    }
}

/// What to do where something may not be read.
fn access(options: &HubOptions) -> &'static str {
    match options.token {
        Some(_) => "the token that was sent may not read it",
        None => "set HF_TOKEN to a token that may read it",
    }
}

/// What a failure means for the one who asked for `id`.
fn explained(failure: Failure, options: &HubOptions, id: &HubId) -> String {
    let HubOptions { endpoint, .. } = options;
    let HubId { repo, revision, .. } = id;
    let Failure { message, status, code, .. } = failure;
    let access = access(options);
    match (status.map(|status| status.as_u16()), code.as_deref()) {
        (Some(401 | 403), Some("GatedRepo")) => {
            format!("{repo} wants its terms accepted at {endpoint}/{repo}, by the account whose token is in HF_TOKEN ({message})")
        }
        (Some(404), Some("RevisionNotFound")) => format!("{endpoint} has {repo}, but not at revision {revision} ({message})"),
        (Some(404), _) => {
            format!("{endpoint} has no {repo} at revision {revision} (HTTP 404), and there is no directory of that name")
        }
        (Some(status @ (401 | 403)), _) => {
            format!("{endpoint} has no public {repo}: it does not exist or is private (HTTP {status}); {access}")
        }
        _ => message,
    }
}
