//! Time and files of a browser.
//!
//! There are no directories here: whoever embeds the library mounts named files, and [`ByteSource::open`] finds them by their path.

use crate::error::{Error, Result};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use wasm_bindgen::prelude::*;

/// A browser page may not wait.
pub const CAN_BLOCK: bool = false;

/// Is told what happens while something is done. Functions of JavaScript belong to one thread.
pub type Listener<'a, E> = dyn FnMut(E) + 'a;

/// Is told how much is done, and how much that is of.
pub type Progress<'a> = dyn FnMut(u64, u64) + 'a;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;

    /// What JavaScript hands in for a file: a `Blob`, a file of the browser's storage, or ranges of a URL. Read in slices, so that weights
    /// never lie in memory whole.
    #[wasm_bindgen(typescript_type = "ModelFile")]
    #[derive(Debug, Clone)]
    pub type JsFile;

    /// Length in bytes.
    #[wasm_bindgen(method, getter)]
    fn size(this: &JsFile) -> f64;

    /// The bytes from `start` up to `end`.
    #[wasm_bindgen(method, catch)]
    async fn read(this: &JsFile, start: f64, end: f64) -> Result<JsValue, JsValue>;
}

thread_local! {
    /// Every mounted file by its path; where several mounts have the same path, the newest is last. A module runs on one thread.
    static FILES: RefCell<BTreeMap<PathBuf, Vec<(u32, JsFile)>>> = const { RefCell::new(BTreeMap::new()) };
    static MOUNTS: Cell<u32> = const { Cell::new(0) };
}

/// The files of a model, which can be opened until this is dropped. It hides what was mounted under the same paths before, for so long.
#[derive(Debug)]
pub struct Mount {
    number: u32,
    model: PathBuf,
}

impl Mount {
    /// Mounts `files` by their names in a directory called `name`, or one with a name of its own. Where `name` ends in the name of one of the
    /// files, that one is the model, and the others lie beside it.
    pub fn new(name: Option<&str>, files: impl IntoIterator<Item = (String, JsFile)>) -> Self {
        let number = MOUNTS.replace(MOUNTS.get() + 1);
        let model = name.map_or_else(|| PathBuf::from(format!("model-{number}")), PathBuf::from);
        let files: Vec<(String, JsFile)> = files.into_iter().collect();
        let is_file = files.iter().any(|(file, _)| model.file_name().is_some_and(|name| name == file.as_str()));
        let directory = if is_file { model.parent().unwrap_or(Path::new("")) } else { &model };
        FILES.with_borrow_mut(|all| {
            for (name, file) in files {
                all.entry(directory.join(name)).or_default().push((number, file));
            }
        });
        Mount { number, model }
    }

    /// What there is to open: the directory, or the file.
    pub fn model(&self) -> &Path {
        &self.model
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        FILES.with_borrow_mut(|all| {
            all.retain(|_, files| {
                files.retain(|(number, _)| *number != self.number);
                !files.is_empty()
            });
        });
    }
}

fn find(path: &Path) -> io::Result<JsFile> {
    let newest = |files: &BTreeMap<PathBuf, Vec<(u32, JsFile)>>| Some(files.get(path)?.last()?.1.clone());
    FILES.with_borrow(newest).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Bytes that are read piece by piece.
#[derive(Debug)]
pub struct ByteSource {
    path: PathBuf,
    file: JsFile,
    len: u64,
}

impl ByteSource {
    /// Finds the mounted file. Nothing is read yet.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn open(path: &Path) -> Result<Self> {
        let file = find(path).map_err(Error::io("open", path))?;
        let len = file.size() as u64;
        Ok(ByteSource { path: path.to_owned(), file, len })
    }

    /// The path, for messages.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "an empty source has no use")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The bytes in `range`.
    ///
    /// # Errors
    /// [`Error::Io`] if it ends beyond [`len`](Self::len), or if JavaScript cannot read it.
    pub async fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let failed = |problem: String| Error::io("read", &self.path)(io::Error::other(problem));
        if range.start > range.end || range.end > self.len {
            return Err(failed(format!("bytes {} to {} of {}", range.start, range.end, self.len)));
        }
        let bytes = self.file.read(range.start as f64, range.end as f64).await.map_err(|error| failed(describe(&error)))?;
        let bytes = js_sys::Uint8Array::new(&bytes).to_vec();
        if bytes.len() as u64 != range.end - range.start {
            return Err(failed(format!("expected {} bytes, received {}", range.end - range.start, bytes.len())));
        }
        Ok(Cow::Owned(bytes))
    }

    /// As [`read`](Self::read).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_owned(&self, range: Range<u64>) -> Result<Vec<u8>> {
        Ok(self.read(range).await?.into_owned())
    }

    /// Nothing to do: what was read is its reader's.
    pub fn release(&self, _range: Range<u64>) {}
}

