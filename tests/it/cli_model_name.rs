//! MODEL and PROMPT as people write them: what is understood, and what is said about the rest.

use crate::common::{demo_model, golden};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// The program in `folder`, with an empty cache of the hub and no network.
fn moebius(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moebius"));
    command.args(args).current_dir(folder).env("HF_HOME", folder.join("hf")).env("HF_HUB_OFFLINE", "1");
    command.env("MOEBIUS_TUNING", "off").stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn piped(folder: &Path, args: &[&str]) -> Child {
    moebius(folder, args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The message of a command that has to fail with code 2.
fn refused(folder: &Path, args: &[&str], parts: &[&str]) {
    let output = moebius(folder, args).output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
    assert!(output.stdout.is_empty());
    for part in parts {
        assert!(message.contains(part), "{args:?}: `{part}` is missing in: {message}");
    }
}

fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// A folder with a model in `models/first`, one beside it, and single files.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    for name in ["models/first", "models/second"] {
        let model = folder.path().join(name);
        std::fs::create_dir_all(&model).unwrap();
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            std::fs::copy(golden("fixtures/mixtral").join(file), model.join(file)).unwrap();
        }
    }
    for file in ["some.gguf", "pytorch_model.bin", "notes.txt", "alone.safetensors"] {
        std::fs::write(folder.path().join(file), "x").unwrap();
    }
    std::fs::create_dir_all(folder.path().join("models--org--name/snapshots")).unwrap();
    folder
}

#[test]
fn what_is_no_model_is_explained_with_what_to_write() {
    let folder = folder();
    for (name, parts) in [
        ("./smoe.gguf", &["there is no file ./smoe.gguf", "did you mean ./some.gguf?"][..]),
        ("./models/frist", &["there is no folder ./models/frist", "did you mean ./models/first?"]),
        ("models/first/deeper", &["there is no folder", "models/first is there, but has no deeper"]),
        ("~/models", &["there is no folder ~/models", "a shell replaces ~"]),
        ("models", &["models has no config.json", "2 folders in it are models", "models/first"]),
        ("models--org--name", &["the hub's cache", "org/name"]),
        ("models/first/config.json", &["one file of a model", "name its folder: models/first"]),
        ("models/first/model.safetensors", &["one file of a model", "name its folder: models/first"]),
        ("alone.safetensors", &["one file of a model", "config.json beside the weights"]),
        ("some.gguf", &["some.gguf", "GGUF"]),
        ("smoe.gguf", &["there is no file smoe.gguf here", "did you mean some.gguf?"]),
        ("pytorch_model.bin", &["pickle", "safetensors"]),
        ("notes.txt", &["is a file, and no model"]),
        ("https://example.org/model", &["an address of example.org", "HF_ENDPOINT"]),
        ("https://huggingface.co/datasets/org/name", &["no address of a model", "org/name"]),
        ("hf.co/bartowski/OLMoE-GGUF:Q4_K_M", &["`bartowski/OLMoE-GGUF`", "HF_HUB_OFFLINE"]),
        ("bartowski/OLMoE-GGUF:Q4_K_M", &["`bartowski/OLMoE-GGUF`", "HF_HUB_OFFLINE"]),
        ("mixtral:8x7b", &["Ollama", "mistralai/Mixtral-8x7B-Instruct-v0.1"]),
        ("llama3.1:8b", &["Ollama", "on the hub it is meta-llama/Llama-3.1-8B-Instruct"]),
        ("gemma3:4b", &["dense", "Llama and Qwen3", "moebius list archs"]),
        ("mixtrall", &["no folder here", "did you mean mixtral?"]),
        ("dmeo", &["did you mean demo?"]),
        ("nothere.gguf", &["there is no file nothere.gguf here", "org/name"]),
        ("/dev/null", &["/dev/null is no folder"]),
        ("whatever", &["org/name", "`demo` is the bundled model", "moebius models"]),
        ("org/name", &["HF_HUB_OFFLINE"]),
    ] {
        refused(folder.path(), &["chat", name], parts);
        if !name.ends_with("config.json") {
            refused(folder.path(), &["inspect", name], parts);
        }
    }
}

