//! Files that the user names: texts and lists of ids to read, results to write.

#![allow(clippy::disallowed_methods, reason = "the command line opens the files that the user names")]

use super::failure::Failure;
use super::interrupt::Undo;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::{BufRead, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// A text in UTF-8. Where it is none, the error names the line.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    utf8(bytes, &path.display().to_string())
}

/// All of stdin, a text in UTF-8.
pub fn read_stdin() -> Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read stdin")?;
    utf8(bytes, "stdin")
}

/// A text in UTF-8, of a file or of stdin, which is written `-`.
pub fn read_text_or_stdin(path: &Path) -> Result<String> {
    if path.as_os_str() == "-" { read_stdin() } else { read_text(path) }
}

/// Whether stdin is a file or a pipe: somebody may have sent a text without saying `-`.
#[cfg(unix)]
pub fn is_stdin_sent() -> bool {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileTypeExt;
    let Ok(stdin) = std::io::stdin().as_fd().try_clone_to_owned() else { return false };
    File::from(stdin).metadata().is_ok_and(|found| found.is_file() || found.file_type().is_fifo())
}

/// Whether stdin is no terminal: somebody may have sent a text without saying `-`.
#[cfg(not(unix))]
pub fn is_stdin_sent() -> bool {
    !std::io::stdin().is_terminal()
}

/// Whether something comes on stdin in so much time; otherwise it is left alone. A program that starts this one may leave a pipe open for ever.
pub fn comes_on_stdin(within: Duration) -> bool {
    let (tell, heard) = mpsc::channel();
    let wait = move || {
        let comes = std::io::stdin().lock().fill_buf().is_ok_and(|bytes| !bytes.is_empty());
        // Nobody listens any more if it took too long.
        let _ = tell.send(comes);
    };
    std::thread::Builder::new().spawn(wait).is_ok() && heard.recv_timeout(within).unwrap_or(false)
}

/// The text without a byte order mark, which some editors write.
fn utf8(bytes: Vec<u8>, name: &str) -> Result<String> {
    let text = String::from_utf8(bytes).map(|text| text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text));
    text.map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        let byte = error.as_bytes()[before.len()];
        let problem = format!("{name} is no text in UTF-8: line {line} has the byte 0x{byte:02x}");
        Failure::new(problem, "save it as UTF-8, for example with `iconv -f LATIN1 -t UTF-8`").into()
    })
}

/// The text files of a folder, by name.
pub fn texts_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>());
    let entries = listed.with_context(|| format!("cannot read {}", folder.display()))?;
    let is_text = |path: &PathBuf| path.is_file() && path.extension().is_some_and(|extension| extension == "txt");
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).filter(is_text).collect();
    if paths.is_empty() {
        return Err(Failure::new(format!("{} has no text", folder.display()), "give a folder with a .txt file per domain").into());
    }
    paths.sort();
    Ok(paths)
}

/// Reads a JSON array of token ids.
pub fn read_ids(path: &Path) -> Result<Vec<u32>> {
    serde_json::from_str(&read_text(path)?).map_err(|error| {
        let problem = format!("{} is not a JSON array of token ids: {error}", path.display());
        Failure::new(problem, "write it as [1, 2, 3], every id a whole number from 0").into()
    })
}

/// A file that appears under its name only when all of it is there.
pub struct NewFile {
    path: PathBuf,
    temporary: PathBuf,
}

impl NewFile {
    /// Makes sure that `path` can be written, before anyone spends time on what is to be in it. Where it is a link, the file behind it is.
    pub fn prepare(path: &Path) -> Result<Self> {
        if path.as_os_str() == "-" {
            return Err(Failure::new("`-` is no file, and the result is not written to stdout", "name a file").into());
        }
        let behind = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        // What a link of the system leads to is no place for a new file.
        if ["/dev", "/proc"].iter().any(|system| path.starts_with(system) || behind.starts_with(system)) {
            anyhow::bail!("cannot write {}: expected a regular file, found a part of the system", path.display());
        }
        let path = &if path.is_symlink() { behind } else { path.to_owned() };
        let name = path.file_name().with_context(|| format!("cannot write {}: it names no file", path.display()))?;
        if path.exists() && !path.is_file() {
            anyhow::bail!("cannot write {}: expected a regular file, found something else", path.display());
        }
        let temporary = path.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
        File::create(&temporary).and_then(|_| fs::remove_file(&temporary)).map_err(|error| {
            let problem = format!("cannot write {}: {error}", path.display());
            Failure::new(problem, "choose a folder that exists and is yours to write in")
        })?;
        Ok(NewFile { path: path.to_owned(), temporary })
    }

    /// Refuses to write over what is read: one of `inputs`, or a file of the model in `directory`.
    pub fn keep_apart(&self, inputs: &[&Path], directory: Option<&Path>) -> Result<()> {
        let same = |one: &Path, other: &Path| {
            fs::canonicalize(one).is_ok_and(|one| fs::canonicalize(other).is_ok_and(|other| one == other))
        };
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let is_of_model = self.path.exists() && directory.is_some_and(|directory| same(parent, directory));
        if is_of_model || inputs.iter().any(|input| same(input, &self.path)) {
            let problem = format!("{} would be overwritten, and it is read by this command", self.path.display());
            return Err(Failure::new(problem, "write to another file").into());
        }
        Ok(())
    }

    /// Writes the whole file, or nothing.
    pub fn write(self, bytes: &[u8]) -> Result<()> {
        let mut file = self.create()?;
        file.write_bytes(bytes)?;
        file.commit()
    }

    /// Begins a file that is written in pieces.
    pub fn create(self) -> Result<OpenFile> {
        let file = File::create(&self.temporary).with_context(|| cannot_write(&self.path))?;
        let leftover = self.temporary.clone();
        // Nobody is left to tell where it cannot be removed.
        let undo = Undo::new(move || drop(fs::remove_file(leftover)));
        Ok(OpenFile { writer: BufWriter::new(file), file: self, committed: false, _undo: undo })
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

/// A [`NewFile`] that is not whole yet. Dropping it leaves nothing behind, nor does Ctrl-C.
pub struct OpenFile {
    file: NewFile,
    writer: BufWriter<File>,
    committed: bool,
    _undo: Undo,
}

impl OpenFile {
    pub fn write(&mut self, text: &str) -> Result<()> {
        self.write_bytes(text.as_bytes())
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).with_context(|| cannot_write(&self.file.path))
    }

    /// Gives the file its name.
    pub fn commit(mut self) -> Result<()> {
        let written = self.writer.flush().and_then(|()| self.writer.get_ref().sync_all());
        written
            .and_then(|()| fs::rename(&self.file.temporary, &self.file.path))
            .with_context(|| cannot_write(&self.file.path))?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if !self.committed {
            // What counts is the error that led here; a leftover that cannot be removed is part of the same trouble.
            let _ = fs::remove_file(&self.file.temporary);
        }
    }
}
