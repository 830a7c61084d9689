//! What JavaScript sees: [`crate::Engine`] with plain objects for options and results. `web/package/index.js` puts the async iterator on top.

mod chat;
mod choice;
mod device;
mod json;

use crate::gating::{ExpertAt, RoutingOverride};
use crate::generate::{GenerateOptions, SamplingOptions, StopRules};
use crate::gpu::{DeviceChoice, DeviceOptions};
use crate::platform::{self, GgufChoice, JsFile, Mount};
use crate::trace::{self, Source};
use crate::{LoadEvent, LoadOptions};
use json::{parse, thrown, to_js};
use serde::Deserialize;
use sha2::Digest;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = include_str!("../web/package/types.d.ts");

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(typescript_type = "ModelFiles")]
    pub type JsFiles;
    #[wasm_bindgen(typescript_type = "LoadOptions")]
    pub type JsLoadOptions;
    #[wasm_bindgen(typescript_type = "(event: LoadEvent) => void")]
    pub type OnLoadEvent;
    #[wasm_bindgen(typescript_type = "string | number[]")]
    pub type JsPrompt;
    #[wasm_bindgen(typescript_type = "GenerateOptions")]
    pub type JsGenerateOptions;
    #[wasm_bindgen(typescript_type = "(step: Step) => boolean | void | Promise<boolean | void>")]
    pub type OnStep;
    #[wasm_bindgen(typescript_type = "Description")]
    pub type JsDescription;
    #[wasm_bindgen(typescript_type = "TextToken[]")]
    pub type JsTokens;
    #[wasm_bindgen(typescript_type = "RoutingOverride")]
    pub type JsRouting;
    #[wasm_bindgen(typescript_type = "Candidate[][]")]
    pub type JsCandidates;
    #[wasm_bindgen(typescript_type = "Summary")]
    pub type JsSummary;
    #[wasm_bindgen(typescript_type = "ChatMessage[]")]
    pub type JsMessages;
    #[wasm_bindgen(typescript_type = "ChatPrompt")]
    pub type JsChatPrompt;
    #[wasm_bindgen(typescript_type = "(done: number, total: number) => void")]
    pub type OnCase;
    #[wasm_bindgen(typescript_type = "CheckReport")]
    pub type JsReport;
    #[wasm_bindgen(typescript_type = "Balance")]
    pub type JsBalance;
}

type JsResult<T> = std::result::Result<T, JsValue>;

/// Sends panics to the console: what follows one is only `unreachable`.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|panic| web_sys::console::error_1(&panic.to_string().into())));
}