#[test]
fn addresses_of_the_hub_are_names_of_models() {
    let folder = folder();
    for address in
        ["https://huggingface.co/org/name", "hf.co/org/name/", "https://hf.co/org/name?library=x", "hf://huggingface.co/org/name"]
    {
        refused(folder.path(), &["run", address, "a"], &["`org/name`", "HF_HUB_OFFLINE"]);
    }
    let revision = "https://huggingface.co/org/name/tree/v1.0";
    refused(folder.path(), &["inspect", revision], &["`org/name`", "HF_HUB_OFFLINE"]);
}

#[test]
fn a_prompt_with_a_slash_is_told_apart_from_a_model_that_is_missing() {
    let folder = folder();
    refused(folder.path(), &["run", "and/or"], &["\"and/or\" was taken as the model", "moebius run demo \"and/or\""]);
    refused(folder.path(), &["run", "mixtral:8x7b", "a"], &["Ollama"]);
    let options = ["-n", "4", "--temp", "0", "--device", "cpu"];
    let named = done(&moebius(folder.path(), &[&["run", "demo", "and/or"], &options[..]].concat()).output().unwrap());
    let demo = demo_model();
    let by_path = [&["run", demo.to_str().unwrap(), "and/or"], &options[..]].concat();
    assert_eq!(named, done(&moebius(folder.path(), &by_path).output().unwrap()));
    // Alone it is the model with its own prompt.
    let [short, plain] =
        [&["run", "demo"][..], &["run"]].map(|args| done(&moebius(folder.path(), &[args, &options].concat()).output().unwrap()));
    assert_eq!(short, plain);
}

#[test]
fn prompts_come_from_files_and_from_stdin() {
    let folder = folder();
    let options = ["-n", "6", "--temp", "0", "--device", "cpu"];
    let given =
        done(&moebius(folder.path(), &[&["run", "In the beginning\nwas a word"], &options[..]].concat()).output().unwrap());
    std::fs::write(folder.path().join("prompt.txt"), "In the beginning\nwas a word").unwrap();
    for model in [&["run"][..], &["run", "demo"]] {
        let args = [model, &["-f", "prompt.txt"], &options].concat();
        assert_eq!(done(&moebius(folder.path(), &args).output().unwrap()), given);
        for stdin in [&["-"][..], &["-f", "-"], &[]] {
            let args = [model, stdin, &options].concat();
            let mut child = piped(folder.path(), &args);
            child.stdin.take().unwrap().write_all(b"In the beginning\nwas a word").unwrap();
            assert_eq!(done(&child.wait_with_output().unwrap()), given, "{args:?}");
        }
    }
    // A pipe that nobody writes to, and one that is closed: the bundled model has a prompt of its own.
    let own = done(&moebius(folder.path(), &[&["run"], &options[..]].concat()).output().unwrap());
    for is_open in [true, false] {
        let mut child = piped(folder.path(), &[&["run"], &options[..]].concat());
        let stdin = child.stdin.take().filter(|_| is_open);
        assert_eq!(done(&child.wait_with_output().unwrap()), own);
        drop(stdin);
    }
    std::fs::write(folder.path().join("marked.txt"), "\u{feff}In the beginning\nwas a word").unwrap();
    let args = [&["run", "-f", "marked.txt"], &options[..]].concat();
    assert_eq!(done(&moebius(folder.path(), &args).output().unwrap()), given, "a byte order mark is no part of the text");
    std::fs::write(folder.path().join("latin1.txt"), b"first\nsecond\ncaf\xe9\n").unwrap();
    refused(folder.path(), &["run", "-f", "latin1.txt"], &["latin1.txt", "line 3", "0xe9", "iconv"]);
    refused(folder.path(), &["perplexity", "demo", "latin1.txt"], &["latin1.txt", "line 3"]);
    refused(folder.path(), &["run", "-f", "missing.txt"], &["missing.txt"]);
    refused(folder.path(), &["run", "-"], &["nothing came on stdin"]);
    refused(folder.path(), &["run", "-f", "-"], &["stdin is empty"]);
    refused(folder.path(), &["run", "models/first"], &["there is no prompt"]);
    refused(folder.path(), &["run", "demo", "a", "-f", "prompt.txt"], &["cannot be used with"]);
}

