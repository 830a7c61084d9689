//! Repositories of GGUF files on the hub.

use crate::common::hub_server::HubServer;
use moebius::Error;
use moebius::platform::{HubOptions, resolve_model_with};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

fn options(server: &HubServer, cache: &TempDir) -> HubOptions {
    HubOptions {
        endpoint: server.endpoint.clone(),
        cache_dir: cache.path().join("hub"),
        token: None,
        offline: false,
        timeout: Duration::from_secs(5),
        etag_timeout: Duration::from_secs(5),
        first_pause: Duration::from_millis(5),
    }
}

fn resolve(options: &HubOptions, name: &str) -> Result<PathBuf, Error> {
    resolve_model_with(options, name, &|_| panic!("there is no config to look at"), &mut |_| true)
}

fn several() -> HubServer {
    HubServer::start(&[
        ("README.md", b"r"),
        ("mmproj-F16.gguf", b"p"),
        ("M-Q4_K_M.gguf", b"four"),
        ("M-Q4_K_S.gguf", b"small"),
        ("BF16/M-BF16-00001-of-00002.gguf", b"first"),
        ("BF16/M-BF16-00002-of-00002.gguf", b"second"),
    ])
}

#[test]
fn a_tag_chooses_one_of_several_files() {
    let (server, cache) = (several(), TempDir::new().unwrap());
    let options = options(&server, &cache);
    let file = resolve(&options, "org/name:q4_k_m").unwrap();
    assert_eq!((file.file_name().unwrap().to_str(), std::fs::read(&file).unwrap()), (Some("M-Q4_K_M.gguf"), b"four".to_vec()));
    assert_eq!(server.take_downloads(), [("M-Q4_K_M.gguf".to_owned(), 0)]);
    // Then without the network.
    server.take_requests();
    assert_eq!(resolve(&options, "org/name:Q4_K_M").unwrap(), file);
    assert_eq!(server.take_requests(), []);
    let offline = HubOptions { offline: true, ..options.clone() };
    assert_eq!(resolve(&offline, "org/name").unwrap(), file);
}

#[test]
fn all_parts_of_a_split_file_are_fetched() {
    let (server, cache) = (several(), TempDir::new().unwrap());
    let file = resolve(&options(&server, &cache), "org/name:BF16").unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), b"first");
    assert_eq!(std::fs::read(file.with_file_name("M-BF16-00002-of-00002.gguf")).unwrap(), b"second");
    // A part that is gone is fetched again.
    std::fs::remove_file(file.with_file_name("M-BF16-00002-of-00002.gguf")).unwrap();
    assert_eq!(resolve(&options(&server, &cache), "org/name:BF16").unwrap(), file);
    assert!(file.with_file_name("M-BF16-00002-of-00002.gguf").is_file());
}

#[test]
fn several_files_without_a_tag_are_listed_as_names_to_write() {
    let (server, cache) = (several(), TempDir::new().unwrap());
    for name in ["org/name", "org/name:Q8_0", "org/name:Q4_K"] {
        let error = resolve(&options(&server, &cache), name).unwrap_err().to_string();
        for tag in ["org/name:BF16", "org/name:Q4_K_M", "org/name:Q4_K_S"] {
            assert!(error.contains(tag), "{name}: {error}");
        }
        assert!(!error.contains("mmproj"), "{error}");
    }
    assert_eq!(server.take_downloads(), []);
}

#[test]
fn a_repository_with_one_file_needs_no_tag() {
    let cache = TempDir::new().unwrap();
    let server = HubServer::start(&[("config.json", b"{}"), ("only.Q8_0.gguf", b"x")]);
    let file = resolve(&options(&server, &cache), "org/name").unwrap();
    assert!(file.ends_with("only.Q8_0.gguf"));
    // A repository with both is what its config says.
    let server = HubServer::start(&[("config.json", b"{}"), ("model.safetensors", b"w"), ("only.Q8_0.gguf", b"x")]);
    let cache = TempDir::new().unwrap();
    let directory = resolve_model_with(&options(&server, &cache), "org/name", &|_| Ok(()), &mut |_| true).unwrap();
    assert!(directory.join("model.safetensors").is_file());
    assert!(resolve(&options(&server, &cache), "org/name:Q8_0").unwrap().ends_with("only.Q8_0.gguf"));
}
