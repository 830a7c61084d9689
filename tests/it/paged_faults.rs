//! What may go wrong while experts are loaded, each with its error; after it the text goes on as if nothing had been.

use crate::common::{demo_model, golden, gpu_or_skip};
use moebius::generate::{GenerateOptions, SamplingOptions, StopRules};
use moebius::gpu::{DeviceChoice, DeviceOptions};
use moebius::model::{QuantizeOptions, quantize};
use moebius::paging::{ExpertMemory, HostCache, PlaceShape};
use moebius::platform::together;
use moebius::{Engine, Error, LoadOptions};
use pollster::block_on;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const PROMPT: [u32; 5] = [300, 17, 2025, 911, 4];

/// The bundled model as `moebius quantize` writes it, to be spoiled.
fn packed() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("packed");
    let options = QuantizeOptions { quant: Some("q4_0".parse().unwrap()), ..QuantizeOptions::default() };
    block_on(quantize(&demo_model(), &out, &options, &mut |_, _| true)).unwrap();
    (directory, out)
}

fn load_on(model: &Path, memory: &str, device: DeviceOptions) -> moebius::Result<Engine> {
    let options = LoadOptions { device, expert_memory: memory.parse().unwrap(), ..LoadOptions::default() };
    block_on(Engine::load(model, &options, &mut |_| {}))
}

fn load(model: &Path, memory: &str) -> Engine {
    load_on(model, memory, DeviceOptions::from_env(DeviceChoice::Auto)).unwrap()
}

fn options(max_tokens: usize) -> GenerateOptions {
    let sampling = SamplingOptions { temperature: 0.8, seed: 3, repeat_penalty: 1.1, ..SamplingOptions::default() };
    let stop = StopRules { eos_ids: Some(Vec::new()), max_tokens: Some(max_tokens), stop_strings: Vec::new() };
    GenerateOptions { sampling, stop }
}

/// The text, and the first error on the way there. `before` is called with the number of each token; whatever fails is tried once more.
fn write(engine: &mut Engine, tokens: usize, mut before: impl FnMut(usize)) -> (Vec<u32>, Option<Error>) {
    let mut first = None;
    let ids = block_on(async {
        let mut generation = engine.generate(&PROMPT, &options(tokens)).unwrap();
        let mut ids = Vec::new();
        loop {
            before(ids.len());
            match generation.next().await {
                Ok(Some(piece)) => ids.push(piece.id),
                Ok(None) => break,
                Err(error) if first.is_none() => {
                    first = Some(error);
                    before(usize::MAX);
                }
                Err(error) => panic!("again: {error}"),
            }
        }
        generation.finish().await.unwrap();
        ids
    });
    (ids, first)
}

#[test]
fn a_file_that_is_cut_short_is_said_and_the_text_goes_on_once_it_is_whole() {
    if !gpu_or_skip() {
        return;
    }
    let (_directory, model) = packed();
    let mut engine = load(&model, "25%");
    let (expected, none) = write(&mut engine, 24, |_| {});
    assert!(none.is_none());
    let file = model.join("model.safetensors");
    let content = fs::read(&file).unwrap();
    let mut is_cut = false;
    let change = |token: usize| match token {
        7 if !std::mem::replace(&mut is_cut, true) => {
            OpenOptions::new().write(true).open(&file).unwrap().set_len(content.len() as u64 / 3).unwrap()
        }
        // In place: the file stays open.
        usize::MAX => {
            use std::io::Write;
            OpenOptions::new().write(true).open(&file).unwrap().write_all(&content).unwrap();
        }
        _ => {}
    };
    let (ids, error) = write(&mut engine, 24, change);
    let error = error.expect("a third of a file does not have all experts");
    assert!(matches!(error, Error::SourceChanged { .. }), "{error}");
    let (text, hint) = (error.to_string(), error.hint().unwrap());
    assert!(text.contains("has changed since the model was opened") && text.contains("bytes instead of"), "{text}");
    assert!(hint.contains("load the model again"), "{hint}");
    assert_eq!(ids, expected, "the text after the error is another");
    // What the cache is said to hold is true.
    assert_eq!(write(&mut engine, 24, |_| {}).0, expected);
}