#[test]
fn results_are_not_written_over_what_is_read() {
    let folder = folder();
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("text.txt"), "a text").unwrap();
    std::fs::write(file("ids.json"), "[1, 2, 3]").unwrap();
    let overwritten = &["would be overwritten"][..];
    let cpu = ["--device", "cpu"];
    for args in [
        &["trace", "models/first", "--file", "text.txt", "--out", "text.txt"][..],
        &["trace", "models/first", "--file", "text.txt", "--out", "./models/../text.txt"],
        &["trace", "models/first", "--dir", ".", "--out", "./text.txt"],
        &["trace", "models/first", "-p", "a", "--out", "models/first/config.json"],
        &["logits", "models/first", "--ids-file", "ids.json", "--out", "ids.json"],
        &["logits", "models/first", "--ids", "1,2", "--out", "models/first/model.safetensors"],
    ] {
        let before = std::fs::read(file("models/first/model.safetensors")).unwrap();
        refused(folder.path(), &[args, &cpu[..]].concat(), overwritten);
        assert_eq!(std::fs::read_to_string(file("text.txt")).unwrap(), "a text");
        assert!(std::fs::read(file("models/first/model.safetensors")).unwrap() == before, "{args:?}");
    }
    for out in ["-", "/dev/stdout", "/proc/self/fd/1"] {
        refused(folder.path(), &["logits", "models/first", "--ids", "1,2", "--out", out, "--device", "cpu"], &[out]);
    }
    done(
        &moebius(folder.path(), &["trace", "models/first", "--file", "text.txt", "--out", "trace.jsonl", "--device", "cpu"])
            .output()
            .unwrap(),
    );
    refused(folder.path(), &["trace-report", "trace.jsonl", "--html", "trace.jsonl"], overwritten);
}

#[cfg(unix)]
#[test]
fn a_link_stays_a_link_and_the_file_behind_it_is_written() {
    let folder = folder();
    let (target, link) = (folder.path().join("target.safetensors"), folder.path().join("link.safetensors"));
    std::fs::write(&target, "old").unwrap();
    std::os::unix::fs::symlink("target.safetensors", &link).unwrap();
    let args = ["logits", "models/first", "--ids", "1,2", "--out", "link.safetensors", "--device", "cpu"];
    done(&moebius(folder.path(), &args).output().unwrap());
    assert!(link.is_symlink() && std::fs::read(&target).unwrap().len() > 100);
}

#[test]
fn files_in_place_of_the_tokenizer_are_named() {
    let folder = folder();
    for (content, part) in
        [("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"), ("<html>", "web page"), ("", "empty")]
    {
        std::fs::write(folder.path().join("models/first/tokenizer.json"), content).unwrap();
        refused(folder.path(), &["run", "models/first", "a", "--device", "cpu"], &["tokenizer.json", part]);
    }
}

#[test]
fn a_text_in_place_of_a_command_is_told_how_to_be_written() {
    for words in [&["Once upon a time"][..], &["xyzzy"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_moebius")).args(words).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && error.contains("write moebius run \"Once upon a time\""), "{error}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_moebius")).args(["run", "the", "king"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && error.contains("needs quotes around it"), "{error}");
}

#[test]
fn near_names_of_kernels_and_formats_are_offered() {
    let folder = folder();
    refused(folder.path(), &["check", "matmull"], &["did you mean matmul?"]);
    refused(folder.path(), &["check", "zzz"], &["moebius list kernels"]);
    refused(folder.path(), &["run", "--quant", "q4"], &["did you mean q4_"]);
    refused(folder.path(), &["run", "--quant", "experts=mxpf4"], &["did you mean mxfp4?"]);
}

/// The cache of the hub with one whole model, and one whose weights are missing.
fn cache(folder: &Path) {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    for (name, has_weights) in [("whole", true), ("partly", false)] {
        let root = folder.join(format!("hf/hub/models--org--{name}"));
        let snapshot = root.join("snapshots").join(commit);
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(root.join("refs")).unwrap();
        std::fs::write(root.join("refs/main"), commit).unwrap();
        for file in ["config.json", "tokenizer.json", "model.safetensors"] {
            if has_weights || file != "model.safetensors" {
                std::fs::copy(golden("fixtures/mixtral").join(file), snapshot.join(file)).unwrap();
            }
        }
    }
}

