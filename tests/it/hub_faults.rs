//! What becomes of downloads when the hub, its storage, a proxy or the network misbehaves.

use crate::common::hub_server::{Host, HubServer, Reply};
use moebius::Error;
use moebius::platform::{HubOptions, Preview, fetch_headers_with, resolve_model_with};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const WEIGHTS: &str = "model.safetensors";

fn content() -> Vec<u8> {
    (0..90_000).map(|index| (index * 7 + index / 251) as u8).collect()
}

fn server() -> HubServer {
    HubServer::start(&[("config.json", b"{\"a\": 1}"), ("tokenizer.json", b"{}"), (WEIGHTS, &content())])
}

fn options(server: &HubServer, cache: &TempDir) -> HubOptions {
    HubOptions {
        endpoint: server.endpoint.clone(),
        cache_dir: cache.path().join("hub"),
        token: Some("hf_secret".to_owned()),
        offline: false,
        timeout: Duration::from_millis(400),
        etag_timeout: Duration::from_millis(400),
        first_pause: Duration::from_millis(5),
    }
}

fn resolve(options: &HubOptions) -> Result<PathBuf, Error> {
    resolve_model_with(options, "org/name", &|_| Ok(()), &mut |_| true)
}

/// Resolves in an empty cache.
fn outcome(server: &HubServer) -> Result<Vec<u8>, String> {
    let cache = TempDir::new().unwrap();
    match resolve(&options(server, &cache)) {
        Ok(directory) => Ok(std::fs::read(directory.join(WEIGHTS)).unwrap()),
        Err(error) => {
            assert!(matches!(error, Error::Download { .. }), "{error:?}");
            assert!(!whole_blobs(&cache).contains(&content().len()), "what was not accepted must not lie in the cache: {error}");
            Err(error.to_string())
        }
    }
}

fn whole_blobs(cache: &TempDir) -> Vec<usize> {
    let blobs = std::fs::read_dir(cache.path().join("hub/models--org--name/blobs")).into_iter().flatten().flatten();
    let whole = blobs.filter(|entry| entry.path().extension().is_none());
    whole.map(|entry| entry.metadata().unwrap().len() as usize).collect()
}

/// Resolves where `file` is answered with `reply`, and gives the message.
fn message(file: &'static str, reply: Reply) -> String {
    let server = server();
    server.fault(move |request, _| (request.file() == file).then(|| reply.clone()));
    outcome(&server).unwrap_err()
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is missing in: {message}");
    }
}

#[test]
fn the_token_stays_with_the_hub_whatever_redirects() {
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let server = server();
        server.use_storage(status);
        // A storage whose addresses are signed refuses a second way to authorise.
        server.fault(|request, _| {
            (request.host == Host::Storage && request.authorization.is_some()).then(|| Reply::status("400 Bad Request"))
        });
        assert_eq!(outcome(&server).unwrap(), content(), "{status}");
        let requests = server.take_requests();
        let (away, home): (Vec<_>, Vec<_>) = requests.iter().partition(|request| request.host == Host::Storage);
        assert!(!away.is_empty() && away.iter().all(|request| request.authorization.is_none()), "{away:?}");
        assert!(home.iter().all(|request| request.authorization.as_deref() == Some("Bearer hf_secret")), "{home:?}");
    }
}

#[test]
fn a_token_that_has_left_does_not_come_back() {
    let server = server();
    // From the hub to the storage, and from there back to the hub.
    server.fault(|request, server| {
        let target = match (request.host, request.path.starts_with("/back")) {
            _ if request.file() != WEIGHTS => return None,
            (Host::Hub, false) => format!("{}/away/{WEIGHTS}", server.storage),
            (Host::Storage, _) => format!("{}/back/{WEIGHTS}", server.hub),
            (Host::Hub, true) => {
                let etag = format!("\"{}\"", server.etag(WEIGHTS));
                return Some(Reply::status("200 OK").header("ETag", &etag).body(server.bytes(WEIGHTS)));
            }
        };
        Some(Reply::status("302 Found").header("Location", &target))
    });
    assert_eq!(outcome(&server).unwrap(), content());
    let requests = server.take_requests();
    let back = requests.iter().find(|request| request.path.starts_with("/back")).unwrap();
    assert_eq!(back.authorization, None);
}

