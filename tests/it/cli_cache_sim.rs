//! `moebius cache-sim`, from outside.

use crate::common::{demo_model, golden};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn moebius(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_moebius")).args(args).current_dir(folder).output().unwrap()
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

const HEADER: &str = r#"{"format":"moebius-trace 1","model":"a","device":"cpu","routing":"as trained","layers":[{"layer":1,"experts":4,"experts_per_token":1}]}"#;

/// One layer of four experts: six tokens of `x`, then two of `y`.
fn small(folder: &Path) {
    let record = |(domain, position, expert): (&str, usize, u32)| {
        format!(
            r#"{{"domain":"{domain}","position":{position},"token":3,"text":"a","layer":1,"experts":[{expert}],"weights":[1.0]}}"#
        )
    };
    let x = [0, 1, 0, 2, 1, 0].into_iter().enumerate().map(|(position, expert)| ("x", position, expert));
    let lines: Vec<String> = x.chain([("y", 0, 3), ("y", 1, 0)]).map(record).collect();
    std::fs::write(folder.join("t.jsonl"), format!("{HEADER}\n{}\n", lines.join("\n"))).unwrap();
    let sized = HEADER.replace(r#""experts_per_token":1"#, r#""experts_per_token":1,"expert_bytes":1024"#);
    std::fs::write(folder.join("sized.jsonl"), format!("{sized}\n{}\n", lines.join("\n"))).unwrap();
}

#[test]
fn a_small_trace_becomes_a_table() {
    let folder = tempfile::tempdir().unwrap();
    small(folder.path());
    let arguments = ["cache-sim", "t.jsonl", "--policy", "lru,LFU", "--budget", "50%,all"];
    let expected = "\
trace    a, 8 tokens of 2 texts, routing as trained
order    decode, one token after the other
experts  in 1 layers, of unknown size

policy  budget  slots   hits   loads/token  stops/token  tokens without a stop
lru     50%     2 of 4  25.0%  0.75         0.75         25.0%
lru     all     4 of 4  50.0%  0.50         0.50         50.0%
lfu     50%     2 of 4  37.5%  0.62         0.62         37.5%
lfu     all     4 of 4  50.0%  0.50         0.50         50.0%
";
    assert_eq!(stdout(folder.path(), &arguments), expected);

    // With sizes: what is loaded, and budgets in bytes.
    let sized = stdout(folder.path(), &["cache-sim", "sized.jsonl", "--policy", "lru", "--budget", "2KiB"]);
    assert!(sized.contains("experts  in 1 layers, 4.0 KiB in all"), "{sized}");
    let row: Vec<&str> = sized.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(row, ["lru", "2KiB", "2", "of", "4", "25.0%", "0.75", "768", "B", "0.75", "25.0%"]);
    let given = stdout(folder.path(), &["cache-sim", "t.jsonl", "--policy", "lru", "--budget", "2KiB", "--expert-bytes", "512"]);
    assert!(given.contains("4 of 4") && given.contains("256 B"), "{given}");

    // Without a budget every eighth that one token fits in.
    let all = stdout(folder.path(), &["cache-sim", "t.jsonl"]);
    let budgets: Vec<&str> =
        all.lines().filter(|line| line.starts_with("lfu")).map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(budgets, ["25%", "37.5%", "50%", "62.5%", "75%", "87.5%", "100%"]);
    assert!(all.contains("belady") && !all.contains("random"), "{all}");
}

#[test]
fn texts_prompts_pages_and_figures() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    small(here);
    let texts = stdout(here, &["cache-sim", "t.jsonl", "--per-text", "--policy", "lru", "--budget", "50%"]);
    let rows: Vec<Vec<&str>> = texts.lines().skip(5).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((rows[0][0], rows[0][6], rows[1][0], rows[1][6]), ("x", "16.7%", "y", "0.0%"));

    let prefill = ["cache-sim", "t.jsonl", "--order", "prefill", "--chunk", "3", "--policy", "lru,static", "--budget", "50%"];
    let figures: Value = serde_json::from_str(&stdout(here, &[&prefill[..], &["--json", "--html", "c.html"]].concat())).unwrap();
    assert_eq!((&figures["order"], &figures["chunk"], &figures["tokens"]), (&"prefill".into(), &3.into(), &8.into()));
    // {0, 1}, {2, 1, 0}, {3, 0}: both of the first two are there for the second chunk.
    let lru = &figures["simulations"][0];
    assert_eq!((&lru["requests"], &lru["hits"], &lru["tokens_without_stop"]), (&7.into(), &2.into(), &Value::Null), "{lru}");
    assert!((lru["hit_share"].as_f64().unwrap() - 2.0 / 7.0).abs() < 1e-12);
    assert_eq!(figures["simulations"][1]["first_loads"], 1, "static");

    let page = std::fs::read_to_string(here.join("c.html")).unwrap();
    for part in ["<svg", "in chunks of 3", "Hits over budget", "static, 50%: ", "Layer by layer", "layer 1"] {
        assert!(page.contains(part), "no `{part}` in the page");
    }
    let page = page.replace("http://www.w3.org/2000/svg", "").replace("href=\"#", "");
    for absent in ["<script", "http://", "https://", "src=", "href=", "url("] {
        assert!(!page.contains(absent), "{absent}");
    }
    let note = |args: &[&str]| String::from_utf8(moebius(here, args).stderr).unwrap();
    assert!(note(&prefill).contains("static knows this trace beforehand"));
    assert_eq!(note(&[&prefill[..], &["--profile", "sized.jsonl"]].concat()), "");
}

#[test]
fn what_cannot_be_simulated_is_refused_with_what_can() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    small(here);
    std::fs::write(here.join("bad.jsonl"), "{}").unwrap();
    std::fs::write(here.join("empty.jsonl"), HEADER).unwrap();
    std::fs::write(here.join("layers.jsonl"), HEADER.replace(r#"{"layer":1,"experts":4,"experts_per_token":1}"#, "")).unwrap();
    let model = golden("fixtures/mixtral");
    let sim = |rest: &[&str], words: &[&str]| refused(here, &[&["cache-sim", "t.jsonl"], rest].concat(), words);
    sim(&["--policy", "lfo"], &["expected one of lfu, lru, static, belady, random", "did you mean `lfu`?"]);
    sim(&["--policy", ""], &["expected one of lfu"]);
    sim(&["--budget", "half"], &["a size such as 6GiB"]);
    sim(&["--budget", "50%,7"], &["write 7B for bytes, 7GiB or 7%"]);
    sim(&["--budget", "auto"], &["no device to ask"]);
    sim(&["--budget", "20%"], &["holds 0 of the 4 experts of layer 1", "at least 25% is needed", "hint: "]);
    sim(&["--budget", "6GiB"], &["does not say how large an expert is", "hint: add --expert-bytes or --model"]);
    sim(&["--budget", "900B", "--expert-bytes", "1000"], &["at least 1000B is needed"]);
    sim(&["--order", "decod"], &["decode"]);
    sim(&["--chunk", "4"], &["--order prefill"]);
    sim(&["--order", "prefill", "--chunk", "0"], &["whole number from 1 on"]);
    sim(&["--model", model.to_str().unwrap()], &["the trace is of another model", "hint: name the model that was traced"]);
    sim(&["--model", "x", "--expert-bytes", "9"], &["cannot be used with"]);
    sim(&["--quant", "q4_0"], &["--model"]);
    sim(&["--html", "no/c.html"], &["cannot write no/c.html"]);
    sim(&["--html", "t.jsonl"], &["would be overwritten"]);
    sim(&["--profile", "bad.jsonl", "--policy", "static"], &["bad.jsonl, line 1"]);
    for (trace, words) in [
        ("bad.jsonl", &["bad.jsonl, line 1", "hint: "][..]),
        ("empty.jsonl", &["empty.jsonl has no tokens", "hint: "]),
        ("layers.jsonl", &["layers.jsonl has no layers with a router"]),
        ("gone.jsonl", &["cannot read gone.jsonl"]),
    ] {
        refused(here, &["cache-sim", trace], words);
    }
}

/// The beginning of the licence has 631 tokens, which the policies serve much as 13195 tokens of seven kinds of text: within two points of these shares.
const HITS: [(&str, [f64; 3]); 4] =
    [("random", [38.7, 62.7, 83.0]), ("lru", [38.7, 63.1, 84.3]), ("lfu", [38.7, 67.6, 87.1]), ("belady", [38.7, 76.0, 92.0])];

#[test]
fn the_bundled_model_uses_its_experts_as_the_policies_expect() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let licence = Path::new(env!("CARGO_MANIFEST_DIR")).join("LICENSE-APACHE");
    let model = demo_model();
    let (licence, model) = (licence.to_str().unwrap(), model.to_str().unwrap());
    stdout(here, &["trace", model, "--device", "cpu", "--file", licence, "--max-bytes", "2000", "--out", "t.jsonl"]);
    let arguments = ["cache-sim", "t.jsonl", "--policy", "random,lru,lfu,belady", "--budget", "25%,50%,75%", "--json"];
    let figures: Value = serde_json::from_str(&stdout(here, &arguments)).unwrap();
    let hits = |policy: usize, budget: usize| 100.0 * figures["simulations"][3 * policy + budget]["hit_share"].as_f64().unwrap();
    for (policy, (name, expected)) in HITS.into_iter().enumerate() {
        for (budget, expected) in expected.into_iter().enumerate() {
            let found = hits(policy, budget);
            assert!((found - expected).abs() < 2.0, "{name}, {} of 8 slots: {found:.1} %", 2 * (budget + 1));
        }
    }
    // With as many slots as a token needs, nobody has a choice.
    assert!((1..4).all(|policy| hits(policy, 0) == hits(0, 0)));
    assert!((1..3).all(|budget| hits(3, budget) > hits(2, budget) + 4.0 && hits(2, budget) > hits(1, budget) + 2.0));
    // The trace knows the bytes of an expert, and so does the model.
    let bytes = |more: &[&str]| {
        let arguments = [&["cache-sim", "t.jsonl", "--policy", "lfu", "--budget", "50%", "--json"], more].concat();
        serde_json::from_str::<Value>(&stdout(here, &arguments)).unwrap()["simulations"][0]["slot_bytes"].as_u64().unwrap()
    };
    // Four of eight experts in six layers, three matrices of 256 x 384 in bf16 each.
    assert_eq!(bytes(&[]), 4 * 6 * 3 * 256 * 384 * 2);
    assert_eq!(bytes(&["--model", model]), bytes(&[]));
    assert_eq!(bytes(&["--model", model, "--quant", "f32"]), 2 * bytes(&[]));
}
