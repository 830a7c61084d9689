//! Whether the bytes that arrived are those that the hub has.
//!
//! The etag of a large file is its SHA-256; that of a small one is what Git names it by: the SHA-1 of `blob <length>\0` and the content.

use crate::error::{Error, Result};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::Path;

enum Kind {
    Sha256,
    GitBlob,
}

/// What an etag promises about a file, if it is a checksum at all.
fn kind_of(etag: &str) -> Option<Kind> {
    let is_hex = etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    match etag.len() {
        64 if is_hex => Some(Kind::Sha256),
        40 if is_hex => Some(Kind::GitBlob),
        _ => None,
    }
}

/// `None` if the file is what `etag` names, or if the etag is no checksum; otherwise the checksum that it has.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read.
pub(super) fn differs(path: &Path, size_bytes: u64, etag: &str) -> Result<Option<String>> {
    let found = match kind_of(etag) {
        None => return Ok(None),
        Some(Kind::Sha256) => digest(path, Sha256::new())?,
        Some(Kind::GitBlob) => digest(path, Sha1::new().chain_update(format!("blob {size_bytes}\0")))?,
    };
    Ok(Some(found).filter(|found| !found.eq_ignore_ascii_case(etag)))
}

fn digest<D: Digest>(path: &Path, mut digest: D) -> Result<String> {
    #[allow(clippy::disallowed_methods, reason = "this module is part of platform")]
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(Error::io("read", path))?;
        if read == 0 {
            return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        digest.update(&buffer[..read]);
    }
}