#[test]
fn redirects_to_relative_addresses_are_followed() {
    for location in ["/elsewhere/model.safetensors?x=1", "../elsewhere/model.safetensors", "elsewhere/model.safetensors"] {
        let server = server();
        server.fault(move |request, server| {
            if request.file() != WEIGHTS {
                return None;
            }
            let etag = format!("\"{}\"", server.etag(WEIGHTS));
            Some(if request.path.contains("elsewhere") {
                Reply::status("200 OK").header("ETag", &format!("W/{etag}")).body(server.bytes(WEIGHTS))
            } else {
                Reply::status("307 Temporary Redirect").header("Location", location)
            })
        });
        assert_eq!(outcome(&server).unwrap(), content(), "{location}");
    }
}

#[test]
fn redirects_that_lead_nowhere_are_errors_that_name_the_address() {
    let found = message(WEIGHTS, Reply::status("302 Found"));
    assert_says(&found, &["model.safetensors", "http://127.0.0.1:", "HTTP 302", "without saying where"]);
    let found = message("main", Reply::status("302 Found"));
    assert_says(&found, &["/api/models/org/name/revision/main", "without saying where"]);
    let found = message(WEIGHTS, Reply::status("302 Found").header("Location", "ftp://host/file"));
    assert_says(&found, &["ftp://host/file", "no address of the web"]);
    let found = message(WEIGHTS, Reply::status("308 Permanent Redirect").header("Location", "http://[nonsense"));
    assert_says(&found, &["http://[nonsense"]);
    let found = message(WEIGHTS, Reply::status("302 Found").header("Location", WEIGHTS));
    assert_says(&found, &["more than 10 redirects"]);
}

#[test]
fn bytes_with_a_wrong_checksum_are_thrown_away() {
    for file in [WEIGHTS, "config.json"] {
        let server = server();
        server.fault(move |request, server| {
            if request.file() != file {
                return None;
            }
            let mut bytes = server.bytes(file).to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            Some(Reply::status("200 OK").header("ETag", &format!("\"{}\"", server.etag(file))).body(&bytes))
        });
        let found = outcome(&server).unwrap_err();
        assert_says(&found, &[file, "expected the checksum", "thrown away", &server.endpoint]);
    }
}

#[test]
fn a_resumed_download_that_does_not_fit_begins_anew() {
    // One server ignores the range, the other says that it honours it and sends the beginning.
    for lies in [false, true] {
        let server = server();
        server.cut(WEIGHTS, 40_000);
        server.fault(move |request, server| {
            let start = request.range_start.filter(|&start| start > 0 && request.file() == WEIGHTS)?;
            let bytes = server.bytes(WEIGHTS);
            let etag = format!("\"{}\"", server.etag(WEIGHTS));
            Some(if lies {
                let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                let reply = Reply::status("206 Partial Content").header("ETag", &etag).header("Content-Range", &range);
                reply.body(&bytes[..bytes.len() - start])
            } else {
                Reply::status("200 OK").header("ETag", &etag).body(bytes)
            })
        });
        assert_eq!(outcome(&server).unwrap(), content(), "lies: {lies}");
    }
}

#[test]
fn servers_that_refuse_questions_about_a_file_are_asked_for_the_file() {
    let server = server();
    server.fault(|request, _| (request.method == "HEAD").then(|| Reply::status("405 Method Not Allowed")));
    server.cut(WEIGHTS, 40_000);
    assert_eq!(outcome(&server).unwrap(), content());
}

#[test]
fn a_body_where_none_belongs_does_not_spoil_the_next_answer() {
    let server = server();
    server.send_bodies_to_head();
    (0..2).for_each(|_| server.cut(WEIGHTS, 40_000));
    assert_eq!(outcome(&server).unwrap(), content());
}

