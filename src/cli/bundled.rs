//! The bundled model: the folder of the repository, or the same files out of the program itself.

use super::failure::Failure;
use super::model::CONFIG;
use anyhow::Result;
use moebius::Error;
use moebius::platform::{self, NewDirectory};
use std::path::{Path, PathBuf};

/// Where it is, relative to the repository.
const FOLDER: &str = "examples/models/demo";

/// What the program carries, so that it runs wherever it is installed. Packages of crates.io may not be so large and have none.
#[cfg(has_bundled_model)]
const FILES: &[(&str, &[u8])] = &[
    (CONFIG, include_bytes!("../../examples/models/demo/config.json")),
    ("generation_config.json", include_bytes!("../../examples/models/demo/generation_config.json")),
    ("tokenizer.json", include_bytes!("../../examples/models/demo/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../examples/models/demo/tokenizer_config.json")),
    ("model.safetensors", include_bytes!("../../examples/models/demo/model.safetensors")),
];
#[cfg(not(has_bundled_model))]
const FILES: &[(&str, &[u8])] = &[];

/// The directory of the bundled model: of the clone that the program lies in, else of files that it unpacks once into the user's cache.
///
/// # Errors
/// [`Failure`] if there is none, [`Error::Io`] if it cannot be unpacked.
pub fn directory() -> Result<PathBuf> {
    let program = std::env::current_exe().unwrap_or_default();
    let in_clone = program.ancestors().skip(1).map(|folder| folder.join(FOLDER)).find(|folder| folder.join(CONFIG).is_file());
    match in_clone {
        Some(folder) => Ok(folder),
        None if FILES.is_empty() => {
            let problem =
                format!("this program was built without the bundled model, and {FOLDER} is not above {}", program.display());
            Err(Failure::new(problem, "name a model: a directory in Hugging Face layout, or a hub id such as org/name").into())
        }
        None => unpacked(),
    }
}

/// Whether `directory` is that of the bundled model.
pub fn is_it(directory: &Path) -> bool {
    self::directory().is_ok_and(|bundled| bundled == directory)
}

/// A directory in the user's cache for this version of the model; unpacked again where a file is missing or has another length.
fn unpacked() -> Result<PathBuf> {
    let Some(cache) = platform::cache_directory() else {
        let problem = "there is no home directory to unpack the bundled model in";
        return Err(Failure::new(problem, "set XDG_CACHE_HOME, or name a model").into());
    };
    let directory = cache.join("moebius").join("models").join(format!("demo-{}", fingerprint()));
    if is_whole(&directory) {
        return Ok(directory);
    }
    unpack(&directory).map_err(|error| {
        let hint = "XDG_CACHE_HOME names another folder for it, and HF_HOME one for models of the hub";
        Failure::new(format!("the bundled model cannot be unpacked: {error}"), hint)
    })?;
    Ok(directory)
}

fn unpack(directory: &Path) -> moebius::Result<()> {
    platform::remove_directory(directory)?;
    let new = NewDirectory::prepare(directory)?;
    for (name, content) in FILES {
        let mut file = new.create(name)?;
        file.write(content)?;
        file.finish()?;
    }
    match new.commit() {
        // Another process was faster.
        Err(Error::Io { .. }) if is_whole(directory) => Ok(()),
        result => result,
    }
}

fn is_whole(directory: &Path) -> bool {
    FILES.iter().all(|(name, content)| platform::file_length(&directory.join(name)) == Some(content.len() as u64))
}

/// Another model has another name: FNV-1a over every 97th byte. It is computed at every start, and only has to tell versions apart.
fn fingerprint() -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in FILES.iter().flat_map(|(_, content)| content.iter().step_by(97)) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}
