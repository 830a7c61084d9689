//! The library as other programs use it: its dependencies, its futures, its defaults, its examples.

use crate::common::hub_server::HubServer;
use crate::common::{demo_model, gpu_or_skip};
use moebius::generate::Generation;
use moebius::generate::{ChatMessage, GenerateOptions, StopReason};
use moebius::gpu::DeviceChoice;
use moebius::platform::{Fetching, HubOptions, fetch_model_with};
use moebius::{Engine, Error, LoadEvent, LoadOptions};
use pollster::block_on;
use std::future::Future;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn demo() -> Engine {
    block_on(Engine::open(demo_model().to_str().unwrap(), LoadOptions::on(DeviceChoice::Cpu))).unwrap()
}

fn finish(mut generation: Generation<'_>) -> moebius::generate::Summary {
    block_on(async {
        while generation.next().await.unwrap().is_some() {}
        generation.finish().await.unwrap()
    })
}

fn hub_options(server: &HubServer, cache: &TempDir) -> HubOptions {
    let moment = Duration::from_millis(700);
    HubOptions {
        endpoint: server.endpoint.clone(),
        cache_dir: cache.path().join("hub"),
        token: None,
        offline: false,
        timeout: moment,
        etag_timeout: moment,
        first_pause: Duration::from_millis(20),
    }
}