#[test]
fn the_models_on_this_machine_are_listed_and_removed() {
    let folder = folder();
    cache(folder.path());
    let page = done(&moebius(folder.path(), &["models", "models"]).output().unwrap());
    let line =
        |name: &str| page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {page}")).to_owned();
    for name in ["demo", "org/whole", "models/first", "models/second"] {
        let line = line(name);
        assert!(line.contains("mixtral") && line.contains("bf16"), "{line}");
    }
    assert!(line("org/partly").contains("moebius models fetch"), "{page}");

    let list = done(&moebius(folder.path(), &["models", "--json"]).output().unwrap());
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let whole = list.as_array().unwrap().iter().find(|model| model["model"] == "org/whole").unwrap();
    let weights = std::fs::metadata(golden("fixtures/mixtral/model.safetensors")).unwrap().len();
    assert!(whole["bytes"].as_u64().unwrap() > weights, "{whole}");
    assert_eq!((&whole["architecture"], &whole["formats"]), (&"mixtral".into(), &serde_json::json!(["bf16"])));

    // What is whole needs no network to be fetched, and may be named by its address.
    let fetched = done(&moebius(folder.path(), &["models", "fetch", "hf.co/org/whole"]).output().unwrap());
    assert!(Path::new(fetched.trim()).join("model.safetensors").is_file(), "{fetched}");
    refused(folder.path(), &["models", "fetch", "org/partly"], &["HF_HUB_OFFLINE"]);
    refused(folder.path(), &["chat", "whole"], &["did you mean org/whole?"]);

    refused(folder.path(), &["models", "rm", "models/first"], &["is a folder"]);
    refused(folder.path(), &["models", "rm", "demo"], &["cannot be removed"]);
    let again = done(&moebius(folder.path(), &["models", "ls"]).output().unwrap());
    assert!(again.contains("org/whole"), "{again}");
    refused(folder.path(), &["models", "rm", "org/other"], &["`org/other`, which is not there"]);
    refused(folder.path(), &["models", "notes.txt"], &["notes.txt"]);
    refused(folder.path(), &["models", "hf"], &["is no model and has none in it"]);
    let removed = moebius(folder.path(), &["models", "rm", "org/whole"]).output().unwrap();
    assert!(text(&removed.stderr).contains("removed  org/whole") && done(&removed).is_empty());
    assert!(!folder.path().join("hf/hub/models--org--whole").exists());
    assert!(folder.path().join("models/first/model.safetensors").is_file());
}

#[test]
fn an_installed_program_carries_the_bundled_model() {
    let folder = TempDir::new().unwrap();
    let program = folder.path().join("moebius");
    std::fs::copy(env!("CARGO_BIN_EXE_moebius"), &program).unwrap();
    let run = |program: &Path| {
        let mut command = Command::new(program);
        command.args(["run", "-n", "8", "--temp", "0", "--device", "cpu"]).current_dir(folder.path());
        command.env("XDG_CACHE_HOME", folder.path().join("cache")).env("HOME", folder.path());
        done(&command.output().unwrap())
    };
    let in_clone = run(Path::new(env!("CARGO_BIN_EXE_moebius")));
    assert!(!folder.path().join("cache").exists(), "in a clone nothing is unpacked");
    assert_eq!(run(&program), in_clone);

    let models = folder.path().join("cache/moebius/models");
    let unpacked = std::fs::read_dir(&models).unwrap().next().unwrap().unwrap().path();
    let names = |directory: &Path| -> Vec<String> { moebius::platform::file_names(directory) };
    let needed: Vec<String> =
        names(&demo_model()).into_iter().filter(|name| !["README.md", "expected.json"].contains(&name.as_str())).collect();
    assert_eq!(names(&unpacked), needed);
    for name in &needed {
        assert!(std::fs::read(unpacked.join(name)).unwrap() == std::fs::read(demo_model().join(name)).unwrap(), "{name}");
    }
    // Where nothing can be unpacked, the hint names what to set, and the list still has it.
    std::fs::write(folder.path().join("file"), "x").unwrap();
    for (args, code) in [(&["run"][..], 2), (&["models"], 0)] {
        let mut command = Command::new(&program);
        command.args(args).env("XDG_CACHE_HOME", folder.path().join("file")).env("HF_HOME", folder.path());
        let output = command.output().unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(output.status.code(), Some(code), "{said}");
        for part in ["demo", "cannot be unpacked", "XDG_CACHE_HOME", "HF_HOME"].iter().skip(usize::from(code == 2)) {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    // A file that was cut is unpacked again.
    std::fs::write(unpacked.join("model.safetensors"), "cut").unwrap();
    assert_eq!(run(&program), in_clone);
}
