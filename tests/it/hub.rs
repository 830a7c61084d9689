//! Models fetched from a hub on this machine.

use crate::common::hub_server::{COMMIT, HubServer};
use moebius::Error;
use moebius::platform::{HubOptions, fetch_config_only_with, fetch_headers_with, resolve_model_with};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const INDEX: &str = r#"{"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors", "c": "model-00001-of-00002.safetensors"}}"#;
const SHARD_1: &str = "model-00001-of-00002.safetensors";
const SHARD_2: &str = "model-00002-of-00002.safetensors";

/// Bytes in which a shift by one shows.
fn weights(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 7 + index / 251) as u8).collect()
}

fn sharded_server(first: &[u8], second: &[u8]) -> HubServer {
    HubServer::start(&[
        ("config.json", b"{}"),
        ("README.md", b"not needed"),
        ("tokenizer.json", b"{\"model\": 1}"),
        ("tokenizer_config.json", b"{\"bos\": 2}"),
        ("model.safetensors.index.json", INDEX.as_bytes()),
        (SHARD_1, first),
        (SHARD_2, second),
    ])
}

fn options(server: &HubServer, cache: &TempDir) -> HubOptions {
    let pause = Duration::from_millis(20);
    HubOptions {
        endpoint: server.endpoint.clone(),
        cache_dir: cache.path().join("hub"),
        token: None,
        offline: false,
        timeout: Duration::from_millis(700),
        etag_timeout: Duration::from_millis(700),
        first_pause: pause,
    }
}

/// A hub where nobody answers.
fn offline(cache: &TempDir) -> HubOptions {
    let nobody = HubServer::start(&[]);
    HubOptions { endpoint: "http://127.0.0.1:9".to_owned(), ..options(&nobody, cache) }
}

fn resolve(options: &HubOptions, name: &str) -> Result<PathBuf, Error> {
    resolve_model_with(options, name, &|_| Ok(()), &mut |_| true)
}

fn read(directory: &Path, file: &str) -> Vec<u8> {
    std::fs::read(directory.join(file)).unwrap()
}

#[test]
fn a_sharded_model_is_fetched_whole_once_and_then_works_offline() {
    let (first, second) = (weights(70_000), weights(50_001));
    let (server, cache) = (sharded_server(&first, &second), TempDir::new().unwrap());
    let mut seen: Vec<(String, u64, u64)> = Vec::new();
    let directory = resolve_model_with(&options(&server, &cache), "org/name", &|_| Ok(()), &mut |progress| {
        seen.push((progress.file.to_owned(), progress.received_bytes, progress.total_bytes.unwrap()));
        true
    })
    .unwrap();

    assert!(directory.ends_with(Path::new("models--org--name/snapshots").join(COMMIT)), "{}", directory.display());
    assert_eq!((read(&directory, SHARD_1), read(&directory, SHARD_2)), (first, second));
    assert_eq!(read(&directory, "tokenizer_config.json"), b"{\"bos\": 2}");
    assert!(!directory.join("README.md").exists());
    assert!(seen.contains(&(SHARD_1.to_owned(), 70_000, 70_000)), "{seen:?}");
    assert!(seen.iter().all(|(_, received, total)| received <= total), "{seen:?}");
    let downloads = server.take_downloads();
    assert_eq!(downloads.len(), 6, "{downloads:?}");
    assert!(downloads.iter().all(|&(_, start)| start == 0), "{downloads:?}");

    assert_eq!(resolve(&options(&server, &cache), "org/name").unwrap(), directory);
    assert_eq!(server.take_requests(), []);
    assert_eq!(resolve(&offline(&cache), "org/name").unwrap(), directory);
    assert_eq!(resolve(&offline(&cache), &format!("org/name@{COMMIT}")).unwrap(), directory);
    assert_eq!(fetch_config_only_with(&offline(&cache), "org/name").unwrap(), directory);
}

#[test]
fn a_single_file_model_without_a_tokenizer_is_fetched_and_works_offline() {
    let server = HubServer::start(&[("config.json", b"{}"), ("model.safetensors", &weights(100))]);
    let cache = TempDir::new().unwrap();
    let directory = resolve(&options(&server, &cache), "org/name@refs/pr/1").unwrap();
    assert_eq!(read(&directory, "model.safetensors"), weights(100));
    assert_eq!(resolve(&offline(&cache), "org/name@refs/pr/1").unwrap(), directory);
    assert!(matches!(resolve(&offline(&cache), "org/name"), Err(Error::Download { .. })), "another revision");
}

