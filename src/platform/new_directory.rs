//! A directory that appears under its name only when all of it is there.

#![allow(clippy::disallowed_methods, reason = "this is what clippy.toml points to")]

use crate::{Error, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Files that are written under another name beside `path`. Dropping it before [`commit`](Self::commit) leaves nothing behind.
#[derive(Debug)]
pub struct NewDirectory {
    path: PathBuf,
    temporary: PathBuf,
    /// Folders above it that were not there, outermost first.
    parents: Vec<PathBuf>,
    committed: bool,
}

/// A file of a [`NewDirectory`], written from its start to its end.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    writer: BufWriter<File>,
}

impl NewDirectory {
    /// Makes sure that `path` can be written, before anyone spends time on what is to be in it. An empty directory may be there; folders above it
    /// that are missing are made.
    ///
    /// # Errors
    /// [`Error::Occupied`] where something else is, [`Error::Io`].
    pub fn prepare(path: &Path) -> Result<Self> {
        match fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => return Err(Error::Occupied { path: path.to_owned(), found: "a directory that is not empty" }),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                return Err(Error::Occupied { path: path.to_owned(), found: "a file" });
            }
            Err(error) => return Err(Error::io("write", path)(error)),
        }
        // `..` has no name of its own to put something beside.
        let name = path.file_name().ok_or_else(|| Error::io("write", path)(io::Error::other("it names no directory")))?;
        let temporary = path.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
        let missing = path.ancestors().skip(1).take_while(|parent| !parent.as_os_str().is_empty() && !parent.exists());
        let mut parents: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        parents.reverse();
        // From here on a failure takes away what was made.
        let directory = NewDirectory { path: path.to_owned(), temporary, parents, committed: false };
        fs::create_dir_all(&directory.temporary).map_err(Error::io("write", path))?;
        Ok(directory)
    }

    /// Begins a file in it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(&self, name: &str) -> Result<NewFile> {
        let file = File::create_new(self.temporary.join(name)).map_err(Error::io("write", self.path.join(name)))?;
        Ok(NewFile { path: self.path.join(name), writer: BufWriter::with_capacity(1 << 20, file) })
    }

    /// Copies a file into it, under its own name. `false` where there is none.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn copy(&self, from: &Path, name: &str) -> Result<bool> {
        match fs::copy(from.join(name), self.temporary.join(name)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("copy", from.join(name))(error)),
        }
    }

    /// Gives the directory its name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn commit(mut self) -> Result<()> {
        // Some systems rename over an empty directory, others do not.
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::io("write", &self.path)(error)),
            _ => {}
        }
        fs::rename(&self.temporary, &self.path).map_err(Error::io("write", &self.path))?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for NewDirectory {
    fn drop(&mut self) {
        if !self.committed {
            // What counts is the error that led here; a leftover that cannot be removed is part of the same trouble.
            let _ = fs::remove_dir_all(&self.temporary);
            self.parents.iter().rev().for_each(|parent| {
                let _ = fs::remove_dir(parent);
            });
        }
    }
}

impl NewFile {
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(Error::io("write", &self.path))
    }

    /// Waits until all of it is on the disk.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(mut self) -> Result<()> {
        let written = self.writer.flush().and_then(|()| self.writer.get_ref().sync_all());
        written.map_err(Error::io("write", &self.path))
    }
}
