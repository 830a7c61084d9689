//! From the MODEL on the command line to an engine with its weights loaded.

use super::failure::Failure;
use super::progress::{self, Download, Progress, Unit};
use super::talk::{on_stderr, talk};
use super::{Global, bundled, model_name, stats, tune};
use anyhow::Result;
use moebius::checkpoint::ModelFiles;
use moebius::gating::RoutingOverride;
use moebius::generate::Tokenizer;
use moebius::gpu::DeviceOptions;
use moebius::platform::Fetching;
use moebius::{DeviceDescription, Engine, LoadEvent, LoadOptions, choose_context, fetch_model};
use std::path::{Path, PathBuf};

/// The bundled model as MODEL.
pub const BUNDLED_NAME: &str = "demo";

pub const CONFIG: &str = "config.json";

/// What the bundled model continues when nothing else is asked for.
pub const BUNDLED_PROMPT: &str = "Once upon a time there was a king who";

/// The directory of `name`, downloaded if it is a hub id or an address of the hub; of the bundled model if it is that, or nothing.
pub async fn directory(name: Option<&str>) -> Result<PathBuf> {
    let Some(name) = name.filter(|name| *name != BUNDLED_NAME || Path::new(name).exists()) else { return bundled::directory() };
    let name = &model_name::understood(name)?;
    // A bar for each file, from when something is known of it: sizes of one must not stand beside the name of another.
    let mut current: Option<(String, Download)> = None;
    let mut show = |event| match event {
        LoadEvent::Fetching(Fetching::Asking { endpoint }) => {
            talk!("download `{name}` is no directory here: asking {endpoint}");
        }
        LoadEvent::Fetching(Fetching::Waiting { reason }) => talk!("waiting  {reason}"),
        LoadEvent::Fetching(Fetching::File { file, received_bytes, total_bytes }) => {
            if current.as_ref().is_none_or(|(shown, _)| *shown != file) {
                // The bar from before goes first.
                current = None;
                let bar = Download::new(&file, total_bytes);
                current = Some((file, bar));
            }
            if let Some((_, bar)) = &current {
                bar.set(received_bytes);
            }
        }
        _ => {}
    };
    let directory = fetch_model(name, &mut show).await;
    drop(current);
    Ok(directory?)
}

/// What a model is called where it is spoken of: `demo`, its name on the hub, or that of its folder.
pub fn title(directory: &Path) -> String {
    if bundled::is_it(directory) {
        return BUNDLED_NAME.to_owned();
    }
    let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    // models--org--name/snapshots/commit
    let mut above = directory.ancestors().skip(1).filter_map(last);
    let in_hub_cache = (above.next().as_deref() == Some("snapshots")).then(|| above.next()).flatten();
    let of_hub = in_hub_cache.and_then(|folder| Some(folder.strip_prefix("models--")?.replacen("--", "/", 1)));
    of_hub.or_else(|| last(directory)).unwrap_or_else(|| directory.display().to_string())
}

/// Refuses ids that the model in `directory` does not have, before anyone waits for its weights.
pub async fn check_ids(directory: &Path, ids: &[u32]) -> Result<()> {
    let files = ModelFiles::open(directory).await?;
    let spec = files.spec();
    match ids.iter().find(|&&id| id as usize >= spec.vocab_size) {
        Some(id) => {
            let problem = format!("token id {id} is beyond the vocabulary: expected ids from 0 to {}", spec.vocab_size - 1);
            Err(Failure::new(problem, "ids belong to one model: encode the text again with this one").into())
        }
        None => Ok(()),
    }
}

/// Refuses a prompt that is longer than the context, before anyone waits for the weights.
pub async fn check_prompt(directory: &Path, text: &str, global: &Global) -> Result<()> {
    let files = ModelFiles::open(directory).await?;
    let limit = choose_context(files.spec(), global.ctx.map(|tokens| tokens.get()))?;
    // No token has less than a byte, so most prompts need no second look at a large tokenizer.
    if text.len() < limit {
        return Ok(());
    }
    let found = Tokenizer::of(&files).await?.encode(text, true)?.len();
    if found > limit {
        return Err(moebius::Error::PromptTooLong { found, limit, longest: files.spec().max_positions }.into());
    }
    Ok(())
}

/// The device of the command line, as the environment and `moebius tune` have it.
pub fn device_options(global: &Global) -> DeviceOptions {
    DeviceOptions { tunings: tune::tunings_path(), ..DeviceOptions::from_env(global.device.clone()) }
}

/// Loads the model in `directory`, with a progress bar, and says which device was chosen and why.
pub async fn load(directory: &Path, global: &Global) -> Result<Engine> {
    load_with(directory, global, RoutingOverride::default()).await
}

/// As [`load`], with other routing.
pub async fn load_with(directory: &Path, global: &Global, routing: RoutingOverride) -> Result<Engine> {
    let changed = (!routing.is_none()).then(|| routing.to_string());
    let options = LoadOptions {
        device: device_options(global),
        quant: global.quant,
        kv_cache: global.kv_cache,
        context: global.ctx.map(|tokens| tokens.get()),
        expert_memory: global.expert_memory,
        routing,
    };
    let mut progress = Some(Progress::new("load", Unit::Bytes, "looking at the files"));
    let engine = Engine::load(directory, &options, &mut |event| match event {
        LoadEvent::Device(device) => {
            let why = global.why.clone().unwrap_or_else(|| device.why.clone());
            let text = describe(&DeviceDescription { why, ..device });
            if let Some(line) = &progress {
                line.suspend(|| talk!("device   {text}"));
            }
        }
        LoadEvent::Weights { done_bytes, total_bytes } => {
            if let Some(line) = &progress {
                line.set(done_bytes, total_bytes);
            }
        }
        LoadEvent::Kernels { done, total } => progress::compiling(&mut progress, done, total),
        _ => {}
    })
    .await;
    drop(progress);
    let engine = engine?;
    for note in engine.notes().iter().chain(engine.tokenizer().notes()) {
        talk!("note     {}", on_stderr(note));
    }
    if let Some(paging) = engine.paging() {
        talk!("experts  {}; the others are loaded when they are chosen", stats::slots(paging));
        if let Some(advice) = stats::advice(paging, &title(directory)) {
            talk!("experts  {advice}");
        }
    }
    if global.verbose {
        say_more(&engine);
    }
    if let Some(routing) = changed {
        talk!("routing  {routing}: no longer the model as trained");
    }
    Ok(engine)
}

fn say_more(engine: &Engine) {
    let device = engine.device();
    talk!("driver   {}", if device.driver.is_empty() { "unknown" } else { &device.driver });
    talk!("context  {} tokens", engine.context());
    for name in engine.ignored_tensors() {
        talk!("ignored  tensor `{name}`, which this architecture does not use");
    }
}

/// One line: `llvmpipe [software, vulkan]: the only adapter, software`.
pub fn describe(device: &DeviceDescription) -> String {
    format!("{} [{}, {}]: {}", device.name, device.kind, device.backend, device.why)
}