#[test]
fn a_server_that_sends_nothing_ends_in_an_error() {
    let found = message("main", Reply { stalls: true, missing: 10, ..Reply::status("200 OK") });
    assert_says(&found, &["/api/models/org/name", "nothing for too long"]);
    let found = message(WEIGHTS, Reply { stalls: true, missing: 10, ..Reply::status("200 OK") });
    assert_says(&found, &[WEIGHTS]);
}

#[test]
fn a_file_that_stalls_is_resumed() {
    let server = server();
    let num_stalls = AtomicUsize::new(0);
    server.fault(move |request, server| {
        if request.file() != WEIGHTS || request.method == "HEAD" || num_stalls.fetch_add(1, Ordering::Relaxed) > 0 {
            return None;
        }
        let bytes = server.bytes(WEIGHTS);
        let etag = format!("\"{}\"", server.etag(WEIGHTS));
        let reply = Reply::status("200 OK").header("ETag", &etag).body(&bytes[..50_000]);
        Some(Reply { stalls: true, missing: bytes.len() - 50_000, ..reply })
    });
    assert_eq!(outcome(&server).unwrap(), content());
    assert!(server.take_downloads().contains(&(WEIGHTS.to_owned(), 50_000)));
}

#[test]
fn busy_servers_are_asked_again_after_a_pause() {
    for (status, header) in [("429 Too Many Requests", "0"), ("503 Service Unavailable", "Fri, 31 Dec 1999 23:59:59 GMT")] {
        for file in ["main", WEIGHTS] {
            let server = server();
            let num_answers = AtomicUsize::new(0);
            server.fault(move |request, _| {
                let is_busy = request.file() == file && num_answers.fetch_add(1, Ordering::Relaxed) < 2;
                is_busy.then(|| Reply::status(status).header("Retry-After", header))
            });
            assert_eq!(outcome(&server).unwrap(), content(), "{status} of {file}");
        }
    }
    let found = message("main", Reply::status("503 Service Unavailable"));
    assert_says(&found, &["/api/models/org/name", "HTTP 503 Service Unavailable"]);
    let found = message("main", Reply::status("429 Too Many Requests").header("Retry-After", "3600"));
    assert_says(&found, &["HTTP 429", "asks to wait 3600 s"]);
}

#[test]
fn failures_of_hub_and_network_come_with_the_next_step() {
    let hint = |options: &HubOptions| resolve(options).unwrap_err().hint().unwrap_or_default();
    let faulty = |reply: Reply| {
        let (server, cache) = (server(), TempDir::new().unwrap());
        server.fault(move |request, _| (request.file() == "main").then(|| reply.clone()));
        hint(&options(&server, &cache))
    };
    assert_says(&faulty(Reply::status("429 Too Many Requests").header("Retry-After", "3600")), &["wait", "HF_TOKEN"]);
    assert_says(&faulty(Reply::status("503 Service Unavailable")), &["later", "HF_ENDPOINT"]);
    let (server, cache) = (server(), TempDir::new().unwrap());
    let options = options(&server, &cache);
    assert_says(&hint(&HubOptions { endpoint: "http://127.0.0.1:9".to_owned(), ..options.clone() }), &["HF_ENDPOINT"]);
    assert_says(&hint(&HubOptions { offline: true, ..options.clone() }), &["unset HF_HUB_OFFLINE", "moebius models"]);
    std::fs::write(cache.path().join("hub"), "a file").unwrap();
    assert_says(&hint(&options), &["HF_HOME", "XDG_CACHE_HOME"]);
}