/// A loaded model.
#[wasm_bindgen]
pub struct Engine {
    inner: crate::Engine,
    _files: Mount,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct WebLoadOptions {
    name: Option<String>,
    device: Option<String>,
    quant: Option<String>,
    kv_cache: Option<String>,
    context: Option<usize>,
    expert_memory: Option<String>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct WebGenerateOptions {
    max_tokens: Option<usize>,
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    repeat_penalty: f32,
    seed: u64,
    stop: Vec<String>,
    ignore_end: bool,
    trace: bool,
    known_routing: usize,
    resume: usize,
    routing: WebRouting,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct WebRouting {
    experts_per_token: Option<usize>,
    disabled: Vec<WebExpert>,
    forced: Option<WebExpert>,
    temperature: Option<f32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebExpert {
    expert: usize,
    layer: Option<usize>,
}

impl Default for WebGenerateOptions {
    fn default() -> Self {
        let SamplingOptions { temperature, top_k, top_p, min_p, seed, repeat_penalty } = SamplingOptions::default();
        WebGenerateOptions {
            max_tokens: None,
            temperature,
            top_k,
            top_p,
            min_p,
            repeat_penalty,
            seed,
            stop: Vec::new(),
            ignore_end: false,
            trace: false,
            known_routing: 0,
            resume: 0,
            routing: WebRouting::default(),
        }
    }
}

#[wasm_bindgen]
impl Engine {
    /// Loads a model from its files: `config.json`, `tokenizer.json` and the weights. They are read in slices, the weights straight into
    /// the device's memory.
    pub async fn load(files: JsFiles, options: Option<JsLoadOptions>, on_event: Option<OnLoadEvent>) -> JsResult<Engine> {
        let WebLoadOptions { name, device, quant, kv_cache, context, expert_memory } =
            parse(options.map(JsValue::from).as_ref())?;
        let device = device.as_deref().unwrap_or("auto").parse::<DeviceChoice>().map_err(thrown)?;
        let quant = quant.as_deref().unwrap_or("auto").parse().map_err(thrown)?;
        let kv_cache = kv_cache.as_deref().unwrap_or("auto").parse().map_err(thrown)?;
        let expert_memory = expert_memory.as_deref().unwrap_or("auto").parse().map_err(thrown)?;
        let device = DeviceOptions { choice: device, ..DeviceOptions::default() };
        let options = LoadOptions { device, quant, kv_cache, context, expert_memory, ..LoadOptions::default() };
        let mount = mount(&files, name.as_deref());
        let mut progress = |event: LoadEvent| {
            if let Some(on_event) = on_event.as_ref().and_then(|function| function.dyn_ref::<js_sys::Function>()) {
                // Nothing that listens may stop the loading.
                let _ = on_event.call1(&JsValue::NULL, &to_js(&json::load_event(&event)));
            }
        };
        let inner = crate::Engine::load(mount.model(), &options, &mut progress).await.map_err(thrown)?;
        Ok(Engine { inner, _files: mount })
    }

    /// The model and what runs it.
    pub fn describe(&self) -> JsDescription {
        to_js(&json::description(&self.inner)).unchecked_into()
    }

    /// The tokens of a prompt; their texts put together are the prompt.
    pub fn tokenize(&self, text: &str) -> JsResult<JsTokens> {
        let tokenizer = self.inner.tokenizer();
        let ids = tokenizer.encode(text, true).map_err(thrown)?;
        let tokens = json::tokens(tokenizer, &ids).map_err(thrown)?;
        Ok(to_js(&tokens).unchecked_into())
    }

    /// The first line of a trace as `moebius trace` writes it, of what the last `generate` did. Without the line feed.
    #[wasm_bindgen(js_name = traceHeader)]
    pub fn trace_header(&self, model: &str) -> String {
        let (device, routing) = (self.inner.device().name.clone(), self.inner.routing().to_string());
        let source = Source { model: model.to_owned(), device, routing };
        trace::header_line(&source, &self.inner.traced_layers()).trim_end().to_owned()
    }

    /// After every token of `ids`, the `count` likeliest to come next, with their texts and probabilities.
    pub async fn likeliest(&mut self, ids: Vec<u32>, count: usize, routing: Option<JsRouting>) -> JsResult<JsCandidates> {
        let routing: WebRouting = parse(routing.map(JsValue::from).as_ref())?;
        self.inner.set_routing(&routing.into()).await.map_err(thrown)?;
        let found = self.inner.likeliest(&ids, count).await.map_err(thrown)?;
        Ok(to_js(&json::candidates(&found, self.inner.tokenizer()).map_err(thrown)?).unchecked_into())
    }

    /// Continues a prompt and calls `on_step` with every new token; it ends early where that gives `false`. One at a time.
    pub async fn run(&mut self, prompt: JsPrompt, options: Option<JsGenerateOptions>, on_step: OnStep) -> JsResult<JsSummary> {
        let mut options: WebGenerateOptions = parse(options.map(JsValue::from).as_ref())?;
        let WebGenerateOptions { trace, known_routing: known, resume, .. } = options;
        let ids = match prompt.as_string() {
            Some(text) => self.inner.tokenizer().encode(&text, true).map_err(thrown)?,
            None => parse(Some(&prompt))?,
        };
        let on_step: js_sys::Function = on_step.unchecked_into();
        self.inner.set_routing(&std::mem::take(&mut options.routing).into()).await.map_err(thrown)?;
        let num_experts: Vec<usize> = self.inner.spec().moe_layers().map(|(_, moe)| moe.router.num_experts).collect();
        let options = GenerateOptions::from(options);
        let mut generation = self.inner.generate(&ids, &options).map_err(thrown)?;
        if resume > 0 {
            generation.resume(resume).map_err(thrown)?;
        }
        if trace {
            generation.keep_routing_beyond(known);
        }
        while let Some(piece) = generation.next().await.map_err(thrown)? {
            let step = serde_json::json!({ "id": piece.id, "text": piece.text, "parts": piece.parts, "routing": json::by_token(generation.routing(), &num_experts) });
            let answer = on_step.call1(&JsValue::NULL, &to_js(&step))?;
            if JsFuture::from(js_sys::Promise::resolve(&answer)).await?.as_bool() == Some(false) {
                break;
            }
        }
        let summary = generation.finish().await.map_err(thrown)?;
        Ok(to_js(&json::summary(&summary)).unchecked_into())
    }
}

impl From<WebExpert> for ExpertAt {
    fn from(WebExpert { expert, layer }: WebExpert) -> Self {
        ExpertAt { expert, layer }
    }
}

impl From<WebRouting> for RoutingOverride {
    fn from(routing: WebRouting) -> Self {
        RoutingOverride {
            experts_per_token: routing.experts_per_token,
            disabled: routing.disabled.into_iter().map(ExpertAt::from).collect(),
            forced: routing.forced.map(ExpertAt::from),
            temperature: routing.temperature,
        }
    }
}

impl From<WebGenerateOptions> for GenerateOptions {
    fn from(options: WebGenerateOptions) -> Self {
        let WebGenerateOptions { max_tokens, temperature, top_k, top_p, min_p, repeat_penalty, seed, stop, ignore_end, .. } =
            options;
        GenerateOptions {
            sampling: SamplingOptions { temperature, top_k, top_p, min_p, seed, repeat_penalty },
            stop: StopRules { eos_ids: ignore_end.then(Vec::new), max_tokens, stop_strings: stop },
        }
    }
}

/// How evenly the experts of a layer are used. `loads`: how often each was chosen.
#[wasm_bindgen]
pub fn balance(loads: &[u32]) -> JsBalance {
    let loads: Vec<u64> = loads.iter().copied().map(u64::from).collect();
    to_js(&trace::balance(&loads)).unchecked_into()
}

/// Refuses files that are no model which can be run, before its weights are fetched: by `config.json` where there is nothing else, otherwise by
/// all small files and the headers of the weights. `name` is what messages call the directory, or the GGUF file.
#[wasm_bindgen(js_name = checkFiles)]
pub async fn check_files(files: JsFiles, name: Option<String>) -> JsResult<()> {
    let mount = mount(&files, name.as_deref());
    let names = js_sys::Object::keys(files.unchecked_ref::<js_sys::Object>());
    let whole = names.iter().any(|name| name != "config.json");
    crate::check_files(mount.model(), whole).await.map_err(thrown)
}

/// The names of all files of a GGUF model, by that of one of them.
#[wasm_bindgen(js_name = ggufParts)]
pub fn gguf_parts(file: &str) -> Vec<String> {
    platform::gguf_parts(file)
}

/// The GGUF file and its other parts that are meant by `repo`, with `tag` for one of several, where `files` are the paths of the files of a
/// repository; `undefined` where a model in another layout is meant.
#[wasm_bindgen(js_name = chooseGguf)]
pub fn choose_gguf(repo: &str, tag: Option<String>, files: Vec<String>) -> JsResult<Option<Vec<String>>> {
    let choice = GgufChoice { repo, tag: tag.as_deref() };
    choice.of(&files.iter().map(String::as_str).collect::<Vec<_>>()).map_err(|problem| js_sys::Error::new(&problem).into())
}

/// SHA-256 of bytes that arrive in pieces, which browsers do not offer.
#[wasm_bindgen]
#[derive(Default)]
pub struct Sha256(sha2::Sha256);

#[wasm_bindgen]
impl Sha256 {
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// In lower-case hexadecimal. The next piece begins another sum.
    pub fn digest(&mut self) -> String {
        self.0.finalize_reset().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn mount(files: &JsFiles, name: Option<&str>) -> Mount {
    let entries = js_sys::Object::entries(files.unchecked_ref::<js_sys::Object>());
    let named = entries.iter().filter_map(|entry| {
        let entry: js_sys::Array = entry.unchecked_into();
        Some((entry.get(0).as_string()?, entry.get(1).unchecked_into::<JsFile>()))
    });
    Mount::new(name, named)
}