fn cargo(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    let output = command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn without_the_command_line_the_library_depends_on_nothing_of_it() {
    let tree = |more: &[&str]| {
        let base = ["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
        let packages = cargo(&[&base[..], more].concat());
        packages.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect::<Vec<_>>()
    };
    let (library, program) = (tree(&["--no-default-features"]), tree(&[]));
    for name in ["clap", "clap_complete", "clap_mangen", "indicatif", "ctrlc", "anyhow", "pollster", "rustyline", "console"] {
        assert!(!library.iter().any(|package| package == name), "the library depends on {name}");
        assert!(program.iter().any(|package| package == name), "{name} is no longer a dependency: take it off this list");
    }
    assert!(!library.iter().chain(&program).any(|package| package == "tokio"), "nothing needs a runtime");
    assert!(library.iter().any(|package| package == "wgpu"), "{library:?}");
}

/// Fails to compile where a future of the library could not move between threads.
#[allow(dead_code, reason = "only its types are checked")]
fn the_futures_of_an_engine_may_move_between_threads(engine: &'static mut Engine, messages: &'static [ChatMessage]) {
    fn is_send<T: Send>(_: T) {}
    fn is_sync<T: Sync>(_: &T) {}
    is_sync::<Engine>(engine);
    is_send(Engine::open("org/name", LoadOptions::default()));
    is_send(async {
        let mut generation = engine.chat(messages, &GenerateOptions::default())?;
        while generation.next().await?.is_some() {}
        generation.finish().await?;
        engine.set_routing(&Default::default()).await?;
        engine.forward(&[1]).await?;
        engine.likeliest(&[1], 1).await?;
        engine.trace(&[1], &mut |_, _| {}).await?;
        engine.perplexity(&[1, 2], &mut |_, _| {}).await
    });
}

#[test]
fn a_folder_opens_in_one_call_and_tells_what_it_does() {
    let mut events = Vec::new();
    let name = demo_model();
    let engine = block_on(Engine::open_with(name.to_str().unwrap(), &LoadOptions::on(DeviceChoice::Cpu), &mut |event| {
        events.push(event);
    }))
    .unwrap();
    assert!(matches!(&events[0], LoadEvent::Device(device) if device == engine.device()), "{events:?}");
    let LoadEvent::Weights { done_bytes, total_bytes } = events.last().unwrap() else { panic!("{events:?}") };
    assert_eq!(done_bytes, total_bytes);
    let error = block_on(Engine::open("no-such-model", LoadOptions::default())).unwrap_err();
    assert!(matches!(error, Error::Argument { what: "model", .. }), "{error}");
}

#[test]
fn the_default_options_write_until_the_model_ends_or_128_tokens_are_there() {
    let mut engine = demo();
    let ids = engine.tokenizer().encode("Once upon a time", true).unwrap();
    let summary = finish(engine.generate(&ids, &GenerateOptions::default()).unwrap());
    let ended = engine.tokenizer().eos_ids().contains(summary.ids.last().unwrap());
    assert_eq!(summary.stop, if ended { StopReason::Eos } else { StopReason::MaxTokens });
    assert!(ended || summary.ids.len() == 128, "{}", summary.ids.len());

    // A token that the model does write, as the end that was asked for.
    let end = summary.ids[5];
    let mut options = GenerateOptions::default();
    options.stop.eos_ids = Some(vec![end]);
    let cut = finish(engine.generate(&ids, &options).unwrap());
    assert_eq!((cut.stop, cut.ids.last()), (StopReason::Eos, Some(&end)));
    assert!(cut.ids.len() <= 6 && summary.ids.starts_with(&cut.ids));
    options.stop.max_tokens = Some(0);
    assert!(matches!(engine.generate(&ids, &options), Err(Error::Argument { what: "number of new tokens", .. })));
}

#[test]
fn the_end_of_a_text_comes_from_the_model() {
    let copy = crate::common::copy_of("mixtral");
    let open = || block_on(Engine::open(copy.path().to_str().unwrap(), LoadOptions::on(DeviceChoice::Cpu))).unwrap();
    let written = finish(open().generate(&[5, 6, 7], &GenerateOptions::default()).unwrap());
    assert_eq!(written.stop, StopReason::MaxTokens, "{:?}", written.ids);
    // Now the model says that the third token of this ends a text.
    let end = written.ids[2];
    let generation_config = serde_json::json!({ "eos_token_id": end });
    std::fs::write(copy.path().join("generation_config.json"), generation_config.to_string()).unwrap();
    let mut engine = open();
    let ended = finish(engine.generate(&[5, 6, 7], &GenerateOptions::default()).unwrap());
    assert_eq!((ended.stop, ended.ids.last()), (StopReason::Eos, Some(&end)));
    let mut options = GenerateOptions::default();
    options.stop.eos_ids = Some(Vec::new());
    assert_eq!(finish(engine.generate(&[5, 6, 7], &options).unwrap()).ids, written.ids);
}

#[test]
fn a_conversation_is_answered_as_its_prompt_would_be_continued() {
    let mut engine = demo();
    let messages = [ChatMessage::new("user", "Who is the king?")];
    let prompt = engine.chat_prompt(&messages).unwrap();
    assert!(prompt.is_plain && prompt.max_tokens == 128);
    assert_eq!(prompt.text, "User: Who is the king?\nAssistant:");
    let answer = finish(engine.chat(&messages, &GenerateOptions::default()).unwrap());
    assert_eq!(answer.prompt_ids, prompt.ids);
    let mut options = GenerateOptions::default();
    options.stop.stop_strings = prompt.stop_strings;
    assert_eq!(finish(engine.generate(&prompt.ids, &options).unwrap()).ids, answer.ids);
    options.stop.max_tokens = Some(3);
    assert_eq!(finish(engine.chat(&messages, &options).unwrap()).ids, answer.ids[..3]);
}

#[test]
fn routing_that_a_model_cannot_do_is_refused_before_its_weights_are_read() {
    let mut options = LoadOptions::on(DeviceChoice::Cpu);
    options.routing.experts_per_token = Some(1);
    let name = demo_model();
    let engine = block_on(Engine::open(name.to_str().unwrap(), options.clone())).unwrap();
    assert_eq!(engine.routing(), &options.routing);
    options.routing.experts_per_token = Some(99);
    let mut events = Vec::new();
    let failed = block_on(Engine::open_with(name.to_str().unwrap(), &options, &mut |event| events.push(event)));
    assert!(failed.is_err() && events.is_empty(), "{events:?}");
}

#[test]
fn a_model_of_the_hub_is_fetched_without_holding_up_the_thread_that_waits() {
    let weights = vec![7; 70_000];
    let server = HubServer::start(&[("config.json", b"{}"), ("model.safetensors", &weights)]);
    let cache = TempDir::new().unwrap();
    let mut told = Vec::new();
    let mut listener = |event| told.push(event);
    let mut fetching = Box::pin(fetch_model_with(hub_options(&server, &cache), "org/name", |_| Ok(()), &mut listener));
    let began = Instant::now();
    let first = fetching.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(first.is_pending() && began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
    let directory = block_on(fetching).unwrap();
    assert_eq!(std::fs::read(directory.join("model.safetensors")).unwrap(), weights);
    assert_eq!(told[0], Fetching::Asking { endpoint: server.endpoint.clone() });
    let whole = Fetching::File { file: "model.safetensors".to_owned(), received_bytes: 70_000, total_bytes: Some(70_000) };
    assert!(told.contains(&whole), "{told:?}");
    assert!(block_on(fetch_model_with(hub_options(&server, &cache), "org/other", |_| Ok(()), &mut |_| {})).is_err());
}

#[test]
fn dropping_the_future_ends_a_download_and_keeps_what_has_arrived() {
    let weights = vec![7; 8 << 20];
    let server = HubServer::start(&[("config.json", b"{}"), ("model.safetensors", &weights)]);
    // Half of the file, and then a pause.
    server.cut("model.safetensors", 4 << 20);
    let cache = TempDir::new().unwrap();
    let options = HubOptions { first_pause: Duration::from_millis(300), ..hub_options(&server, &cache) };
    let (received, deadline) = (AtomicU64::new(0), Instant::now() + Duration::from_secs(20));
    let mut listener = |event| match event {
        Fetching::File { file, received_bytes, .. } if file == "model.safetensors" => {
            received.store(received_bytes, Ordering::Relaxed);
        }
        _ => {}
    };
    let mut fetching = Box::pin(fetch_model_with(options.clone(), "org/name", |_| Ok(()), &mut listener));
    while received.load(Ordering::Relaxed) == 0 {
        assert!(fetching.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() && Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(fetching);
    std::thread::sleep(Duration::from_millis(900));
    let offline = HubOptions { offline: true, ..options.clone() };
    let missing = block_on(fetch_model_with(offline, "org/name", |_| Ok(()), &mut |_| {}));
    assert!(missing.is_err(), "nobody waits for it, and yet it has been fetched whole");
    server.take_downloads();
    let directory = block_on(fetch_model_with(options, "org/name", |_| Ok(()), &mut |_| {})).unwrap();
    assert_eq!(std::fs::read(directory.join("model.safetensors")).unwrap(), weights);
    let resumed = server.take_downloads();
    assert!(matches!(resumed.as_slice(), [(_, start)] if *start > 0), "{resumed:?}");
}

/// What an example prints. `cargo test` has built it beside the program; cargo is only asked where a single test target was.
fn run_example(name: &str) -> String {
    let beside = Path::new(env!("CARGO_BIN_EXE_moebius")).parent().unwrap().join("examples").join(name);
    if !beside.with_extension(std::env::consts::EXE_EXTENSION).exists() {
        return cargo(&["run", "--quiet", "--offline", "--locked", "--example", name]);
    }
    let output = Command::new(beside).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_example_runs_and_says_what_it_is_about() {
    if !gpu_or_skip() {
        return;
    }
    let examples = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).unwrap();
    let mut names: Vec<String> = examples
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["generate", "one_kernel", "trace_routing"], "an example without a test");
    for name in names {
        let text = std::fs::read_to_string(format!("{}/examples/{name}.rs", env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert!(text.lines().count() < 40, "{name} is longer than an example should be");
        let output = run_example(&name);
        match name.as_str() {
            "generate" => {
                let expected = "Once upon a time there was a king who";
                assert!(output.starts_with(expected) && output.contains(" tokens, "), "{output}");
                assert!(output.lines().next().unwrap().len() > expected.len(), "{output}");
            }
            "one_kernel" => {
                let difference: f32 = output.split("at most ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
                assert!(difference < 1e-5, "{output}");
            }
            // One line per token; in each of six layers two experts with their weights.
            _ => {
                let lines: Vec<&str> = output.lines().collect();
                assert!(lines.len() >= 6, "{output}");
                assert!(lines.iter().all(|line| line.matches("   ").count() >= 6 && line.matches(':').count() >= 12), "{output}");
            }
        }
    }
}