#[test]
fn pages_in_place_of_data_are_told_apart() {
    let page = || Reply::status("200 OK").header("Content-Type", "text/html; charset=utf-8").body(b"<html>please log in</html>");
    for file in ["main", "config.json", WEIGHTS] {
        assert_says(&message(file, page()), &["http://127.0.0.1:", "a web page instead of data", "login page"]);
    }
    // Without a word about its kind.
    assert_says(&message("main", Reply::status("200 OK").body(b"<html>")), &["a web page instead of data"]);
    assert_says(&message("main", Reply::status("200 OK").body(b"{\"other\": 1}")), &["no list of a model's files"]);
    assert_says(&message(WEIGHTS, Reply::status("200 OK").body(b"bytes")), &[WEIGHTS, "no checksum (ETag)"]);
    assert_says(&message(WEIGHTS, Reply::status("200 OK").header("ETag", "\"../../x\"").body(b"b")), &["no checksum (ETag)"]);
}

/// The address of a server that answers the first bytes of any connection in plain text.
fn without_tls() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    address
}

#[test]
fn only_what_can_go_on_is_said_to_be_resumed() {
    let hint = |reply: Reply| {
        let (server, cache) = (server(), TempDir::new().unwrap());
        server.fault(move |request, _| (request.file() == WEIGHTS).then(|| reply.clone()));
        resolve(&options(&server, &cache)).unwrap_err().hint()
    };
    assert!(hint(Reply::status("503 Service Unavailable")).is_some_and(|hint| hint.contains("resume")));
    let etag = format!("\"{}\"", "0".repeat(64));
    let cut = Reply::status("200 OK").header("ETag", &etag).body(&[1; 10]);
    assert!(hint(Reply { missing: 10, ..cut.clone() }).is_some_and(|hint| hint.contains("resume")));
    for lasting in [cut, Reply::status("404 Not Found"), Reply::status("302 Found"), Reply::status("200 OK").body(b"<html>")] {
        assert_eq!(hint(lasting.clone()), None, "{lasting:?}");
    }
}

#[test]
fn refusals_say_what_to_do() {
    let gated = Reply::status("403 Forbidden").header("X-Error-Code", "GatedRepo");
    assert_says(&message("main", gated), &["wants its terms accepted", "HF_TOKEN"]);
    assert_says(&message("main", Reply::status("401 Unauthorized")), &["private", "the token that was sent may not read it"]);
    let revision = Reply::status("404 Not Found").header("X-Error-Code", "RevisionNotFound");
    assert_says(&message("main", revision), &["but not at revision main"]);
    assert_says(&message(WEIGHTS, Reply::status("403 Forbidden")), &[WEIGHTS, "http://127.0.0.1:", "403", "may not read it"]);
    let missing = message(WEIGHTS, Reply::status("404 Not Found"));
    assert_says(&missing, &[WEIGHTS, "http://127.0.0.1:", "404", "though the hub lists the file"]);
    assert!(!missing.contains("no directory of that name"), "{missing}");
    let server = server();
    let cache = TempDir::new().unwrap();
    let refused = HubOptions { endpoint: "http://127.0.0.1:9".to_owned(), ..options(&server, &cache) };
    assert_says(&resolve(&refused).unwrap_err().to_string(), &["http://127.0.0.1:9/api", "connection was refused"]);
    let plain = HubOptions { endpoint: format!("https://{}", without_tls()), ..options(&server, &cache) };
    assert_says(&resolve(&plain).unwrap_err().to_string(), &["https://127.0.0.1:", "no secure connection", "plain http://"]);
    let nowhere = HubOptions { endpoint: "http://no.such.host.invalid".to_owned(), ..options(&server, &cache) };
    assert_says(&resolve(&nowhere).unwrap_err().to_string(), &["http://no.such.host.invalid/api"]);
}

