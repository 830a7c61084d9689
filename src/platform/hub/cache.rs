//! The hub cache, in the layout that the Python client and other tools share:
//!
//! ```text
//! models--org--name/
//!   refs/main                  the commit that the revision `main` was at
//!   blobs/<etag>               contents, named by their checksum; <etag>.incomplete while they arrive
//!   snapshots/<commit>/<file>  a link to a blob
//! .locks/models--org--name/<etag>.lock
//! ```

use super::environment::HubOptions;
use super::id::{HubId, is_plain_name};
use crate::error::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// What the cache holds of one model.
pub(super) struct RepoCache {
    root: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    pub fn new(options: &HubOptions, id: &HubId) -> Self {
        let folder = id.folder();
        RepoCache { root: options.cache_dir.join(&folder), locks: options.cache_dir.join(".locks").join(folder) }
    }

    /// The directory of the commit that `revision` is at, as far as the cache knows.
    pub fn snapshot_of(&self, revision: &str) -> Option<PathBuf> {
        // A revision that is a commit has no entry of its own among the references.
        let by_commit = self.snapshot(revision);
        if by_commit.is_dir() {
            return Some(by_commit);
        }
        #[allow(clippy::disallowed_methods, reason = "this module is part of platform")]
        let commit = fs::read_to_string(self.root.join("refs").join(revision)).ok()?;
        let commit = commit.trim();
        is_plain_name(commit).then(|| self.snapshot(commit))
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    pub fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// Where a blob is gathered.
    pub fn incomplete(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// Whether an earlier download stopped before its end.
    pub fn has_incomplete(&self) -> bool {
        let entries = fs::read_dir(self.root.join("blobs")).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.path().extension().is_some_and(|extension| extension == "incomplete"))
    }

    /// Waits until no other process fetches this blob. The lock is that of the Python client.
    ///
    /// # Errors
    /// [`Error::Io`] if the cache cannot be written.
    pub fn lock(&self, etag: &str) -> Result<fd_lock::RwLock<fs::File>> {
        let path = self.locks.join(format!("{etag}.lock"));
        create_parent(&path)?;
        let file = fs::OpenOptions::new().create(true).write(true).truncate(false).open(&path);
        Ok(fd_lock::RwLock::new(file.map_err(Error::io("write to the cache at", &path))?))
    }

    /// Makes `file` of `commit` mean the blob.
    ///
    /// # Errors
    /// [`Error::Io`] if the cache cannot be written.
    pub fn link(&self, commit: &str, file: &str, blob: &Path) -> Result<()> {
        let target = self.snapshot(commit).join(file);
        create_parent(&target)?;
        // Another process was faster.
        if target.is_file() && target.canonicalize().is_ok_and(|found| blob.canonicalize().is_ok_and(|blob| blob == found)) {
            return Ok(());
        }
        // What is left of a deleted blob is in the way of the link to the new one.
        if target.is_symlink() || target.is_file() {
            fs::remove_file(&target).map_err(Error::io("remove the old link", &target))?;
        }
        let up = "../".repeat(2 + file.matches('/').count());
        let name = blob.file_name().unwrap_or_default();
        if link(&Path::new(&up).join("blobs").join(name), &target).is_ok() {
            return Ok(());
        }
        // No links here (Windows without the right to make them, some file systems): the file itself, as the Python client does.
        fs::rename(blob, &target).map_err(Error::io("write to the cache at", &target))
    }

    /// Makes `revision` mean `commit` from now on, also without a network.
    ///
    /// # Errors
    /// [`Error::Io`] if the cache cannot be written.
    pub fn set_revision(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        super::super::replace_file(&path, commit.as_bytes())
    }
}

/// Makes the directories above `path`.
pub(super) fn create_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(Error::io("write to the cache at", parent))
}

#[cfg(unix)]
fn link(content: &Path, target: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(content, target)
}

#[cfg(windows)]
fn link(content: &Path, target: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(content, target)
}