/// The message of whatever JavaScript threw.
fn describe(thrown: &JsValue) -> String {
    match thrown.dyn_ref::<js_sys::Error>() {
        Some(error) => String::from(error.message()),
        None => format!("{thrown:?}"),
    }
}

/// The mounted directory `name`. JavaScript fetches what is not mounted yet: see `web/package/sources.js`.
///
/// # Errors
/// [`Error::MissingFile`] if nothing is mounted there.
pub async fn fetch_model(
    name: &str,
    _accept: fn(super::Preview<'_>) -> Result<()>,
    _listener: &mut Listener<'_, super::Fetching>,
) -> Result<PathBuf> {
    let directory = PathBuf::from(name);
    if file_names(&directory).is_empty() {
        return Err(Error::MissingFile { directory, file: "config.json" });
    }
    Ok(directory)
}

/// Whether a file is mounted at `path`.
pub async fn is_file(path: &Path) -> bool {
    find(path).is_ok()
}

/// Names of the files that are mounted in `directory`, sorted.
pub fn file_names(directory: &Path) -> Vec<String> {
    FILES.with_borrow(|files| {
        let inside = files.keys().filter(|path| path.parent() == Some(directory));
        let mut names: Vec<String> = inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
        names.sort();
        names
    })
}

/// The whole of a UTF-8 text.
///
/// # Errors
/// [`Error::Io`].
pub async fn read_text(path: &Path) -> Result<String> {
    let source = ByteSource::open(path).await?;
    let bytes = source.read(0..source.len()).await?.into_owned();
    String::from_utf8(bytes).map_err(|error| Error::io("read", path)(io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// The whole of the text `file` of the model in `directory`.
///
/// # Errors
/// [`Error::MissingFile`] if there is no such file, [`Error::Io`] if it cannot be read.
pub async fn read_model_text(directory: &Path, file: &'static str) -> Result<String> {
    let path = directory.join(file);
    match find(&path) {
        Ok(_) => read_text(&path).await,
        Err(_) => Err(Error::MissingFile { directory: directory.to_owned(), file }),
    }
}

/// Always fails: a page has no files to write.
///
/// # Errors
/// [`Error::Io`].
pub fn write_file(path: &Path, _content: &[u8]) -> Result<()> {
    Err(Error::io("write", path)(io::ErrorKind::Unsupported.into()))
}

/// Always fails, as [`write_file`] does.
///
/// # Errors
/// [`Error::Io`].
pub fn replace_file(path: &Path, content: &[u8]) -> Result<()> {
    write_file(path, content)
}

/// What native code writes files into. A page has none: nothing of this type ever exists.
#[derive(Debug)]
pub enum NewDirectory {}

/// A file of a [`NewDirectory`].
#[derive(Debug)]
pub enum NewFile {}

impl NewDirectory {
    /// Always fails.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn prepare(path: &Path) -> Result<Self> {
        Err(Error::io("write", path)(io::ErrorKind::Unsupported.into()))
    }

    pub fn create(&self, _name: &str) -> Result<NewFile> {
        match *self {}
    }

    pub fn copy(&self, _from: &Path, _name: &str) -> Result<bool> {
        match *self {}
    }

    pub fn commit(self) -> Result<()> {
        match self {}
    }
}

impl NewFile {
    pub fn write(&mut self, _bytes: &[u8]) -> Result<()> {
        match *self {}
    }

    pub fn finish(self) -> Result<()> {
        match self {}
    }
}

/// Measures elapsed time.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    start_milliseconds: f64,
}

impl Stopwatch {
    pub fn start() -> Self {
        Stopwatch { start_milliseconds: performance_now() }
    }

    pub fn seconds(&self) -> f64 {
        (performance_now() - self.start_milliseconds) / 1000.0
    }
}

/// Calls `work(index, row)` for every `row_len` values of `rows`, one after the other.
pub fn for_each_row<T: Send>(rows: &mut [T], row_len: usize, work: impl Fn(usize, &mut [T]) + Sync + Send) {
    rows.chunks_mut(row_len).enumerate().for_each(|(index, row)| work(index, row));
}

/// Seconds since 1970 in UTC; 0 for a clock that is set before that.
pub fn unix_seconds() -> u64 {
    (js_sys::Date::now() / 1000.0).max(0.0) as u64
}

/// Seconds by which local time is ahead of UTC, now.
pub fn local_offset_seconds() -> i32 {
    // JavaScript counts the other way round, in minutes.
    -(js_sys::Date::new_0().get_timezone_offset() as i32) * 60
}

/// What native builds measure; browsers do not tell.
#[derive(Debug)]
pub struct HostPeak;

impl HostPeak {
    pub fn start() -> Self {
        HostPeak
    }

    pub fn bytes(&self) -> Option<u64> {
        None
    }
}

/// Browsers do not tell.
pub fn available_memory_bytes() -> Option<u64> {
    None
}