#[test]
fn a_file_that_is_written_to_is_noticed_and_one_that_is_replaced_does_no_harm() {
    if !gpu_or_skip() {
        return;
    }
    let (directory, model) = packed();
    let mut engine = load(&model, "25%");
    let (expected, _) = write(&mut engine, 12, |_| {});
    let file = model.join("model.safetensors");
    // Whoever saves a file anew puts another in its place: what is open stays as it was.
    let other = directory.path().join("other");
    fs::write(&other, vec![0; 1 << 20]).unwrap();
    let kept = directory.path().join("kept");
    fs::hard_link(&file, &kept).unwrap();
    fs::rename(&other, &file).unwrap();
    let (ids, none) = write(&mut engine, 12, |_| {});
    assert!(none.is_none());
    assert_eq!(ids, expected);
    // Written in place, it is not: that shows after so many reads.
    let content = fs::read(&kept).unwrap();
    fs::write(&kept, &content).unwrap();
    let error = block_on(async {
        let mut generation = engine.generate(&PROMPT, &options(400)).unwrap();
        loop {
            match generation.next().await {
                Ok(piece) => assert!(piece.is_some(), "nobody looked at the file"),
                Err(error) => return error.to_string(),
            }
        }
    });
    assert!(error.contains("the same length, written to"), "{error}");
}

#[test]
fn experts_that_have_to_be_packed_are_kept_in_host_memory() {
    if !gpu_or_skip() {
        return;
    }
    let (_directory, model) = packed();
    let mut quick = load(&model, "25%");
    let device = DeviceOptions::from_env(DeviceChoice::Auto);
    let options =
        LoadOptions { device, quant: "q4_0".parse().unwrap(), expert_memory: "25%".parse().unwrap(), ..LoadOptions::default() };
    let mut slow = block_on(Engine::load(&demo_model(), &options, &mut |_| {})).unwrap();
    let texts = [&mut quick, &mut slow].map(|engine| write(engine, 30, |_| {}).0);
    assert_eq!(texts[0], texts[1]);
    assert!(quick.paging().unwrap().packing.is_none());
    let packing = slow.paging().unwrap().packing.unwrap();
    assert!(packing.seconds > 0.0 && packing.host_bytes > 0, "{packing:?}");
    // All of them have room in host memory, so that each is packed once.
    let experts = slow.paging().unwrap().experts.iter().sum::<usize>() as u64;
    assert!(packing.host_requests - packing.host_hits <= experts && packing.host_hits > experts, "{packing:?}");
}

