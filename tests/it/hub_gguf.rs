//! Repositories of GGUF files on the hub.

use crate::common::golden;
use crate::common::hub_server::HubServer;
use moebius::Error;
use moebius::checkpoint::ModelFiles;
use moebius::checkpoint::gguf::Gguf;
use moebius::platform::{HubOptions, Preview, fetch_gguf_start_with, resolve_model_with};
use std::path::PathBuf;
use std::process::Command;
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
    let accept = |preview: Preview<'_>| match preview {
        Preview::Gguf(parts) if !parts.is_empty() => Ok(()),
        other => panic!("{other:?}: there is no config to look at"),
    };
    resolve_model_with(options, name, &accept, &mut |_| true)
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

/// A file of llama.cpp's converter.
fn stored(name: &str) -> Vec<u8> {
    std::fs::read(golden("gguf/families").join(name)).unwrap()
}

#[test]
fn a_file_is_known_by_its_header_before_the_rest_is_fetched() {
    // As large as a model in which the header is the least.
    let whole = [stored("kimi_k2-bf16.gguf"), vec![0; 8 << 20]].concat();
    let (server, cache) = (HubServer::start(&[("k-BF16.gguf", &whole), ("k-Q8_0.gguf", b"other")]), TempDir::new().unwrap());
    let options = options(&server, &cache);
    let parts = fetch_gguf_start_with(&options, "org/name:BF16").unwrap().unwrap();
    let files = pollster::block_on(async { ModelFiles::of_gguf(Gguf::of_parts(parts).await?).await }).unwrap();
    assert_eq!(files.spec().family, "deepseek_v3");
    pollster::block_on(files.check_weights()).unwrap();
    let requests =
        server.take_requests().into_iter().filter(|request| request.method == "GET" && request.path.contains("/resolve/"));
    let bytes: usize = requests.map(|request| request.range_end.unwrap() - request.range_start.unwrap()).sum();
    assert!(bytes > 0 && bytes < whole.len() / 2, "{bytes} of {} were fetched", whole.len());
    // What is whole in the cache is not asked for.
    resolve(&options, "org/name:BF16").unwrap();
    assert!(fetch_gguf_start_with(&options, "org/name:BF16").unwrap().is_none());
    let directory = cache.path().to_str().unwrap();
    assert!(moebius::platform::fetch_gguf_start(directory).unwrap().is_none(), "what is here");
}

#[test]
fn a_file_that_cannot_run_is_refused_before_it_is_fetched() {
    let mut whole = stored("kimi_k2-bf16.gguf");
    // As if of an architecture that nobody knows: the first text of the metadata that is `deepseek2`.
    let name = b"deepseek2";
    let at = whole.windows(name.len()).position(|window| window == name).unwrap();
    whole[at..at + name.len()].copy_from_slice(b"unknown-2");
    let server = HubServer::start(&[("k-BF16.gguf", &whole)]);
    let run = |cache: &TempDir, args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_moebius"))
            .args(args)
            .env("HF_ENDPOINT", &server.endpoint)
            .env("HF_HOME", cache.path())
            .env_remove("HF_HUB_OFFLINE")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    for args in [&["run", "org/name:BF16", "Once"][..], &["inspect", "org/name:BF16"]] {
        let cache = TempDir::new().unwrap();
        let error = run(&cache, args);
        assert!(error.contains("unknown-2"), "{error}");
        let requests = server.take_requests().into_iter().filter(|request| request.method == "GET");
        assert!(
            requests.filter(|request| request.path.contains("/resolve/")).all(|request| request.range_end.is_some()),
            "a part"
        );
    }
}
