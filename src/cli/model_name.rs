//! What is meant by MODEL, and what to say to somebody who wrote something else.

#![allow(clippy::disallowed_methods, reason = "the command line looks at the folders that the user names")]

use super::failure::Failure;
use super::model::{BUNDLED_NAME, CONFIG};
use anyhow::Result;
use moebius::error::nearest;
use moebius::platform::{self, is_gguf_name};
use std::path::{Path, PathBuf};

/// Names of Ollama's library, without what follows the colon, and where those models are on the hub.
const OLLAMA: [(&str, &str); 20] = [
    ("mixtral", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
    ("dolphin-mixtral", "cognitivecomputations/dolphin-2.7-mixtral-8x7b"),
    ("wizardlm2", "alpindale/WizardLM-2-8x22B"),
    ("qwen3", "Qwen/Qwen3-30B-A3B"),
    ("qwen3-coder", "Qwen/Qwen3-Coder-30B-A3B-Instruct"),
    ("gpt-oss", "openai/gpt-oss-20b"),
    ("deepseek-v2", "deepseek-ai/DeepSeek-V2-Lite-Chat"),
    ("deepseek-coder-v2", "deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct"),
    ("deepseek-v3", "deepseek-ai/DeepSeek-V3"),
    ("deepseek-r1", "deepseek-ai/DeepSeek-R1"),
    ("llama4", "meta-llama/Llama-4-Scout-17B-16E-Instruct"),
    ("dbrx", "databricks/dbrx-instruct"),
    ("granite3-moe", "ibm-granite/granite-3.0-1b-a400m-instruct"),
    ("granite3.1-moe", "ibm-granite/granite-3.1-1b-a400m-instruct"),
    ("llama2", "meta-llama/Llama-2-7b-chat-hf"),
    ("llama3", "meta-llama/Meta-Llama-3-8B-Instruct"),
    ("llama3.1", "meta-llama/Llama-3.1-8B-Instruct"),
    ("llama3.2", "meta-llama/Llama-3.2-3B-Instruct"),
    ("llama3.3", "meta-llama/Llama-3.3-70B-Instruct"),
    ("tinyllama", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
];

/// Names there of models without experts that are not run.
const DENSE: [&str; 8] = ["mistral", "mistral-nemo", "gemma", "gemma2", "gemma3", "phi3", "phi4", "qwen2.5"];

/// Hosts whose addresses name models of the hub.
const HUB_HOSTS: [&str; 3] = ["huggingface.co", "www.huggingface.co", "hf.co"];

/// Whether a single argument of `run` is a model and no prompt: prompts have spaces, models are on disk or have a slash or a known name.
pub fn is_model(argument: &str) -> bool {
    let has_file_ending = [".gguf", ".safetensors", CONFIG].iter().any(|ending| argument.ends_with(ending));
    let is_word = !argument.contains(char::is_whitespace);
    argument == BUNDLED_NAME
        || Path::new(argument).exists()
        || (is_word && (argument.contains('/') || has_file_ending || ollama_base(argument).is_some()))
}

/// The folder, GGUF file or hub id that `name` stands for: also of an address of the hub.
///
/// # Errors
/// [`Failure`] that says what `name` is instead, and what to write.
pub fn understood(name: &str) -> Result<String> {
    let path = Path::new(name);
    if path.is_dir() {
        return folder(path).map(|()| name.to_owned());
    }
    if path.is_file() {
        return if is_gguf_name(path) { Ok(name.to_owned()) } else { Err(file(path).into()) };
    }
    match path.metadata() {
        Ok(_) => {
            return Err(Failure::new(
                format!("{name} is no folder"),
                "a model is a folder in the layout of Hugging Face, or a GGUF file",
            )
            .into());
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(Failure::new(format!("{name} cannot be looked at: {error}"), "ask for the right to read it").into());
        }
        Err(_) => {}
    }
    if let Some(address) = address(name) {
        return address;
    }
    if looks_local(name) {
        return Err(missing_folder(name).into());
    }
    if name.contains('/') {
        return Ok(name.to_owned());
    }
    Err(bare_word(name).into())
}

/// Refuses a folder that is no model, and names a model that is inside. Other mistakes are reported when the folder is opened.
fn folder(path: &Path) -> Result<()> {
    if path.join(CONFIG).is_file() {
        return Ok(());
    }
    let models = entries(path).into_iter().filter(|entry| is_gguf_name(entry)).count();
    if models > 0 {
        // Which of several is meant is asked when the folder is opened.
        return Ok(());
    }
    let problem = format!("{} has no {CONFIG}", path.display());
    let cached = path.file_name().and_then(|name| name.to_str()?.strip_prefix("models--")?.split_once("--"));
    if let Some((organisation, name)) = cached.filter(|_| path.join("snapshots").is_dir()) {
        let problem = format!("{problem}: it is a folder of the hub's cache");
        return Err(Failure::new(problem, format!("write the model's name: {organisation}/{name}")).into());
    }
    let mut models: Vec<PathBuf> = entries(path).into_iter().filter(|entry| entry.join(CONFIG).is_file()).collect();
    models.sort();
    match models.as_slice() {
        [] => Ok(()),
        [only] => Err(Failure::new(problem, format!("the model is in {}", only.display())).into()),
        [first, ..] => {
            let hint = format!("{} folders in it are models; write for example {}", models.len(), first.display());
            Err(Failure::new(problem, hint).into())
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// A file in place of a folder.
fn file(path: &Path) -> Failure {
    let shown = path.display();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let of_model = format!("{shown} is one file of a model");
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension {
        "bin" | "pt" | "pth" | "ckpt" => Failure::new(
            format!("{shown} has weights as a Python pickle, which is not read because it may run code"),
            "convert the model with `save_pretrained` of transformers, which writes safetensors",
        ),
        _ if parent.join(CONFIG).is_file() => Failure::new(of_model, format!("name its folder: {}", parent.display())),
        "safetensors" | "json" => {
            Failure::new(of_model, format!("a model is a folder with {CONFIG} beside the weights; {} has none", parent.display()))
        }
        _ => Failure::new(
            format!("{shown} is a file, and no model"),
            "a model is a folder in the layout of Hugging Face, or a GGUF file",
        ),
    }
}

/// The hub id in an address of the hub; `None`: `name` is no address.
fn address(name: &str) -> Option<Result<String>> {
    let stripped = ["https://", "http://", "hf://"].iter().find_map(|scheme| name.strip_prefix(scheme));
    let (host, path) = match (stripped, name.split_once('/')) {
        (Some(rest), _) => rest.split_once('/').unwrap_or((rest, "")),
        (None, Some((host, path))) if HUB_HOSTS.contains(&host) => (host, path),
        _ => return None,
    };
    if !HUB_HOSTS.contains(&host) {
        let problem = format!("{name} is an address of {host}, and models come from a folder or from the hub");
        let hint = "download it and name its folder, or write a model of the hub as org/name (HF_ENDPOINT names another hub)";
        return Some(Err(Failure::new(problem, hint).into()));
    }
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    Some(match parts.as_slice() {
        ["datasets" | "spaces", ..] | [] | [_] => {
            Err(Failure::new(format!("{name} is no address of a model"), "write it as org/name").into())
        }
        [organisation, repository, rest @ ..] => {
            let id = format!("{organisation}/{repository}");
            match rest {
                ["blob" | "resolve", revision, .., file] if is_gguf_name(Path::new(file)) => {
                    Ok(format!("{id}:{}@{revision}", file.trim_end_matches(".gguf")))
                }
                ["tree" | "blob" | "resolve", revision, ..] => Ok(format!("{id}@{revision}")),
                _ => Ok(id),
            }
        }
    })
}

/// Whether `name` can only be a place on this machine.
fn looks_local(name: &str) -> bool {
    let starts = ["./", "../", "/", "~", ".\\", "..\\"].iter().any(|start| name.starts_with(start));
    let first = name.split('/').next().unwrap_or_default();
    starts
        || name.contains('\\')
        || name.ends_with('/')
        || name.matches('/').count() > 1
        || (first != name && Path::new(first).is_dir())
}

/// A path at which there is nothing, with the name beside it that was probably meant.
fn missing_folder(name: &str) -> Failure {
    let path = Path::new(name);
    let existing = path.ancestors().skip(1).find(|parent| parent.as_os_str().is_empty() || parent.is_dir());
    let parent = existing.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let missing = path.strip_prefix(parent).unwrap_or(path).components().next();
    let missing = missing.map_or_else(String::new, |part| part.as_os_str().to_string_lossy().into_owned());
    let names: Vec<String> = entries(parent)
        .into_iter()
        .filter(|entry| entry.is_dir() || is_gguf_name(entry))
        .filter_map(|entry| Some(entry.file_name()?.to_str()?.to_owned()))
        .collect();
    let kind = if is_gguf_name(path) { "file" } else { "folder" };
    let problem = format!("there is no {kind} {name}");
    match nearest(&missing, names.iter().map(String::as_str)) {
        Some(near) => Failure::new(problem, format!("did you mean {}?", parent.join(near).display())),
        None if name.starts_with('~') => Failure::new(problem, "a shell replaces ~ only where it is not quoted"),
        None => Failure::new(problem, format!("{} is there, but has no {missing}", parent.display())),
    }
}

/// The part of a name of Ollama before the colon, where that is known.
fn ollama_base(name: &str) -> Option<&str> {
    let base = name.split(':').next().unwrap_or(name);
    let is_known = OLLAMA.iter().any(|(known, _)| *known == base) || DENSE.contains(&base);
    is_known.then_some(base)
}

/// One word that is no folder.
fn bare_word(name: &str) -> Failure {
    let base = name.split(':').next().unwrap_or(name);
    if let Some((_, id)) = OLLAMA.iter().find(|(known, _)| *known == base) {
        let problem =
            format!("`{name}` is a name of Ollama's library; Moebius takes models from a folder or from the Hugging Face hub");
        return Failure::new(problem, format!("on the hub it is {id}"));
    }
    if DENSE.contains(&base) {
        let problem =
            format!("`{name}` is a dense model: Moebius runs Mixture-of-Experts models, and of dense ones Llama and Qwen3");
        return Failure::new(problem, "`moebius list archs` prints what can be run");
    }
    if name.ends_with(".gguf") {
        let here = entries(Path::new(".")).into_iter().filter(|entry| is_gguf_name(entry));
        let here: Vec<String> = here.filter_map(|entry| Some(entry.file_name()?.to_str()?.to_owned())).collect();
        let hint = match nearest(name, here.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None => "name it with its folder, or a model of the hub as org/name".to_owned(),
        };
        return Failure::new(format!("there is no file {name} here"), hint);
    }
    let problem = format!("`{name}` is no folder here, and no name of a model on the hub, which has the form org/name");
    let here = entries(Path::new(".")).into_iter().filter(|entry| entry.join(CONFIG).is_file());
    let here: Vec<String> = here.filter_map(|entry| Some(entry.file_name()?.to_str()?.to_owned())).collect();
    let cached = platform::cached_models().unwrap_or_default();
    let known = here.iter().map(String::as_str).chain(cached.iter().map(|model| model.id.as_str()));
    // A model of the cache may be named without its organisation.
    let without_organisation = |id: &&str| id.rsplit('/').next().is_some_and(|last| last.eq_ignore_ascii_case(name));
    let known: Vec<&str> = known.chain(OLLAMA.iter().map(|(known, _)| *known)).chain([BUNDLED_NAME]).collect();
    match known.iter().find(|id| without_organisation(id)).copied().or_else(|| nearest(name, known.iter().copied())) {
        Some(near) => Failure::new(problem, format!("did you mean {near}?")),
        None => Failure::new(
            problem,
            format!(
                "`{BUNDLED_NAME}` is the bundled model, and `moebius models` lists those on this machine; a text of several words needs quotes around it"
            ),
        ),
    }
}