#[test]
fn a_proxy_that_refuses_is_named_with_the_way_around_it() {
    let server = server();
    let output = Command::new(env!("CARGO_BIN_EXE_moebius"))
        .args(["run", "org/name", "a"])
        .envs([("HF_ENDPOINT", "https://hub.invalid"), ("HTTPS_PROXY", &server.endpoint), ("NO_PROXY", "")])
        .env("HF_HOME", TempDir::new().unwrap().path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_says(&String::from_utf8(output.stderr).unwrap(), &["https://hub.invalid/api", "HTTPS_PROXY", "404", "NO_PROXY"]);
}

#[test]
fn a_server_that_never_answers_questions_about_a_file_is_asked_for_the_file() {
    let (server, cache) = (server(), TempDir::new().unwrap());
    server.fault(|request, _| (request.method == "HEAD").then(|| Reply { stalls: true, ..Reply::default() }));
    server.cut(WEIGHTS, 40_000);
    let patient =
        HubOptions { timeout: Duration::from_secs(60), etag_timeout: Duration::from_millis(200), ..options(&server, &cache) };
    let clock = std::time::Instant::now();
    let directory = resolve(&patient).unwrap();
    assert_eq!(std::fs::read(directory.join(WEIGHTS)).unwrap(), content());
    assert!(server.take_requests().iter().any(|request| request.method == "HEAD"));
    assert!(clock.elapsed() < Duration::from_secs(30), "the longer limit was waited for");
}

#[test]
fn what_cannot_run_is_refused_before_its_weights_are_fetched() {
    let (server, cache) = (server(), TempDir::new().unwrap());
    let refuse = |preview: Preview<'_>| {
        assert!(matches!(preview, Preview::Config("{\"a\": 1}")), "{preview:?}");
        Err(Error::UnknownArchitecture { model_type: "a".to_owned(), known: Vec::new() })
    };
    let error = resolve_model_with(&options(&server, &cache), "org/name", &refuse, &mut |_| true).unwrap_err();
    assert!(matches!(error, Error::UnknownArchitecture { .. }), "{error}");
    assert_eq!(server.take_downloads(), [("config.json".to_owned(), 0)]);
}

#[test]
fn repositories_in_other_formats_say_which() {
    for (file, said) in [
        ("consolidated.00.pth", "Mistral's own layout"),
        ("pytorch_model.bin", "Python pickles"),
        ("model.onnx", "ONNX"),
        ("adapter_config.json", "adapter"),
    ] {
        for config in ["config.json", "README.md"] {
            let server = HubServer::start(&[(config, b"{}"), (file, b"x")]);
            assert_says(&outcome(&server).unwrap_err(), &[file, said]);
            assert!(server.take_downloads().iter().all(|(name, _)| name == "config.json"));
        }
    }
}

#[test]
fn without_the_network_nothing_is_requested() {
    let (server, cache) = (server(), TempDir::new().unwrap());
    let offline = HubOptions { offline: true, ..options(&server, &cache) };
    assert_says(&resolve(&offline).unwrap_err().to_string(), &["HF_HUB_OFFLINE", "models--org--name"]);
    assert!(fetch_headers_with(&offline, "org/name").unwrap_err().to_string().contains("HF_HUB_OFFLINE"));
    assert_eq!(server.take_requests(), []);
    let directory = resolve(&options(&server, &cache)).unwrap();
    server.take_requests();
    assert_eq!(resolve(&offline).unwrap(), directory);
    // Nor for a model whose tokenizer is not there.
    std::fs::remove_file(directory.join("tokenizer.json")).unwrap();
    assert_eq!(resolve(&offline).unwrap(), directory);
    assert_eq!(server.take_requests(), []);
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let (server, cache) = (server(), TempDir::new().unwrap());
    std::fs::write(cache.path().join("hub"), "a file").unwrap();
    let error = resolve(&options(&server, &cache)).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    assert_says(&error.to_string(), &["cannot write to the cache at", "hub"]);
}

#[test]
fn several_at_once_fetch_a_file_once() {
    let (server, cache) = (server(), TempDir::new().unwrap());
    let options = options(&server, &cache);
    std::thread::scope(|scope| {
        let each = [(); 3].map(|()| scope.spawn(|| resolve(&options).unwrap()));
        for directory in each.map(|thread| thread.join().unwrap()) {
            assert_eq!(std::fs::read(directory.join(WEIGHTS)).unwrap(), content());
        }
    });
    assert_eq!(whole_blobs(&cache).iter().filter(|&&len| len == content().len()).count(), 1);
}