#[test]
fn a_connection_cut_in_the_middle_is_taken_up_where_it_stopped() {
    let (first, second) = (weights(70_000), weights(50_001));
    let (server, cache) = (sharded_server(&first, &second), TempDir::new().unwrap());
    server.cut(SHARD_2, 30_000);
    let mut seen = Vec::new();
    let directory = resolve_model_with(&options(&server, &cache), "org/name", &|_| Ok(()), &mut |progress| {
        if progress.file == SHARD_2 && progress.waiting.is_none() {
            seen.push(progress.received_bytes);
        }
        true
    })
    .unwrap();
    assert_eq!((read(&directory, SHARD_1), read(&directory, SHARD_2)), (first, second));
    let downloads = server.take_downloads();
    assert_eq!(downloads[downloads.len() - 2..], [(SHARD_2.to_owned(), 0), (SHARD_2.to_owned(), 30_000)]);
    assert_eq!(downloads.len(), 7, "{downloads:?}");
    assert!(seen.is_sorted() && seen.contains(&30_000), "the progress goes on where it stopped: {seen:?}");
}

#[test]
fn a_second_command_asks_only_for_what_the_first_one_lacked() {
    let (first, second) = (weights(70_000), weights(50_001));
    let (server, cache) = (sharded_server(&first, &second), TempDir::new().unwrap());
    server.cut(SHARD_2, 30_000);
    (0..3).for_each(|_| server.cut(SHARD_2, 0));
    let error = resolve(&options(&server, &cache), "org/name").unwrap_err();
    assert!(matches!(error, Error::Download { .. }) && error.to_string().contains(SHARD_2), "{error}");
    assert!(error.hint().unwrap().contains("again to resume"), "{error}");
    assert!(resolve(&offline(&cache), "org/name").is_err(), "a model without its second shard is not complete");

    server.take_requests();
    let directory = resolve(&options(&server, &cache), "org/name").unwrap();
    assert_eq!(server.take_downloads(), [(SHARD_2.to_owned(), 30_000)]);
    assert_eq!((read(&directory, SHARD_1), read(&directory, SHARD_2)), (first, second));
}

#[test]
fn a_file_that_was_whole_but_not_yet_in_place_is_finished() {
    let content = weights(1_000);
    let server = HubServer::start(&[("config.json", b"{}"), ("model.safetensors", &content)]);
    let cache = TempDir::new().unwrap();
    let directory = resolve(&options(&server, &cache), "org/name").unwrap();
    let link = directory.join("model.safetensors");
    let blob = link.canonicalize().unwrap();
    for left_over in [content.clone(), weights(1_003)] {
        // The broken link to the moved blob stays behind on purpose.
        std::fs::remove_file(&blob).unwrap();
        std::fs::write(blob.with_extension("incomplete"), &left_over).unwrap();
        resolve(&options(&server, &cache), "org/name").unwrap();
        assert_eq!(read(&directory, "model.safetensors"), content);
    }
}

#[test]
fn only_the_config_is_fetched_for_inspecting() {
    let (server, cache) = (sharded_server(b"1", b"2"), TempDir::new().unwrap());
    let directory = fetch_config_only_with(&options(&server, &cache), "org/name").unwrap();
    assert_eq!(read(&directory, "config.json"), b"{}");
    assert_eq!(server.take_downloads(), [("config.json".to_owned(), 0)]);
    resolve(&options(&server, &cache), "org/name").unwrap();
    assert!(!server.take_downloads().iter().any(|(file, _)| file == "config.json"));
}

/// A safetensors file of one tensor and its header.
fn safetensors(len: usize) -> (Vec<u8>, String) {
    let header = serde_json::json!({ "a": { "dtype": "U8", "shape": [len], "data_offsets": [0, len] } }).to_string();
    ([&(header.len() as u64).to_le_bytes(), header.as_bytes(), &weights(len)].concat(), header)
}

#[test]
fn of_the_weights_only_the_headers_are_fetched_for_inspecting() {
    let ((first, first_header), (second, second_header)) = (safetensors(70_000), safetensors(50_001));
    let (server, cache) = (sharded_server(&first, &second), TempDir::new().unwrap());
    let headers = fetch_headers_with(&options(&server, &cache), "org/name").unwrap();
    let found: Vec<(&str, &str)> = headers.iter().map(|header| (header.file.as_str(), header.header.as_str())).collect();
    assert_eq!(found, [(SHARD_1, first_header.as_str()), (SHARD_2, second_header.as_str())]);
    let of_shards = server.take_requests().into_iter().filter(|request| request.path.ends_with(".safetensors"));
    let bytes: usize = of_shards.map(|request| request.range_end.unwrap() - request.range_start.unwrap()).sum();
    assert_eq!(bytes, 16 + first_header.len() + second_header.len(), "not one byte of a weight");
}

