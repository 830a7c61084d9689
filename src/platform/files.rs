//! Files of an operating system. All of it is async, because the same surface over URLs has to be.

#![allow(clippy::disallowed_methods, reason = "this is what clippy.toml points to")]

use super::read_pool::read_at;
use crate::{Error, Result};
use memmap2::Mmap;
use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// The largest page that systems map files with.
#[cfg(unix)]
const READ_AROUND_BYTES: u64 = 2 << 20;

/// Reads after which a file is looked at again: whether somebody has written to it.
const READS_PER_LOOK: u64 = 1024;

/// Bytes that are read piece by piece: a memory-mapped file, or one on a server.
#[derive(Debug)]
pub struct ByteSource {
    path: PathBuf,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Here(Mapped),
    Elsewhere(Remote),
}

#[derive(Debug)]
struct Mapped {
    map: Mmap,
    file: Arc<File>,
    /// Length and time of the last change, as it was opened.
    opened: Looks,
    reads: AtomicU64,
}

/// Asks for the bytes in a range, and waits for them.
pub(super) type Ask = Box<dyn Fn(Range<u64>) -> Result<Vec<u8>> + Send + Sync>;

struct Remote {
    len: u64,
    ask: Ask,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("len", &self.len).finish_non_exhaustive()
    }
}

/// What tells whether a file has changed.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Looks {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Looks {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Looks { bytes: metadata.len(), modified: metadata.modified().ok() })
    }
}

impl ByteSource {
    /// Maps the file at `path`. Nothing is read yet.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn open(path: &Path) -> Result<Self> {
        let file = open_regular(path).map_err(Error::io("open", path))?;
        // SAFETY: the map is only read. As with every memory-mapped file, whoever shortens it meanwhile ends this process.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        let opened = Looks::of(&file).map_err(Error::io("open", path))?;
        let content = Content::Here(Mapped { map, file: Arc::new(file), opened, reads: AtomicU64::new(0) });
        Ok(ByteSource { path: path.to_owned(), content })
    }

    /// A file of `len` bytes on a server. Every read is a request, for which the calling thread waits.
    pub(super) fn remote(name: &str, len: u64, ask: Ask) -> Self {
        ByteSource { path: PathBuf::from(name), content: Content::Elsewhere(Remote { len, ask }) }
    }

    /// The path, for messages.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "an empty source has no use")]
    pub fn len(&self) -> u64 {
        match &self.content {
            Content::Here(mapped) => mapped.map.len() as u64,
            Content::Elsewhere(remote) => remote.len,
        }
    }

    /// The bytes in `range`.
    ///
    /// # Errors
    /// [`Error::Io`] if it ends beyond [`len`](Self::len); [`Error::Download`] of a file on a server.
    pub async fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let beyond = || {
            let problem = format!("bytes {} to {} of {}", range.start, range.end, self.len());
            Error::io("read", &self.path)(io::Error::new(ErrorKind::UnexpectedEof, problem))
        };
        match &self.content {
            Content::Here(mapped) => {
                let bytes = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
                let bytes = bytes.and_then(|(start, end)| mapped.map.get(start..end)).ok_or_else(beyond)?;
                Ok(Cow::Borrowed(bytes))
            }
            Content::Elsewhere(remote) if range.start <= range.end && range.end <= remote.len => {
                if range.is_empty() {
                    Ok(Cow::Borrowed(&[]))
                } else {
                    (remote.ask)(range).map(Cow::Owned)
                }
            }
            Content::Elsewhere(_) => Err(beyond()),
        }
    }

    /// As [`read`](Self::read), but not through the map: on a thread that may wait for the disk. A file that was cut short is an error.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::SourceChanged`] where somebody has written to the file since it was opened.
    pub async fn read_owned(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let Content::Here(mapped) = &self.content else { return Ok(self.read(range).await?.into_owned()) };
        let bytes = read_at(&mapped.file, range.clone()).await;
        if bytes.is_err() || mapped.reads.fetch_add(1, Ordering::Relaxed) % READS_PER_LOOK == READS_PER_LOOK - 1 {
            self.look_again(mapped)?;
        }
        bytes.map_err(|error| {
            let problem = format!("bytes {} to {}: {error}", range.start, range.end);
            Error::io("read an expert from", &self.path)(io::Error::new(error.kind(), problem))
        })
    }

    fn look_again(&self, mapped: &Mapped) -> Result<()> {
        let now = Looks::of(&mapped.file).map_err(Error::io("look at", &self.path))?;
        if now == mapped.opened {
            return Ok(());
        }
        let found = match (mapped.opened.bytes, now.bytes) {
            (before, now) if before != now => format!("{now} bytes instead of {before}"),
            _ => "the same length, written to".to_owned(),
        };
        Err(Error::SourceChanged { file: self.name(), found })
    }

    /// Says that the bytes in `range` are not needed for now: they stay in the system's cache, and no longer count as memory of this process.
    pub fn release(&self, range: Range<u64>) {
        #[cfg(unix)]
        if let Content::Here(mapped) = &self.content
            && range.start < range.end
            && range.end <= self.len()
        {
            // SAFETY: the map is of a file and never written, so whoever reads there again finds the same bytes. Nothing is lost where the
            // system refuses.
            let _ = unsafe {
                // A read maps in more than was asked for, on either side.
                let start = range.start.saturating_sub(READ_AROUND_BYTES) as usize;
                let end = (range.end + READ_AROUND_BYTES).min(self.len()) as usize;
                mapped.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start)
            };
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

/// Whether there is a file at `path`.
pub async fn is_file(path: &Path) -> bool {
    path.is_file()
}

/// Names of the files in `directory`, sorted; none where it cannot be read.
pub fn file_names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().filter(|entry| entry.path().is_file());
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The folders in `directory`, sorted.
///
/// # Errors
/// [`Error::Io`].
pub fn folders_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).map_err(Error::io("read", directory))?;
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    Ok(folders)
}

/// Length of a file in bytes; `None` where there is none.
pub fn file_length(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(|metadata| metadata.is_file()).map(|metadata| metadata.len())
}

/// Removes a directory with all that is in it. One that is not there is no error.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// The whole of a UTF-8 text.
///
/// # Errors
/// [`Error::Io`].
pub async fn read_text(path: &Path) -> Result<String> {
    text_at(path).map_err(Error::io("read", path))
}

/// The whole of the text `file` of the model in `directory`.
///
/// # Errors
/// [`Error::MissingFile`] if there is no such file, [`Error::Io`] if it cannot be read.
pub async fn read_model_text(directory: &Path, file: &'static str) -> Result<String> {
    let path = directory.join(file);
    text_at(&path).map_err(|error| match error.kind() {
        // Beside a model in one file there is nothing.
        ErrorKind::NotFound | ErrorKind::NotADirectory => Error::MissingFile { directory: directory.to_owned(), file },
        _ => Error::io("read", path)(error),
    })
}

fn text_at(path: &Path) -> io::Result<String> {
    const MAX_BYTES: u64 = 1 << 30;
    let file = open_regular(path)?;
    if file.metadata()?.len() > MAX_BYTES {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "a text of more than 1 GiB"));
    }
    io::read_to_string(file)
}

/// Opens a file; refuses directories and devices, some of which would block.
fn open_regular(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    File::open(path)
}
