//! What several tests share.

pub mod hub_server;

use std::path::PathBuf;

/// The model that comes with the repository.
pub fn demo_dir() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/models/demo"))
}

/// A tiny random checkpoint in hub layout with stored answers.
pub fn fixture_dir(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/fixtures")).join(name)
}
