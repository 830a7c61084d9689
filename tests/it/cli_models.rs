//! The commands that run a model, from outside and on `--device cpu`; what other devices compute is asked of the engine.

use crate::common::{Golden, demo_model};
use moebius::batch::LayerRouting;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn moebius(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moebius"));
    command.args(args).args(["--device", "cpu"]);
    command
}

/// The stdout and stderr of a command that has to succeed.
fn done(output: Output) -> (String, String) {
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    (stdout, stderr)
}

fn run(args: &[&str]) -> (String, String) {
    done(moebius(args).output().unwrap())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn last_line(stdout: &str) -> Value {
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

fn file_of(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    text(&path).to_owned()
}

fn floats(tensors: &SafeTensors, name: &str) -> Vec<f32> {
    let tensor = tensors.tensor(name).unwrap();
    assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
    tensor.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn expert_ids(tensors: &SafeTensors, name: &str) -> Vec<u32> {
    let tensor = tensors.tensor(name).unwrap();
    assert_eq!(tensor.dtype(), Dtype::I32, "{name}");
    tensor.data().chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

#[test]
fn logits_writes_what_transformers_computed() {
    for golden in Golden::all() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out.safetensors");
        for (index, prompt) in golden.prompts.iter().enumerate() {
            let ids = file_of(folder.path(), "ids.json", &serde_json::to_string(prompt).unwrap());
            let (stdout, _) = run(&["logits", text(&golden.directory), "--ids-file", &ids, "--out", text(&out), "--json"]);
            assert_eq!(last_line(&stdout)["ids"].as_array().unwrap().len(), prompt.len());

            let bytes = std::fs::read(&out).unwrap();
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            assert_eq!(tensors.tensor("logits").unwrap().shape(), [prompt.len(), golden.spec.vocab_size]);
            golden.assert_logits(index, &floats(&tensors, "logits"));
            let routing = |layer: usize| LayerRouting {
                layer,
                router_logits: floats(&tensors, &format!("layers.{layer}.router_logits")),
                expert_ids: expert_ids(&tensors, &format!("layers.{layer}.expert_ids")),
                routing_weights: floats(&tensors, &format!("layers.{layer}.routing_weights")),
            };
            golden.assert_routing(index, &golden.spec.moe_layers().map(|(layer, _)| routing(layer)).collect::<Vec<_>>());
            assert_eq!(tensors.len(), 1 + 3 * golden.spec.moe_layers().count());
        }
        let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(files.len(), 2, "the ids and the result, and nothing half-written: {files:?}");
    }
}

#[test]
fn ids_on_the_command_line_are_those_of_a_file() {
    let golden = Golden::all().remove(0);
    let folder = tempfile::tempdir().unwrap();
    let prompt: Vec<String> = golden.prompts[1].iter().map(u32::to_string).collect();
    let file = file_of(folder.path(), "ids.json", &format!("[{}]", prompt.join(", ")));
    let outs = ["a", "b"].map(|name| folder.path().join(name));
    run(&["logits", text(&golden.directory), "--ids", &prompt.join(","), "--out", text(&outs[0])]);
    run(&["logits", text(&golden.directory), "--ids-file", &file, "--out", text(&outs[1])]);
    assert!(std::fs::read(&outs[0]).unwrap() == std::fs::read(&outs[1]).unwrap(), "the same ids give the same bytes");
}

#[test]
fn run_ends_with_one_json_object_of_the_stored_continuation() {
    let folder = tempfile::tempdir().unwrap();
    for golden in Golden::all() {
        for (prompt, continuation) in &golden.greedy {
            let prompt = &golden.prompts[*prompt];
            let ids = file_of(folder.path(), "ids.json", &serde_json::to_string(prompt).unwrap());
            let num_new = continuation.len().to_string();
            let options = ["--ids-file", &ids, "-n", &num_new, "--temp", "0", "--ignore-eos", "--json"];
            let (stdout, stderr) = run(&[&["run", text(&golden.directory)], &options[..]].concat());
            let result = last_line(&stdout);
            assert_eq!(result["prompt_ids"], serde_json::json!(prompt));
            assert_eq!(result["ids"], serde_json::json!(continuation));
            assert_eq!(result["stop"], "max_tokens");
            assert!(stderr.contains(result["text"].as_str().unwrap()), "the text goes to stderr: {stderr}");
            for figure in ["prefill_seconds", "prefill_tokens_per_second", "decode_seconds", "decode_tokens_per_second"] {
                assert!(result[figure].as_f64().unwrap() > 0.0, "{figure}: {result}");
            }
            assert_eq!(result["device"]["kind"], "reference");
            // The last token is chosen, but never run.
            let num_run = prompt.len() + continuation.len() - 1;
            for ((_, moe), loads) in golden.spec.moe_layers().zip(result["expert_loads"].as_array().unwrap()) {
                let router = &moe.router;
                let loads: Vec<u64> = loads.as_array().unwrap().iter().map(|load| load.as_u64().unwrap()).collect();
                assert_eq!(loads.len(), router.num_experts);
                assert_eq!(loads.iter().sum::<u64>(), (num_run * router.num_experts_per_tok) as u64);
            }
        }
    }
}

#[test]
fn run_prints_nothing_but_the_text_on_stdout() {
    let demo = demo_model();
    let arguments = ["run", text(&demo), "Once upon a time", "-n", "12", "--temp", "0"];
    let (stdout, stderr) = run(&arguments);
    let (json, _) = run(&[&arguments[..], &["--json"]].concat());
    assert_eq!(stdout, format!("{}\n", last_line(&json)["text"].as_str().unwrap()));
    for part in ["prefill  ", "decode   ", "tokens/s", "stopped  ", "layer "] {
        assert!(stderr.contains(part), "no `{part}` in {stderr}");
    }
}

#[test]
fn one_argument_without_a_slash_is_a_prompt_for_the_bundled_model() {
    let demo = demo_model();
    let options = ["-n", "8", "--temp", "0"];
    let (short, _) = run(&[&["run", "In the beginning"], &options[..]].concat());
    let (long, _) = run(&[&["run", text(&demo), "In the beginning"], &options[..]].concat());
    assert_eq!(short, long);
    assert!(!run(&[&["run"], &options[..]].concat()).0.is_empty(), "no argument at all is the bundled model and its prompt");
}

#[test]
fn a_seed_repeats_a_text_and_another_one_changes_it() {
    let with_seed = |seed: &str| run(&["run", "Once upon a time", "-n", "24", "--temp", "1", "--seed", seed]).0;
    let first = with_seed("7");
    assert_eq!(first, with_seed("7"));
    assert_ne!(first, with_seed("8"));
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    let (whole, _) = run(&["run", "Once upon a time", "-n", "24", "--temp", "0"]);
    let stop: String = whole.trim().chars().skip(12).take(4).collect();
    let (cut, stderr) = run(&["run", "Once upon a time", "-n", "24", "--temp", "0", "--stop", &stop]);
    assert_eq!(cut.trim_end_matches('\n'), &whole[..whole.find(&stop).unwrap()]);
    assert!(stderr.contains("before the stop string"), "{stderr}");
}

#[test]
fn chat_answers_every_line() {
    let mut child = moebius(&["chat", "-n", "6", "--temp", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"Who is the king?\n\n/clear\nWho is the king?\n/exit\nnever read\n").unwrap();
    drop(stdin);
    let (stdout, _) = done(child.wait_with_output().unwrap());
    let (first, second) = stdout.split_at(stdout.len() / 2);
    assert!(first.len() > 2, "{stdout:?}");
    assert_eq!(first, second, "after /clear the same question gets the same answer");
}

#[test]
fn perplexity_is_the_exponential_of_the_mean() {
    let folder = tempfile::tempdir().unwrap();
    let story = "Once upon a time there was a king who had a daughter. And the king said unto her, Go out into the garden.\n";
    let file = file_of(folder.path(), "story.txt", &story.repeat(3));
    let demo = demo_model();
    let (stdout, _) = run(&["perplexity", text(&demo), &file, "--json", "--ctx", "32"]);
    let result = last_line(&stdout);
    let (mean, perplexity) = (result["mean_nll"].as_f64().unwrap(), result["perplexity"].as_f64().unwrap());
    assert!((mean.exp() - perplexity).abs() < 1e-9 * perplexity);
    assert!(perplexity > 1.0 && perplexity < 400.0, "far below the 4096 of blind guessing: {perplexity}");
    let (plain, _) = run(&["perplexity", text(&demo), &file, "--ctx", "32"]);
    assert!(plain.contains(&format!("{perplexity:.4}")), "{plain}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_text_and_prints_the_statistics() {
    let mut child = moebius(&["run", "Once upon a time", "-n", "1000", "--ignore-eos"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first byte says that generating has begun.
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "as shells report a program that Ctrl-C ended");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("stopped  by Ctrl-C") && stderr.contains("decode   "), "{stderr}");
}
