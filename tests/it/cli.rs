//! The command line from outside: exit codes, messages, and the tables.

use crate::common::{demo_model, golden, gpu_or_skip};
use moebius::quant::QUANTS;
use std::path::Path;
use std::process::Command;

struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs the program with `args` in an empty directory.
fn moebius(args: &[&str]) -> Outcome {
    let empty = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_moebius"))
        .args(args)
        .env("MOEBIUS_TUNING", "off")
        .current_dir(empty.path())
        .output()
        .unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the program with bad input: exit code 2, nothing on stdout, no panic, and an error that holds every one of `words`.
fn refused(args: &[&str], words: &[&str]) -> String {
    let outcome = moebius(args);
    assert_eq!(outcome.code, Some(2), "{args:?}: {}", outcome.stderr);
    assert_eq!(outcome.stdout, "", "{args:?}");
    assert!(!outcome.stderr.contains("panicked"), "{args:?}: {}", outcome.stderr);
    let error = outcome.stderr[outcome.stderr.find("error: ").expect("an error is announced")..].to_owned();
    for word in words {
        assert!(error.contains(word), "{args:?}: no `{word}` in: {error}");
    }
    error
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A copy of a fixture without its weights, to be spoiled.
fn copy_of(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        std::fs::copy(golden(&format!("fixtures/{name}")).join(file), copy.path().join(file)).unwrap();
    }
    copy
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_help_of_every_command_has_an_example() {
    let help = moebius(&["--help"]);
    assert_eq!(help.code, Some(0));
    let listed = help.stdout.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> = listed.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    assert_eq!(
        commands,
        [
            "run",
            "chat",
            "inspect",
            "quantize",
            "logits",
            "perplexity",
            "trace",
            "trace-report",
            "cache-sim",
            "train",
            "upcycle",
            "check",
            "bench",
            "tune",
            "report",
            "devices",
            "models",
            "list",
            "completions",
            "man"
        ]
    );
    for command in commands {
        let help = moebius(&[command, "--help"]);
        assert_eq!(help.code, Some(0));
        let examples = help.stdout.split("Examples:").nth(1).unwrap_or_default();
        assert!(examples.contains(&format!("moebius {command}")), "{command}: {}", help.stdout);
    }
}

#[test]
fn every_command_that_prints_figures_offers_json() {
    for command in
        ["run", "inspect", "quantize", "logits", "perplexity", "trace", "trace-report", "cache-sim", "bench", "devices", "list"]
    {
        assert!(moebius(&[command, "--help"]).stdout.contains("--json"), "{command}");
    }
}

#[test]
fn inspect_counts_the_parameters_of_the_published_mixtrals() {
    for (name, total, active) in [("mixtral-8x7b", "46.7 B", "12.9 B"), ("mixtral-8x22b", "140.6 B", "39.1 B")] {
        let config = golden(&format!("configs/{name}.json"));
        let outcome = moebius(&["inspect", text(&config)]);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        assert!(outcome.stdout.contains(&format!("{total}, {active} active per token")), "{}", outcome.stdout);

        let figures = json(&moebius(&["inspect", text(&config), "--json"]).stdout);
        let billions = |key: &str| format!("{:.1} B", figures["parameters"][key].as_f64().unwrap() / 1e9);
        assert_eq!((billions("total"), billions("active")), (total.to_owned(), active.to_owned()));
    }
}

#[test]
fn inspect_says_what_a_device_of_a_given_bandwidth_may_reach() {
    let config = golden("configs/mixtral-8x7b.json");
    let figures = json(&moebius(&["inspect", text(&config), "--read-gb-s", "100", "--json"]).stdout);
    let f16 = figures["formats"].as_array().unwrap().iter().find(|format| format["format"] == "f16").unwrap();
    // All but the rows of the embedding: 12.7 billion of two bytes each.
    let bytes = f16["active_weight_bytes"].as_f64().unwrap();
    assert!((25.4e9..25.7e9).contains(&bytes), "{bytes}");
    assert!((f16["decode_tokens_per_s"].as_f64().unwrap() - 100e9 / bytes).abs() < 1e-9);
    let (own, dense) = (figures["flops_per_token"].as_f64().unwrap(), figures["flops_of_dense"].as_f64().unwrap());
    assert!((25.4e9..25.6e9).contains(&own) && dense < own && own / dense < 1.0001, "{own} {dense}");
    let page = moebius(&["inspect", text(&config), "--read-gb-s", "100"]).stdout;
    assert!(page.contains("tokens/s at best") && page.contains("compute"), "{page}");
    refused(&["inspect", text(&config), "--read-gb-s=-1"], &["above zero"]);
}

#[test]
fn inspect_measures_what_this_device_reads_where_asked() {
    let config = golden("configs/olmoe-1b-7b.json");
    refused(&["inspect", text(&config), "--measure", "--device", "cpu"], &["--measure", "reference", "hint: "]);
    refused(&["inspect", text(&config), "--measure", "--read-gb-s", "5"], &["--read-gb-s"]);
    refused(&["inspect", text(&config), "--measure=0"], &["--measure"]);
    refused(&["inspect", text(&config), "--measure", "--device", "no such adapter"], &["no such adapter"]);
    if !gpu_or_skip() {
        return;
    }
    let figures = json(&moebius(&["inspect", text(&config), "--measure=8", "--json"]).stdout);
    let roof = figures["read_roof"]["gb_s"].as_f64().unwrap();
    assert!(roof > 0.1, "{roof}");
    assert_eq!(figures["read_roof"]["measured_bytes"], 8 << 20);
    for format in figures["formats"].as_array().unwrap() {
        let expected = roof * 1e9 / format["active_weight_bytes"].as_f64().unwrap();
        let found = format["decode_tokens_per_s"].as_f64().unwrap();
        assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
    }
    let page = moebius(&["inspect", text(&config), "--measure=8"]).stdout;
    let line = page.lines().find(|line| line.starts_with("read roof")).unwrap();
    let device = figures["device"]["name"].as_str().unwrap();
    assert!(line.contains("GB/s, measured now over 8.0 MiB") && line.contains(device), "{line}");
    assert!(page.contains("tokens/s at best"), "{page}");
}

#[test]
fn inspect_says_what_mixes_the_tokens_of_a_hybrid() {
    let outcome = moebius(&["inspect", text(&golden("configs/jamba-v0.1.json"))]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("51.6 B, 12.1 B active per token"), "{}", outcome.stdout);
    let mixer = "none, a state space of 8192 channels of 16, over a convolution of 4 tokens, in 28 layers";
    assert!(outcome.stdout.contains(mixer), "{}", outcome.stdout);
}

#[test]
fn inspect_takes_a_directory_as_well_as_its_config() {
    let directory = moebius(&["inspect", text(&demo_model())]);
    let file = moebius(&["inspect", text(&demo_model().join("config.json"))]);
    assert_eq!(directory.code, Some(0), "{}", directory.stderr);
    assert_eq!(directory.stdout, file.stdout);
    assert!(directory.stdout.contains("17.3 M, 6.6 M active"), "{}", directory.stdout);
}

#[test]
fn inspect_counts_the_cache_for_the_context_that_was_asked_for() {
    let figures = |options: &[&str]| json(&moebius(&[&["inspect", text(&demo_model()), "--json"], options].concat()).stdout);
    // As the weights of attention are, which the demo model has in bf16, unless it is asked for.
    for (options, format, of_row) in [
        (&[][..], "f32", ["f32", "f16"]),
        (&["--quant", "attention=q4_0"], "f16", ["f32", "f16"]),
        (&["--quant", "q4_0,attention=q8_0"], "f32", ["f32", "f16"]),
        (&["--kv-cache", "f32"], "f32", ["f32"; 2]),
        (&["--kv-cache", "f16", "--quant", "f32"], "f16", ["f16"; 2]),
    ] {
        let [short, long] = ["100", "200"].map(|ctx| figures(&[&["--ctx", ctx], options].concat()));
        assert_eq!(short["kv_cache"], format, "{options:?}");
        // A key and a value of two heads of 32 in six layers.
        let bytes = |format: &str| 6 * 2 * 2 * 32 * if format == "f32" { 4 } else { 2 };
        assert_eq!(short["kv_bytes_per_token"], bytes(format));
        for (name, format) in ["f32", "q4_0"].into_iter().zip(of_row) {
            let row = QUANTS.iter().position(|quant| quant.name == name).unwrap();
            let needed = |figures: &serde_json::Value| figures["formats"][row]["needed_bytes"].as_u64().unwrap();
            assert_eq!(short["formats"][row]["kv_cache"], format, "{options:?} {row}");
            assert_eq!(needed(&long) - needed(&short), 100 * bytes(format), "{options:?} {row}");
        }
    }
    refused(&["inspect", text(&demo_model()), "--kv-cache", "q8_0"], &["--kv-cache", "q8_0", "f16"]);
    refused(&["inspect", text(&demo_model()), "--ctx", "5000"], &["5000", "1024", "hint: "]);
}

#[test]
fn list_prints_the_same_rows_as_text_json_and_markdown() {
    for what in ["archs", "kernels", "quants"] {
        let plain = moebius(&["list", what]).stdout;
        let rows = json(&moebius(&["list", what, "--json"]).stdout);
        let rows = rows.as_array().unwrap();
        let markdown = moebius(&["list", what, "--markdown"]).stdout;
        assert!(!rows.is_empty());
        assert_eq!(plain.lines().count(), rows.len() + 1, "one line of header");
        assert_eq!(markdown.lines().count(), rows.len() + 2, "header and rule");
        for (row, line) in rows.iter().zip(markdown.lines().skip(2)) {
            for cell in row.as_object().unwrap().values() {
                assert!(line.contains(cell.as_str().unwrap()), "{cell} is not in {line}");
            }
        }
    }
}

#[test]
fn devices_answers_whether_or_not_there_is_an_adapter() {
    let outcome = moebius(&["devices", "--json"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    for device in json(&outcome.stdout).as_array().unwrap() {
        assert!(device["name"].is_string() && device["max_binding_bytes"].is_u64(), "{device}");
    }
}

#[test]
fn check_names_a_broken_kernel_and_fails() {
    refused(&["check", "--device", "cpu"], &["the reference itself", "hint: "]);
    refused(&["check", "rooter"], &["no such kernel", "moebius list kernels"]);
    if !gpu_or_skip() {
        return;
    }
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moebius"));
        command.args(["check", "--json"]).env("MOEBIUS_TUNING", "off");
        command
    };
    let good = check().output().unwrap();
    assert_eq!(good.status.code(), Some(0), "{}", String::from_utf8_lossy(&good.stderr));
    assert_eq!(json(&String::from_utf8(good.stdout).unwrap())["passed"], true);

    let bad = check().env("MOEBIUS_TEST_BREAK_KERNEL", "norm").output().unwrap();
    assert_eq!(bad.status.code(), Some(1), "1: what was asked is false");
    assert!(String::from_utf8(bad.stderr).unwrap().contains("norm is wrong in "));
    let report = json(&String::from_utf8(bad.stdout).unwrap());
    let failed = report["cases"].as_array().unwrap().iter().filter(|case| case["passed"] == false);
    let kernels: std::collections::BTreeSet<&str> = failed.map(|case| case["kernel"].as_str().unwrap()).collect();
    assert_eq!(kernels.into_iter().collect::<Vec<_>>(), ["norm"]);

    let some = check().args(["norm", "embed"]).env("MOEBIUS_TEST_BREAK_KERNEL", "router_topk").output().unwrap();
    assert_eq!(some.status.code(), Some(0), "the broken one was not asked for");
    let report = json(&String::from_utf8(some.stdout).unwrap());
    let kernels = report["cases"].as_array().unwrap().iter().map(|case| case["kernel"].as_str().unwrap());
    assert_eq!(kernels.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>(), ["embed", "norm"]);
}

#[test]
fn inspect_has_a_row_for_formats_by_class() {
    let of = |quant: &str, name: &str| {
        let figures = json(&moebius(&["inspect", text(&demo_model()), "--json", "--quant", quant]).stdout);
        let formats = figures["formats"].as_array().unwrap().clone();
        let format = formats.iter().find(|format| format["format"] == name).unwrap_or_else(|| panic!("no {name}"));
        [format["weight_bytes"].as_u64().unwrap(), format["active_weight_bytes"].as_u64().unwrap()]
    };
    // Every class by name is the format for all.
    let named = "experts=q4_0,shared=q4_0,attention=q4_0,embedding=q4_0,head=q4_0";
    assert_eq!(of(named, named), of(named, "q4_0"));
    // A class that is not named is as stored, here in bf16.
    let [mixed, narrow, wide] = ["experts=q4_0", "q4_0", "bf16"].map(|name| of("experts=q4_0", name));
    assert!(narrow[0] < mixed[0] && mixed[0] < wide[0] && narrow[1] < mixed[1] && mixed[1] < wide[1], "{mixed:?}");
    let page = moebius(&["inspect", text(&golden("configs/mixtral-8x7b.json")), "--quant", "q4_0,head=q8_0"]).stdout;
    assert!(page.lines().any(|line| line.starts_with("q4_0,head=q8_0")), "{page}");
}

#[test]
fn quantize_refuses_what_is_in_the_way_before_it_starts() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (golden("fixtures/mixtral"), folder.path().join("out"));
    let written = moebius(&["quantize", text(&model), text(&out), "--quant", "q4_0,head=q8_0", "--json"]);
    assert_eq!(written.code, Some(0), "{}", written.stderr);
    let written = json(&written.stdout);
    assert_eq!((&written["quant"], &written["files"]), (&"q4_0,head=q8_0".into(), &1.into()));
    assert_eq!(written["formats"], serde_json::json!(["q4_0", "q8_0"]));
    // As stored, because it was asked for; q8_0 where nothing was.
    for (index, (quant, formats)) in [(Some("auto"), ["bf16"]), (None, ["q8_0"])].into_iter().enumerate() {
        let other = folder.path().join(format!("other-{index}"));
        let options: Vec<&str> = quant.iter().flat_map(|quant| ["--quant", quant]).collect();
        let written = moebius(&[&["quantize", text(&model), text(&other), "--json"], &options[..]].concat());
        assert_eq!(json(&written.stdout)["formats"][0], formats[0], "{}", written.stderr);
        std::fs::remove_dir_all(other).unwrap();
    }
    refused(&["quantize", text(&model), text(&out)], &["not empty", "hint: "]);
    refused(&["quantize", text(&out), text(&folder.path().join("again"))], &["already quantised (q4_0,head=q8_0)", "hint: "]);
    refused(&["quantize", text(&model), text(&model.join("config.json/out"))], &["config.json/out"]);
    refused(&["quantize", text(folder.path()), text(&folder.path().join("other"))], &["config.json"]);
    refused(&["quantize", text(&model)], &["OUT"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only what was written is there");
    let page = moebius(&["inspect", text(&out)]).stdout;
    assert!(page.contains("by moebius quantize, layout 1") && page.contains("q4_0,head=q8_0"), "{page}");
    let figures = json(&moebius(&["inspect", text(&out), "--json"]).stdout);
    assert_eq!(figures["packed"]["quant"], "q4_0,head=q8_0");
    assert!(figures["packed"]["bytes"]["q8_0"].as_u64().unwrap() > 0, "{}", figures["packed"]);
}

#[test]
fn nonsense_options_are_refused() {
    refused(&["run", "--quant", "q9"], &["q9", "auto, f32, f16, bf16"]);
    refused(&["run", "--device", "gpu:first"], &["gpu:N", "`moebius devices`"]);
    refused(&["run", "--ctx", "0"], &["--ctx"]);
    refused(&["list", "models"], &["archs", "kernels", "quants"]);
    refused(&["frobnicate"], &["frobnicate"]);
    refused(&["logits", "--out", "x"], &["--ids", "--text"]);
    refused(&["logits", "--ids", "1", "--text", "one", "--out", "x"], &["cannot be used with"]);
}

#[test]
fn sampling_options_out_of_range_are_named() {
    let demo = demo_model();
    for (option, value, name) in [
        ("--temp", "-1", "--temp"),
        ("--top-p", "0", "--top-p"),
        ("--min-p", "2", "--min-p"),
        ("--repeat-penalty", "0", "--repeat-penalty"),
    ] {
        refused(&["run", text(&demo), "Once", "--device", "cpu", option, value], &[name, value, "expected"]);
    }
    refused(&["run", text(&demo), "Once", "--device", "cpu", "--stop", ""], &["stop string"]);
}

#[test]
fn an_empty_prompt_is_refused() {
    let demo = demo_model();
    refused(&["run", text(&demo), ""], &["the prompt is empty", "hint: "]);
    refused(&["run", ""], &["the prompt is empty", "hint: "]);
    refused(&["run", text(&demo)], &["no prompt", "hint: "]);
    refused(&["logits", text(&demo), "--text", "", "--out", "x"], &["empty", "hint: "]);
}

#[test]
fn ids_are_checked_before_the_weights_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let ids = folder.path().join("ids.json");
    let out = folder.path().join("out.safetensors");
    let demo = demo_model();
    for (content, words) in [
        ("[1, 4096]", ["4096", "0 to 4095"]),
        ("[]", ["", "at least one token"]),
        ("[1, -2]", ["-2", "array of token ids"]),
        ("{\"ids\": [1]}", ["invalid type", "array of token ids"]),
        ("[1, 2", ["EOF", "array of token ids"]),
    ] {
        std::fs::write(&ids, content).unwrap();
        refused(&["run", text(&demo), "--ids-file", text(&ids)], &words);
        refused(&["logits", text(&demo), "--ids-file", text(&ids), "--out", text(&out)], &words);
    }
    refused(&["logits", text(&demo), "--ids", "1,5000", "--out", text(&out)], &["5000", "0 to 4095", "hint: "]);
    refused(&["run", text(&demo), "--ids-file", text(&folder.path().join("none.json"))], &["cannot read", "none.json"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only ids.json is there");
}

#[test]
fn an_output_that_cannot_be_written_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no/such/folder/out.safetensors");
    refused(&["logits", "--ids", "1", "--out", text(&missing)], &["cannot write", "hint: "]);
    refused(&["logits", "--ids", "1", "--out", text(folder.path())], &["cannot write", "expected a regular file"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_directory_that_is_no_model_is_refused_with_what_it_lacks() {
    let empty = tempfile::tempdir().unwrap();
    refused(&["run", text(empty.path()), "Once", "--device", "cpu"], &["config.json", "hint: "]);
    refused(&["inspect", text(empty.path())], &["config.json"]);

    let copy = copy_of("mixtral");
    std::fs::remove_file(copy.path().join("tokenizer.json")).unwrap();
    refused(&["run", text(copy.path()), "Once", "--device", "cpu"], &["tokenizer.json"]);

    let copy = copy_of("mixtral");
    std::fs::remove_file(copy.path().join("model.safetensors")).unwrap();
    refused(&["run", text(copy.path()), "Once", "--device", "cpu"], &["model.safetensors"]);

    let copy = copy_of("mixtral");
    let weights = copy.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    refused(&["run", text(copy.path()), "Once", "--device", "cpu"], &["model.safetensors", "hint: "]);
}

#[test]
fn a_config_that_makes_no_sense_is_refused_with_its_key() {
    let copy = copy_of("mixtral");
    let config = copy.path().join("config.json");
    let good = std::fs::read_to_string(&config).unwrap();
    for (from, to, words) in [
        ("\"mixtral\"", "\"spiral\"", ["spiral", "mixtral"]),
        ("\"num_attention_heads\": 3", "\"num_attention_heads\": 0", ["num_attention_heads", "0"]),
        ("\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 7", ["num_experts_per_tok", "7"]),
        ("\"head_dim\": 16", "\"head_dim\": 15", ["head_dim", "15"]),
        ("{", "[", ["config.json", ""]),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        std::fs::write(&config, bad).unwrap();
        refused(&["inspect", text(copy.path())], &words);
        refused(&["run", text(copy.path()), "Once", "--device", "cpu"], &words);
    }
}

#[test]
fn a_prompt_that_does_not_fit_the_context_is_refused_with_both_numbers() {
    let error =
        refused(&["run", text(&demo_model()), "one two three four five six", "--device", "cpu", "--ctx", "4"], &["4", "hint: "]);
    assert!(error.contains("prompt has"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let command = format!("{} list archs", env!("CARGO_BIN_EXE_moebius"));
    let output = Command::new("sh").args(["-c", &format!("( sleep 0.2; {command}; echo $? >&2 ) | true")]).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "0\n");
}

#[test]
fn bench_prints_the_figures_of_every_test_as_json() {
    if !gpu_or_skip() {
        return;
    }
    let few = ["-p", "4", "-n", "2,0", "-d", "0,6", "-r", "2", "--roof-size", "8"];
    let outcome = moebius(&[&["bench", text(&demo_model()), "--json", "--quant", "f16"], &few[..]].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let figures = json(&outcome.stdout);
    for roof in ["read_gb_s", "copy_gb_s", "fma_gflop_s", "gap_us"] {
        assert!(figures["roofs"][roof].as_f64().is_some_and(|figure| figure > 0.0), "{figures}");
    }
    assert_eq!(figures["quant"], serde_json::json!(["f16"]));
    assert_eq!(figures["device"]["backend"], "vulkan");
    assert!((1 << 20..=128 << 20).contains(&figures["largest_binding_bytes"].as_u64().unwrap()), "{figures}");
    let tests = figures["tests"].as_array().unwrap();
    assert_eq!(
        tests.iter().map(|test| test["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["pp4", "tg2", "tg2s", "pp4@d6", "tg2@d6", "tg2s@d6"]
    );
    for test in tests {
        for key in [
            "tokens_per_second",
            "stddev",
            "dispatches_per_token",
            "submits_per_token",
            "readbacks_per_token",
            "weight_bytes_per_token",
        ] {
            assert!(test[key].is_number(), "{key}: {test}");
        }
        let is_decode = test["n_gen"] != 0;
        assert_eq!((test["read_roof_share"].is_null(), test["fma_roof_share"].is_null()), (!is_decode, is_decode));
    }
    for line in ["driver", "model", "roofs", "weights in f16"] {
        assert!(outcome.stderr.contains(line), "{}", outcome.stderr);
    }
}

#[test]
fn bench_prints_kernels_and_plots_sweeps() {
    if !gpu_or_skip() {
        return;
    }
    let outcome = moebius(&["bench", text(&demo_model()), "--kernels", "-p", "3", "-n", "1", "-r", "1", "--roof-size", "8"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("pp3: a prompt") && outcome.stdout.contains("tg1@d0: a decode step"), "{}", outcome.stdout);
    assert_eq!(outcome.stdout.matches("expert_down").count(), 2, "{}", outcome.stdout);

    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("growth.svg");
    let few = ["-p", "33", "-n", "1", "-d", "65", "-r", "1", "--roof-size", "8"];
    let outcome = moebius(&[&["bench", text(&demo_model()), "--sweep", text(&plot)], &few[..]].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(outcome.stdout.lines().count(), 5, "{}", outcome.stdout);
    let image = std::fs::read_to_string(plot).unwrap();
    assert_eq!((image.matches("<circle").count(), image.matches("tokens/s").count()), (4, 2));
}

#[test]
fn bench_refuses_what_it_cannot_measure() {
    let olmoe = golden("configs/olmoe-1b-7b.json");
    refused(&["bench", "--synthetic", "nowhere.json"], &["nowhere.json"]);
    refused(&["bench", "--device", "cpu"], &["device", "cpu", "adapter"]);
    refused(&["bench", "--sweep", "no/such/folder/x.svg"], &["x.svg", "hint: "]);
    refused(&["bench", "--synthetic", text(&olmoe), "--layers", "0"], &["number of layers", "1 to 16", "found 0"]);
    refused(&["bench", "--synthetic", text(&olmoe), "--layers", "17"], &["number of layers", "1 to 16", "found 17"]);
    refused(&["bench", text(&demo_model()), "-p", "0", "-n", "0"], &["tests", "neither"]);
    refused(&["bench", text(&demo_model()), "-d", "1024"], &["context", "1024"]);
}
