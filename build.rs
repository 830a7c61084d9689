//! Tells the program which commit it is built from, where that is known (`moebius --version`), and whether the bundled model is there to be
//! carried along. Nothing else is built here.

#![allow(clippy::disallowed_methods, reason = "a build script has no platform module")]

use std::path::Path;
use std::process::Command;

const BUNDLED_MODEL: &str = "examples/models/demo/model.safetensors";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=MOEBIUS_COMMIT");
    println!("cargo:rustc-check-cfg=cfg(has_bundled_model)");
    // Packages of crates.io do not have it.
    println!("cargo:rerun-if-changed={BUNDLED_MODEL}");
    if Path::new(BUNDLED_MODEL).exists() {
        println!("cargo:rustc-cfg=has_bundled_model");
    }
    // The library has no version to print, and the wasm build is only that.
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "wasm32") {
        return;
    }
    let given = std::env::var("MOEBIUS_COMMIT").ok().filter(|commit| !commit.is_empty());
    if let Some(commit) = given.or_else(packaged_commit).or_else(checked_out_commit) {
        let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
        println!("cargo:rustc-env=MOEBIUS_VERSION={version} ({})", commit.chars().take(12).collect::<String>());
    }
}

/// What `cargo package` notes.
fn packaged_commit() -> Option<String> {
    let note = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = note.split_once("\"sha1\": \"")?;
    let (commit, _) = rest.split_once('"')?;
    Some(commit.to_owned())
}

/// That of the repository whose root this is; not that of one which merely lies around it.
fn checked_out_commit() -> Option<String> {
    let root = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&root).canonicalize().ok()? != Path::new(".").canonicalize().ok()? {
        return None;
    }
    // Only another commit makes cargo run this again.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD".to_owned()].into_iter().chain(branch) {
        let path = git(&["rev-parse", "--git-path", &name])?;
        if Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