fn from_variables(variables: &[(&str, &str)]) -> Result<HubOptions, Error> {
    let variables: BTreeMap<String, String> =
        variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    HubOptions::from_variables(&|name| variables.get(name).cloned(), Some(Path::new("/home/me")))
}

#[test]
fn the_environment_is_read_as_the_python_client_reads_it() {
    let plain = from_variables(&[]).unwrap();
    assert_eq!((plain.endpoint.as_str(), plain.token, plain.offline), ("https://huggingface.co", None, false));
    assert_eq!(plain.cache_dir, Path::new("/home/me/.cache/huggingface/hub"));
    assert_eq!(plain.timeout, Duration::from_secs(10));

    let token = |variables: &[(&str, &str)]| from_variables(variables).unwrap().token;
    assert_eq!(token(&[("HF_TOKEN", " hf_good\r\n")]).as_deref(), Some("hf_good"));
    assert_eq!(token(&[("HF_TOKEN", " \n"), ("HUGGING_FACE_HUB_TOKEN", "old")]).as_deref(), Some("old"));
    assert_eq!(token(&[("HF_TOKEN", "x"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "  from_file\n").unwrap();
    assert_eq!(token(&[("HF_TOKEN_PATH", file.path().to_str().unwrap())]).as_deref(), Some("from_file"));
    assert!(from_variables(&[("HF_TOKEN", "two words")]).is_err_and(|error| error.to_string().contains("HF_TOKEN")));

    let endpoint = |value: &str| from_variables(&[("HF_ENDPOINT", value)]).map(|options| options.endpoint);
    assert_eq!(endpoint("hub.example").unwrap(), "https://hub.example");
    assert_eq!(endpoint("http://hub.example:8080/path/ ").unwrap(), "http://hub.example:8080/path");
    for wrong in ["ftp://hub", "http://", "https://ho st"] {
        assert!(endpoint(wrong).is_err_and(|error| error.to_string().contains("HF_ENDPOINT")), "{wrong}");
    }

    let cache = |variables: &[(&str, &str)]| from_variables(variables).unwrap().cache_dir;
    assert_eq!(cache(&[("HF_HOME", "~/hf")]), Path::new("/home/me/hf/hub"));
    assert_eq!(cache(&[("XDG_CACHE_HOME", "/xdg")]), Path::new("/xdg/huggingface/hub"));
    assert_eq!(cache(&[("HF_HOME", "/a"), ("HUGGINGFACE_HUB_CACHE", "/b")]), Path::new("/b"));
    assert_eq!(cache(&[("HF_HUB_CACHE", "/c"), ("HUGGINGFACE_HUB_CACHE", "/b")]), Path::new("/c"));

    for (value, offline) in [("1", true), ("ON", true), ("yes", true), ("True", true), ("0", false), ("", false), ("off", false)]
    {
        assert_eq!(from_variables(&[("HF_HUB_OFFLINE", value)]).unwrap().offline, offline, "{value}");
        assert_eq!(from_variables(&[("TRANSFORMERS_OFFLINE", value)]).unwrap().offline, offline, "{value}");
    }
    assert_eq!(from_variables(&[("HF_HUB_DOWNLOAD_TIMEOUT", "2.5")]).unwrap().timeout, Duration::from_millis(2500));
    assert_eq!(plain.etag_timeout, Duration::from_secs(10));
    assert_eq!(from_variables(&[("HF_HUB_ETAG_TIMEOUT", "3")]).unwrap().etag_timeout, Duration::from_secs(3));
    for wrong in ["soon", "0", "-1", "1e30"] {
        for name in ["HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"] {
            assert!(from_variables(&[(name, wrong)]).is_err_and(|error| error.to_string().contains(name)), "{wrong}");
        }
    }
}
