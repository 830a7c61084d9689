//! Files that the user names: texts and lists of ids to read, results to write.

#![allow(clippy::disallowed_methods, reason = "the command line opens the files that the user names")]

use super::failure::Failure;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
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
    /// Makes sure that `path` can be written, before anyone spends time on what is to be in it.
    pub fn prepare(path: &Path) -> Result<Self> {
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

    /// Writes the whole file, or nothing.
    pub fn write(self, bytes: &[u8]) -> Result<()> {
        let written = File::create(&self.temporary).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&self.temporary, &self.path)
        });
        if written.is_err() {
            // What counts is the first error; a leftover that cannot be removed is part of the same trouble.
            let _ = fs::remove_file(&self.temporary);
        }
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}