#[test]
fn auto_takes_less_where_allocating_fails() {
    if !gpu_or_skip() {
        return;
    }
    let (_directory, model) = packed();
    let with = |max_weight_bytes: Option<u64>, memory: &str| {
        load_on(&model, memory, DeviceOptions { max_weight_bytes, ..DeviceOptions::from_env(DeviceChoice::Auto) })
    };
    let mut resident = with(None, "auto").unwrap();
    assert!(resident.paging().is_none());
    let all = resident.load_stats().weight_bytes;
    let mut less = with(Some(all * 6 / 10), "auto").unwrap();
    let paging = less.paging().unwrap();
    assert_eq!(paging.memory, ExpertMemory::Auto);
    assert!(paging.slots.iter().all(|slots| (2..8).contains(slots)), "{paging:?}");
    assert!(less.load_stats().weight_bytes <= all * 6 / 10);
    assert_eq!(write(&mut less, 20, |_| {}).0, write(&mut resident, 20, |_| {}).0);
    // What nobody asked to be less is not: and at the end there is nothing left to take.
    for (memory, is_expected) in [("all", false), ("75%", false), ("auto", true)] {
        let error = with(Some(all / 20), memory).unwrap_err();
        assert_eq!(matches!(error, Error::ExpertMemory { .. }), is_expected, "{memory}: {error}");
        assert!(is_expected || matches!(error, Error::OutOfMemory { .. }), "{memory}: {error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn a_device_that_is_lost_at_a_stop_is_said() {
    if !gpu_or_skip() {
        return;
    }
    let (_directory, model) = packed();
    let mut engine = load(&model, "25%");
    let error = block_on(async {
        engine.gpu().unwrap().destroy();
        let mut generation = engine.generate(&PROMPT, &options(4)).unwrap();
        generation.next().await.unwrap_err()
    });
    assert!(matches!(error, Error::DeviceLost { .. }), "{error}");
    assert!(error.hint().unwrap().contains("load the model again"));
}

#[test]
fn a_host_cache_keeps_what_is_used_most() {
    let place = |layer| PlaceShape { layer, experts: 4, weightless: 0, experts_per_token: 3, record_bytes: Some(100) };
    let places = [place(0), place(1)];
    // Not even one for each place.
    assert!(HostCache::<u32>::new(&places, 150).is_none());
    let mut cache = HostCache::new(&places, 450).unwrap();
    assert_eq!(cache.bytes(), 400);
    for (place, expert) in [(0, 0), (0, 1), (1, 3)] {
        assert_eq!(cache.get(place, expert), None);
        cache.put(place, expert, 10 * place + expert);
    }
    (0..5).for_each(|_| assert_eq!(cache.get(0, 1), Some(1)));
    // The other of the first place goes; the second place has a room of its own.
    cache.put(0, 2, 2);
    assert_eq!([cache.get(0, 0), cache.get(0, 1), cache.get(0, 2), cache.get(1, 3)], [None, Some(1), Some(2), Some(13)]);
    assert_eq!(cache.counts(), [12, 8]);
}

#[test]
fn futures_run_together_and_answer_in_their_order() {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::task::Poll;
    let (running, most) = (Cell::new(0), Cell::new(0));
    let work = |number: usize| {
        let (running, most) = (&running, &most);
        async move {
            running.set(running.get() + 1);
            most.set(most.get().max(running.get()));
            // Later ones are done sooner.
            let mut left = 40 - number;
            poll_fn(|context| {
                context.waker().wake_by_ref();
                left -= 1;
                if left == 0 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            running.set(running.get() - 1);
            number
        }
    };
    assert_eq!(block_on(together((0..20).map(work).collect())), (0..20).collect::<Vec<_>>());
    assert_eq!(most.get(), 6);
    assert_eq!(block_on(together((0..0).map(work).collect())), Vec::<usize>::new());
}

fn moebius(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_moebius")).args(args).env("MOEBIUS_TUNING", "off").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn bench_measures_one_budget_after_the_other() {
    if !gpu_or_skip() {
        return;
    }
    let model = demo_model();
    let common = ["bench", model.to_str().unwrap(), "-p", "8", "-n", "6", "-r", "1", "--roof-size", "1", "--expert-memory"];
    let (code, stdout, stderr) = moebius(&[&common[..], &["all,50%", "-o", "csv"]].concat());
    assert_eq!(code, Some(0), "{stderr}");
    let rows: Vec<Vec<&str>> = stdout.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 3, "{stdout}");
    assert_eq!(rows[0][..4], ["budget", "slots", "pp8", "tg6"], "{stdout}");
    assert_eq!((rows[1][0], rows[1][1], rows[2][0], rows[2][1]), ("all", "all", "50%", "4 of 8"));
    assert!(rows[2].iter().any(|cell| cell.ends_with(" %")), "{stdout}");
    let (code, _, stderr) = moebius(&[&common[..], &["all,50%", "--kernels"]].concat());
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--kernels") && stderr.contains("hint: "), "{stderr}");
    let (code, _, stderr) = moebius(&[&common[..], &["all,half"]].concat());
    assert_eq!(code, Some(2));
    assert!(stderr.contains("half"), "{stderr}");
}

#[test]
fn inspect_says_what_budgets_may_be_expected_to_give() {
    let config = golden("configs/deepseek-v3.json");
    let (_, stdout, _) = moebius(&["inspect", config.to_str().unwrap(), "--read-gb-s", "200", "--json"]);
    let figures: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    if figures["device"].is_null() {
        return;
    }
    let budgets = &figures["expert_budgets"];
    assert_eq!(budgets["format"], "q4_0");
    let rows = budgets["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 5);
    let number = |row: &serde_json::Value, name: &str, index: usize| row[name][index].as_f64().unwrap();
    for pair in rows.windows(2) {
        assert!(pair[0]["bytes"].as_u64().unwrap() < pair[1]["bytes"].as_u64().unwrap());
        for index in 0..2 {
            assert!(number(&pair[0], "hits", index) < number(&pair[1], "hits", index));
            assert!(number(&pair[0], "decode_tokens_per_s", index) < number(&pair[1], "decode_tokens_per_s", index));
        }
    }
    for row in rows {
        assert!(number(row, "hits", 0) <= number(row, "hits", 1));
        assert!(number(row, "decode_tokens_per_s", 0) <= number(row, "decode_tokens_per_s", 1));
    }
    // With everything there it is what the table of formats says.
    let formats = figures["formats"].as_array().unwrap();
    let whole = formats.iter().find(|format| format["format"] == "q4_0").unwrap()["decode_tokens_per_s"].as_f64().unwrap();
    assert!((number(&rows[4], "decode_tokens_per_s", 0) / whole - 1.0).abs() < 1e-9);
    let (_, text, _) = moebius(&["inspect", config.to_str().unwrap(), "--read-gb-s", "200"]);
    for part in ["hits expected", "tokens/s expected", "128 of 256", "58 layers"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // What fits needs no such table.
    let (_, text, _) = moebius(&["inspect", demo_model().to_str().unwrap()]);
    assert!(!text.contains("hits expected"), "{text}");
}