#[test]
fn headers_that_make_no_sense_are_refused_before_they_are_fetched() {
    let endless = [&u64::MAX.to_le_bytes()[..], &weights(100)].concat();
    let short = [&1000u64.to_le_bytes()[..], &weights(100)].concat();
    for (bytes, problem) in
        [(endless, "expected at most 100000000"), (short, "asked for 1000 bytes, received 100"), (weights(5), "asked for 8")]
    {
        let server = HubServer::start(&[("config.json", b"{}"), ("model.safetensors", &bytes)]);
        let cache = TempDir::new().unwrap();
        let error = fetch_headers_with(&options(&server, &cache), "org/name").unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    let server = HubServer::start(&[("config.json", b"{}"), ("pytorch_model.bin", b"x")]);
    let cache = TempDir::new().unwrap();
    let error = fetch_headers_with(&options(&server, &cache), "org/name").unwrap_err().to_string();
    assert!(error.contains("neither model.safetensors nor"), "{error}");
    assert!(fetch_headers_with(&offline(&cache), "org/name").is_err());
}

#[test]
fn a_model_that_the_hub_does_not_have_is_a_clear_error() {
    let (server, cache) = (sharded_server(b"1", b"2"), TempDir::new().unwrap());
    let message = |name: &str| match resolve(&options(&server, &cache), name) {
        Err(error @ Error::Download { .. }) => error.to_string(),
        other => panic!("{name}: {other:?}"),
    };
    let missing = message("org/nothing");
    assert!(
        missing.contains("`org/nothing`") && missing.contains("404") && missing.contains("no directory of that name"),
        "{missing}"
    );
    assert!(message("org/name@missing").contains("at revision missing"));
    assert!(message("org/private").contains("private"), "{}", message("org/private"));
    assert!(!cache.path().join("hub/models--org--nothing/refs").exists());

    let other = HubServer::start(&[("config.json", b"{}"), ("pytorch_model.bin", b"x")]);
    let error = resolve(&options(&other, &cache), "org/name").unwrap_err();
    assert!(error.to_string().contains("neither model.safetensors nor"), "{error}");
}

#[test]
fn a_name_that_is_neither_directory_nor_hub_id_says_both_readings() {
    let cache = TempDir::new().unwrap();
    for name in [
        "",
        "demo",
        "./no/where",
        "../x",
        "/no/where",
        "a/b/c",
        "org/",
        "/name",
        "org/na me",
        "org/name@",
        "org/name@../x",
        "a\\b",
        "org/..",
        "org/n\u{e9}",
    ] {
        let error = resolve(&offline(&cache), name).unwrap_err();
        assert!(matches!(error, Error::Argument { what: "model", .. }), "{name}: {error}");
        assert!(error.to_string().contains("existing directory or GGUF file, or a hub id such as org/name"), "{error}");
    }
    let directory = cache.path().to_str().unwrap();
    assert_eq!(resolve(&offline(&cache), directory).unwrap(), cache.path());
    assert_eq!(fetch_config_only_with(&offline(&cache), directory).unwrap(), cache.path());
}

#[test]
fn an_index_cannot_name_files_outside_of_the_model() {
    for shard in ["../../../../evil", "/etc/evil", ".", "sub/evil", ""] {
        let index = serde_json::json!({ "weight_map": { "a": shard } }).to_string();
        let server = HubServer::start(&[("config.json", b"{}"), ("model.safetensors.index.json", index.as_bytes())]);
        let cache = TempDir::new().unwrap();
        let error = resolve(&options(&server, &cache), "org/name").unwrap_err();
        assert!(matches!(error, Error::Json { .. }) && error.to_string().contains("is not a file name"), "{shard}: {error}");
    }
}

#[test]
fn the_token_goes_with_every_request() {
    let (server, cache) = (sharded_server(b"1", b"2"), TempDir::new().unwrap());
    let options = HubOptions { token: Some("secret".to_owned()), ..options(&server, &cache) };
    resolve(&options, "org/name").unwrap();
    let requests = server.take_requests();
    assert!(
        requests.len() > 6 && requests.iter().all(|request| request.authorization.as_deref() == Some("Bearer secret")),
        "{requests:?}"
    );
}
