//! Options as people type them, what is said about wrong ones, and how results are laid out.

use crate::common::{copy_of, golden, gpu_or_skip, spoiled};
use std::path::Path;
use std::process::{Command, Output};

fn moebius(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moebius"));
    command.args(args).env("MOEBIUS_TUNING", "off").envs(variables.iter().copied()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The last words of the program about bad arguments: code 2, and nothing that only a Rust programmer would say.
fn refused(args: &[&str]) -> String {
    let output = moebius(args, &[]);
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
    assert!(output.stdout.is_empty() && error.contains("error: "), "{args:?}: {error}");
    for foreign in ["panicked", "invalid digit", "non-zero type", "ParseIntError", "float literal", "too large to fit"] {
        assert!(!error.contains(foreign), "{args:?}: {error}");
    }
    error
}

const RUN: [&str; 5] = ["run", "a", "--device", "cpu", "--json"];

fn run(options: &[&str]) -> serde_json::Value {
    let output = moebius(&[&RUN[..], options].concat(), &[]);
    assert_eq!(output.status.code(), Some(0), "{options:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn off_is_understood_as_other_programs_spell_it() {
    let plain = run(&["-n", "6", "--seed", "7", "--temp", "0.9", "--top-p", "1"]);
    let spelled =
        ["-n", "6", "--seed", "7", "-t", "0.9", "--top-k", "-1", "--top-p", "1", "--min-p", "0", "--repeat-penalty", "1.0"];
    assert_eq!(run(&spelled)["ids"], plain["ids"]);
    assert_eq!(run(&["-n", "6", "--seed", "7", "--temperature", "0.9", "--top-k", "0", "--top-p", "1"])["ids"], plain["ids"]);
    // Greedy needs no seed; a random one is said.
    assert_eq!(run(&["-n", "4", "--temp", "0", "--seed=-1"])["ids"], run(&["-n", "4", "--temp", "0"])["ids"]);
    assert!(run(&["-n", "2", "--temp", "1", "--seed", "random"])["seed"].is_u64());
    // As many tokens as the context holds.
    let full = run(&["-n", "-1", "--ctx", "12", "--ignore-eos"]);
    assert!(full["ids"].as_array().unwrap().len() > 6, "{full}");
}

#[test]
fn bad_numbers_are_refused_in_plain_words_with_what_was_expected() {
    for (options, words) in [
        (&["-n", "0"][..], "whole number from 1 on"),
        (&["-n", "ten"], "whole number from 1 on"),
        (&["-n", "1,000"], "write 1000"),
        (&["-n", "99999999999999999999999"], "whole number"),
        (&["--ctx", "4k"], "write 4000 or 4096"),
        (&["--ctx", "-5"], "-5"),
        (&["--temp", "-1"], "number from 0 on"),
        (&["--temp", "0,7"], "a point, not a comma"),
        (&["--temp", "nan"], "number from 0 on"),
        (&["--top-k", "-2"], "0 or -1 is off"),
        (&["--top-p", "0"], "1 is off"),
        (&["--top-p", "1.5"], "1 is off"),
        (&["--min-p", "2"], "0 is off"),
        (&["--repeat-penalty", "0"], "1 is off"),
        (&["--seed", "-2"], "-1 is another one each time"),
        (&["--experts-per-token", "two"], "whole number"),
        (&["--router-temperature", "0"], "1 is as trained"),
    ] {
        let error = refused(&[&["run", "a"], options].concat());
        assert!(error.contains(words), "{options:?}: {error}");
    }
    assert!(refused(&["bench", "-r", "0"]).contains("whole number from 1 on"));
    assert!(refused(&["bench", "-p", "5,x"]).contains("whole number from 0 on"));
    assert!(refused(&["logits", "--ids", "1,-2", "--out", "x"]).contains("token id"));
    assert!(refused(&["quantize", "a", "b", "--file-size", "0"]).contains("whole number from 1 on"));
}

#[test]
fn formats_and_devices_are_known_in_any_case() {
    let config = golden("configs/mixtral-8x7b.json");
    let inspect = |quant: &str| {
        stdout(&moebius(&["inspect", text(&config), "--quant", quant, "--kv-cache", "F16", "--device", "CPU"], &[]))
    };
    let lower = inspect("q4_0,head=q8_0");
    assert!(lower.contains("q4_0,head=q8_0"), "{lower}");
    assert_eq!(inspect("Q4_0,HEAD=Q8_0"), lower);
}

#[test]
fn shared_options_are_refused_where_they_do_not_act() {
    for args in [
        &["devices", "--device", "foo"][..],
        &["devices", "--quant", "q4_0"],
        &["list", "archs", "--ctx", "5"],
        &["trace-report", "t.jsonl", "--device", "cpu"],
        &["cache-sim", "t.jsonl", "--device", "cpu"],
        &["quantize", "a", "b", "--device", "cpu"],
        &["check", "--quant", "q4_0"],
    ] {
        assert!(refused(args).contains("unexpected argument"), "{args:?}");
    }
}

#[test]
fn help_has_the_commands_own_options_first_and_shared_ones_under_their_heading() {
    for command in ["run", "chat", "inspect", "quantize", "logits", "perplexity", "trace", "check", "bench", "tune"] {
        let help = stdout(&moebius(&[command, "--help"], &[]));
        let heading = help.find("Device and memory:").unwrap_or_else(|| panic!("{command}: {help}"));
        let shared = if command == "quantize" { "--quant" } else { "--device" };
        assert!(help.find(&format!("  {shared} ")).is_some_and(|place| place > heading), "{command}: {help}");
        assert!(help.find("Options:").is_some_and(|place| place < heading), "{command}: {help}");
        assert!(!help.contains("slow reference"), "{command}");
    }
    for command in ["devices", "list", "trace-report", "cache-sim", "completions", "man"] {
        assert!(!stdout(&moebius(&[command, "--help"], &[])).contains("Device and memory"), "{command}");
    }
    assert!(stdout(&moebius(&["devices", "--help"], &[])).starts_with("List the adapters"));
    assert!(stdout(&moebius(&["run", "--help"], &[])).starts_with("Continue a text"));
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "PowerShell"] {
        let output = moebius(&["completions", shell], &[]);
        assert_eq!(output.status.code(), Some(0), "{shell}: {}", stderr(&output));
        for word in ["perplexity", "quantize", "kv-cache"] {
            assert!(stdout(&output).contains(word), "{shell}: {word}");
        }
    }
    refused(&["completions", "cobol"]);
    let page = stdout(&moebius(&["man"], &[]));
    assert!(page.contains(".TH") && page.contains("perplexity"), "{page}");
    assert!(stdout(&moebius(&["man", "run"], &[])).contains("repeat\\-penalty"));
    assert!(refused(&["man", "rum"]).contains("commands are run, chat"));
    let folder = tempfile::tempdir().unwrap();
    let written = moebius(&["man", "--out", text(folder.path())], &[]);
    assert_eq!(written.status.code(), Some(0), "{}", stderr(&written));
    assert!(folder.path().join("moebius.1").is_file() && folder.path().join("moebius-trace-report.1").is_file());
    assert!(refused(&["man", "--out", text(&folder.path().join("no/such"))]).contains("hint: "));
}

#[test]
fn the_version_names_the_commit_where_it_is_known() {
    let version = stdout(&moebius(&["--version"], &[]));
    let known = concat!("moebius ", env!("CARGO_PKG_VERSION"));
    let rest = version.trim().strip_prefix(known).unwrap_or_else(|| panic!("{version}"));
    let commit = rest.strip_prefix(" (").and_then(|rest| rest.strip_suffix(')'));
    assert!(rest.is_empty() || commit.is_some_and(|commit| commit.len() >= 7), "{version}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_eq!(root.join(".git").exists(), commit.is_some(), "{version}");
}

#[test]
fn tables_fit_eighty_columns_without_a_break_inside_a_word() {
    let wide = stdout(&moebius(&["list", "archs"], &[]));
    let narrow = stdout(&moebius(&["list", "archs"], &[("COLUMNS", "80")]));
    assert!(wide.lines().any(|line| line.chars().count() > 80));
    assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
    for word in wide.split_whitespace() {
        assert!(narrow.split_whitespace().any(|other| other == word), "{word} is broken in {narrow}");
    }
    for args in [&["list", "kernels"][..], &["list", "quants"], &["devices"]] {
        let table = stdout(&moebius(args, &[("COLUMNS", "80")]));
        assert!(table.lines().filter(|line| line.contains("  ")).all(|line| line.chars().count() <= 80), "{table}");
    }
    // So narrow that no break helps: a list instead of a table.
    let listed = stdout(&moebius(&["list", "quants"], &[("COLUMNS", "14")]));
    assert!(listed.lines().any(|line| line.starts_with("bits per weight  8.5")), "{listed}");
}

#[test]
fn colours_come_where_they_are_wanted_and_nowhere_else() {
    let args = ["run", "a", "-n", "2", "--device", "cpu"];
    let coloured = |options: &[&str], variables: &[(&str, &str)]| {
        stderr(&moebius(&[&args[..], options].concat(), variables)).contains("\x1b[")
    };
    assert!(!coloured(&[], &[]), "this is no terminal");
    assert!(coloured(&["--color", "always"], &[]));
    assert!(coloured(&["--color", "Always"], &[("NO_COLOR", "1")]), "what is asked for wins");
    assert!(coloured(&[], &[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&["--color=never"], &[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    refused(&["list", "archs", "--color", "blue"]);
}

#[test]
fn figures_come_as_a_table_markdown_values_or_json() {
    refused(&["bench", "-o", "yaml"]);
    refused(&["bench", "-o", "csv", "--json"]);
    if !gpu_or_skip() {
        return;
    }
    let fixture = golden("fixtures/mixtral");
    let bench = |format: &str| {
        let args = ["bench", text(&fixture), "-p", "4", "-n", "2", "-r", "1", "--roof-size", "1", "-o", format];
        let output = moebius(&args, &[]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output)
    };
    let csv = bench("CSV");
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 3, "{csv}");
    assert!(lines[0].starts_with("test,tokens/s") && lines[1].starts_with("pp4,") && lines[2].starts_with("tg2,"), "{csv}");
    assert!(lines.iter().all(|line| line.split(',').count() == lines[0].split(',').count()), "{csv}");
    let markdown = bench("md");
    assert!(markdown.starts_with("| test | tokens/s |") && markdown.lines().nth(1).unwrap().starts_with("|---|"), "{markdown}");
}

#[test]
fn what_a_model_computes_that_is_no_number_ends_with_an_error_not_with_an_empty_text() {
    let model = spoiled("mixtral", "model.layers.1.block_sparse_moe.experts.2.w2.weight", |element| element == 0, f32::NAN);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("logits.safetensors");
    let devices: &[&str] = if gpu_or_skip() { &["cpu", "auto"] } else { &["cpu"] };
    for device in devices {
        let ids: Vec<String> = (0..40).map(|id| id.to_string()).collect();
        for args in [
            &["run", text(model.path()), "Once upon a time there was a king", "-n", "6", "--device", device][..],
            &["logits", text(model.path()), "--ids", &ids.join(","), "--out", text(&out), "--device", device],
        ] {
            let error = refused_later(args);
            assert!(error.contains("not finite: it begins in the experts or MLP of layer 1"), "{args:?}: {error}");
            assert!(error.contains("hint: "), "{args:?}: {error}");
        }
        assert!(!out.exists());
        let args = ["run", text(model.path()), "Once upon", "-n", "3", "--device", device];
        assert_eq!(moebius(&args, &[("MOEBIUS_UNCHECKED_RESULTS", "1")]).status.code(), Some(0));
    }
}

/// As [`refused`], of what shows only when the model runs.
fn refused_later(args: &[&str]) -> String {
    let output = moebius(args, &[]);
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
    assert!(!error.contains("panicked"), "{args:?}: {error}");
    error[error.find("error: ").unwrap()..].to_owned()
}

#[test]
fn auto_takes_the_reference_where_it_is_quicker_than_the_only_software_device_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let tuning = folder.path().join("tuning.json");
    let fixture = golden("fixtures/mixtral");
    let run = |options: &[&str]| {
        let args = [&["run", text(&fixture), "Once upon a time", "-n", "3", "--temp", "0", "--json"], options].concat();
        let output = moebius(&args, &[("MOEBIUS_TUNING", text(&tuning))]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        (serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap(), stderr(&output))
    };
    let devices: serde_json::Value = serde_json::from_slice(&moebius(&["devices", "--json"], &[]).stdout).unwrap();
    if devices[0]["kind"] != "software" {
        return;
    }
    let kept = folder.path().join("devices.json");
    // What is asked of the device, or a device that is named, needs no measurement.
    for options in [&["--quant", "q4_0"][..], &["--kv-cache", "f32"], &["--device", "gpu:0"]] {
        assert_eq!(run(options).0["device"]["kind"], "software", "{options:?}");
    }
    assert!(!kept.exists());
    let (_, said) = run(&[]);
    assert!(
        said.contains("tokens/s") && (said.contains("--device gpu:0 takes") || said.contains("--device cpu takes")),
        "{said}"
    );
    // It is measured once: what is kept decides from now on.
    let mut measured: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&kept).unwrap()).unwrap();
    for (rates, kind) in [([100.0, 129.0], "software"), ([100.0, 131.0], "reference"), ([100.0, 20.0], "software")] {
        measured["made"][0]["tokens_per_second"] = serde_json::json!(rates);
        std::fs::write(&kept, measured.to_string()).unwrap();
        assert_eq!(run(&[]).0["device"]["kind"], kind, "{rates:?}");
    }
    // A file that is none of ours is as good as none.
    std::fs::write(&kept, "no json").unwrap();
    run(&[]);
    assert!(std::fs::read_to_string(&kept).unwrap().contains("tokens_per_second"));
}

#[test]
fn gpu_without_a_gpu_says_that_only_software_is_here() {
    let devices: serde_json::Value = serde_json::from_slice(&moebius(&["devices", "--json"], &[]).stdout).unwrap();
    let kinds: Vec<&str> = devices.as_array().unwrap().iter().map(|device| device["kind"].as_str().unwrap()).collect();
    if kinds.is_empty() || kinds.iter().any(|kind| *kind != "software") {
        return;
    }
    let error = refused_later(&["run", "a", "--device", "gpu"]);
    assert!(error.contains("no GPU here, only software") && error.contains("hint: "), "{error}");
}

#[test]
fn an_option_given_twice_counts_as_given_last_and_lists_add_up() {
    let options = ["run", "demo", "a", "--device", "cpu", "--json", "--seed", "1", "--seed", "2", "-n", "9", "-n", "2"];
    let output = moebius(&[&options[..], &["--disable-expert", "1", "--disable-expert", "2"]].concat(), &[]);
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it runs");
    assert_eq!((&result["seed"], result["ids"].as_array().unwrap().len()), (&2.into(), 2));
    let idle = |expert: usize| result["expert_loads"].as_array().unwrap().iter().all(|layer| layer[expert] == 0);
    assert!(idle(1) && idle(2) && !idle(3));
}

#[test]
fn the_hint_to_raise_the_context_stands_only_where_it_can_be_raised() {
    let words = "king ".repeat(1100);
    let prompt = words.trim();
    let at_most = refused_later(&["run", "demo", prompt, "--device", "cpu"]);
    assert!(at_most.contains("no more than 1024") && !at_most.contains("--ctx"), "{at_most}");
    let raised = refused_later(&["run", "demo", prompt, "--device", "cpu", "--ctx", "64"]);
    assert!(raised.contains("raise --ctx: this model takes up to 1024"), "{raised}");
}

#[test]
fn damaged_small_files_of_a_model_come_with_the_next_step() {
    let spoiled = |file: &str, content: &[u8]| {
        let model = copy_of("mixtral");
        std::fs::write(model.path().join(file), content).unwrap();
        refused_later(&["run", model.path().to_str().unwrap(), "a", "--device", "cpu"])
    };
    let utf16: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (file, content, parts) in [
        ("config.json", &b"{}"[..], &["`model_type`", "hint: ", "is this the whole file"][..]),
        ("config.json", &utf16, &["config.json", "hint: ", "UTF-8", "iconv -f UTF-16"]),
        ("config.json", b"{\"model_type\": \"mix", &["config.json cannot be parsed", "hint: ", "cut or damaged"]),
        ("generation_config.json", b"{\"do_sample\": tr", &["generation_config.json", "hint: ", "delete it"]),
        ("tokenizer_config.json", b"{\"bos_tok", &["tokenizer_config.json", "hint: ", "fetch it again"]),
    ] {
        let error = spoiled(file, content);
        for part in parts {
            assert!(error.contains(part), "{file}: `{part}` is missing in: {error}");
        }
    }
}

#[test]
fn each_token_is_shown_with_its_best_expert() {
    let args = ["run", "def parse(line):", "-n", "8", "--temp", "0", "--device", "cpu"];
    let shown = |options: &[&str]| {
        let output = moebius(&[&args[..], options].concat(), &[]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        (stdout(&output), stderr(&output))
    };
    let (written, plain) = shown(&[]);
    let (same, numbers) = shown(&["--show-experts"]);
    assert!(written == same && !plain.contains("best expert"), "{plain}");
    // What the routers did, from the trace of the same text.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.jsonl");
    let traced = ["trace", "-p", "def parse(line):", "-n", "8", "--temp", "0", "--device", "cpu", "--out", text(&file)];
    assert_eq!(moebius(&traced, &[]).status.code(), Some(0));
    let lines = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_layer = |layer: u64| -> Vec<String> {
        let lines = lines.iter().filter(|line| line["layer"] == layer);
        lines.map(|line| format!("{}[{}]", line["text"].as_str().unwrap(), line["experts"][0])).collect()
    };
    let expected = of_layer(5);
    assert!(expected.len() > 10 && numbers.contains(&expected.concat()), "{expected:?} in\n{numbers}");
    let (_, first) = shown(&["--show-experts=0"]);
    assert!(first.contains("in layer 0:") && first.contains(&of_layer(0).concat()), "{first}");
    // In colours: the ends of lines have none, and the text is the same.
    let (_, coloured) = shown(&["--show-experts", "--color", "always"]);
    assert!(coloured.contains("\u{1b}[") && coloured.contains("in the colour"), "{coloured}");
    assert!(refused(&["run", "a", "--device", "cpu", "--show-experts=9"]).contains("layers 0 to 5 have experts"));
    refused(&["run", "a", "--show-experts=x"]);
}
