//! `moebius trace`, `moebius trace-report` and the routing options, from outside.

use crate::common::{demo_model, golden};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the program on the reference, in `folder`.
fn moebius(folder: &Path, args: &[&str]) -> Output {
    // A report needs no device.
    let device: &[&str] = if args[0] == "trace-report" { &[] } else { &["--device", "cpu"] };
    Command::new(env!("CARGO_BIN_EXE_moebius")).args(args).args(device).current_dir(folder).output().unwrap()
}

fn stdout(folder: &Path, args: &[&str]) -> String {
    let output = moebius(folder, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Exit code 2, nothing on stdout, no panic, and every one of `words` in the error.
fn refused(folder: &Path, args: &[&str], words: &[&str]) {
    let output = moebius(folder, args);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{args:?}: {error}");
    assert!(!error.contains("panicked"), "{error}");
    words.iter().for_each(|word| assert!(error.contains(word), "{args:?}: no `{word}` in: {error}"));
}

fn fixture() -> String {
    golden("fixtures/mixtral").to_str().unwrap().to_owned()
}

#[test]
fn a_folder_of_texts_becomes_a_trace_and_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let texts = folder.path().join("texts");
    std::fs::create_dir(&texts).unwrap();
    std::fs::write(texts.join("law.txt"), "The court held that the defendant é was liable.").unwrap();
    std::fs::write(texts.join("tale.txt"), "Once upon a time there was a king who had a daughter.").unwrap();
    std::fs::write(texts.join("notes.md"), "not a text").unwrap();
    std::fs::write(texts.join("empty.txt"), "").unwrap();
    let model = fixture();
    let arguments = ["trace", &model, "--dir", "texts", "--max-bytes", "40", "--out", "t.jsonl", "--cost=2", "--json"];
    let figures: Value = serde_json::from_str(&stdout(folder.path(), &arguments)).unwrap();
    assert_eq!(figures["texts"], 2, "the empty one is left aside");
    assert!(figures["cost_percent"].is_number() && figures["decode_tokens_per_second"].as_f64().unwrap() > 0.0, "{figures}");

    let trace = std::fs::read_to_string(folder.path().join("t.jsonl")).unwrap();
    let records: Vec<Value> = trace.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    let layers = serde_json::from_str::<Value>(trace.lines().next().unwrap()).unwrap()["layers"].as_array().unwrap().len();
    assert_eq!(records.len() as u64, figures["tokens"].as_u64().unwrap() * layers as u64);
    let of =
        |domain: &str| records.iter().filter(|record| record["domain"] == domain && record["layer"] == 0).collect::<Vec<_>>();
    let text: String = of("tale").iter().map(|record| record["text"].as_str().unwrap()).collect();
    let text = text.strip_prefix("<s>").expect("what a text begins with is written as well").trim_start();
    assert!("Once upon a time there was a king who had a daughter.".starts_with(text) && text.len() > 30, "{text}");
    assert!(of("law").iter().enumerate().all(|(position, record)| record["position"] == position));

    let report = stdout(folder.path(), &["trace-report", "t.jsonl", "--html", "r.html"]);
    for part in ["load of each expert", "max/min", "entropy", "overlap", "departs", "law", "tale", "frequent tokens"] {
        assert!(report.contains(part), "no `{part}` in {report}");
    }
    assert!(std::fs::read_to_string(folder.path().join("r.html")).unwrap().contains("<svg"));
    let statistics: Value = serde_json::from_str(&stdout(folder.path(), &["trace-report", "t.jsonl", "--json"])).unwrap();
    assert_eq!(statistics["layers"].as_array().unwrap().len(), layers);
    assert_eq!(statistics["tokens"], figures["tokens"]);
}

#[test]
fn a_prompt_is_traced_with_its_continuation() {
    let folder = tempfile::tempdir().unwrap();
    let model = demo_model().to_str().unwrap().to_owned();
    let common = ["-n", "3", "--temp", "0"];
    let run = |more: &[&str], out: &str| {
        let arguments = [&["trace", &model, "-p", "The king", "--out", out], &common[..], more].concat();
        stdout(folder.path(), &arguments);
        std::fs::read_to_string(folder.path().join(out)).unwrap()
    };
    let trained = run(&[], "a.jsonl");
    let forced = run(&["--force-expert", "5@2", "--disable-expert", "0,1", "--experts-per-token", "1"], "b.jsonl");
    assert!(trained.contains("as trained"));
    assert!(forced.contains("1 expert per token, without experts 0, 1, always expert 5@2"), "{}", forced.lines().next().unwrap());
    for record in forced.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let experts = record["experts"].as_array().unwrap();
        assert!(experts.len() == 1 && experts[0] != 0 && experts[0] != 1, "{record}");
        assert!(record["layer"] != 2 || experts[0] == 5, "{record}");
    }
    // Prompt and continuation but for the newest token, in six layers.
    assert_eq!(trained.lines().count(), 1 + (trained.lines().count() - 1) / 6 * 6);
    assert!(trained.lines().last().unwrap().contains("\"layer\":5"));
}

#[test]
fn impossible_routing_and_impossible_texts_are_refused_before_loading() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("empty.txt"), "").unwrap();
    std::fs::write(folder.path().join("bad.jsonl"), "{}").unwrap();
    let model = fixture();
    let here = folder.path();
    for (option, value, expected) in [
        ("--experts-per-token", "0", "experts per token: expected 1 to"),
        ("--experts-per-token", "99", "experts per token: expected 1 to"),
        ("--disable-expert", "99", "expert: expected 0 to"),
        ("--disable-expert", "1@77", "layer: expected one with a router"),
        ("--force-expert", "x", "a number such as 3"),
        ("--router-temperature", "0", "router temperature: expected 0.01 to 100"),
    ] {
        refused(here, &["run", &model, "Hi", option, value], &[expected]);
    }
    let all = ["run", "demo", "Hi", "--disable-expert", "0,1,2,3,4,5,6,7"];
    refused(here, &all, &["experts switched off: expected fewer than all 8 of layer 0, found 8"]);
    refused(here, &["trace", &model, "--out", "t.jsonl"], &["--prompt", "--file", "--dir"]);
    refused(here, &["trace", &model, "--file", "empty.txt", "--out", "t.jsonl"], &["empty.txt is empty", "hint: "]);
    refused(here, &["trace", &model, "--dir", "none", "--out", "t.jsonl"], &["cannot read none"]);
    refused(here, &["trace", &model, "-p", "a", "--out", "no/t.jsonl"], &["cannot write no/t.jsonl", "hint: "]);
    refused(here, &["trace-report", "bad.jsonl"], &["bad.jsonl, line 1", "hint: "]);
    refused(here, &["trace-report", "gone.jsonl"], &["cannot read gone.jsonl"]);
    std::fs::remove_file(here.join("empty.txt")).unwrap();
    refused(here, &["trace", &model, "--dir", ".", "--out", "t.jsonl"], &["has no text", "hint: "]);
    assert!(!here.join("t.jsonl").exists());
}
