//! The one door to the library: load a model, generate, look at its numbers.

mod chat;
mod open;

pub use chat::ChatPrompt;
pub use open::fetch_model;

use crate::batch::{CacheShape, LayerRouting, Sampling};
use crate::checkpoint::{ModelFiles, WeightStore};
use crate::error::{Error, Result};
use crate::gating::RoutingOverride;
use crate::generate::{Candidate, GenerateOptions, Generation, GenerationContext, Tokenizer};
use crate::gpu::{Device, DeviceChoice, DeviceOptions};
use crate::model::{
    Decoder, Forward, GpuDecoder, LoadParts, LoadStats, LoadStep, ReferenceDecoder, Tap, TapChoice, cache_format, expert_bytes,
};
use crate::paging::{ExpertMemory, PagingStats};
use crate::platform::{self, Fetching, HostPeak, Listener};
use crate::quant::{CacheChoice, CacheFormat, QuantChoice};
use crate::spec::{ModelSpec, Parameters};
use crate::trace::TracedLayer;
use std::path::Path;
use std::sync::Arc;

/// The context where the caller names none and the model would allow more: a longer KV cache costs memory.
const DEFAULT_CONTEXT: usize = 4096;
/// Tokens whose logits are in host memory at the same time where those of a whole text are needed.
const LOGITS_STEP: usize = 128;

/// How to load a model.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    pub device: DeviceOptions,
    /// Formats of the weight matrices on the device. Norms, biases and routers are f32 always.
    pub quant: QuantChoice,
    /// Format of the KV cache.
    pub kv_cache: CacheChoice,
    /// Positions of the KV cache; `None`: what the model was made for, but at most 4096.
    pub context: Option<usize>,
    /// How to route otherwise than the model was trained to, as [`Engine::set_routing`] does.
    pub routing: RoutingOverride,
    /// Device memory for routed experts; the others are loaded when they are chosen. The reference keeps all in host memory.
    pub expert_memory: ExpertMemory,
}

impl LoadOptions {
    /// The default on a device of this choice.
    pub fn on(choice: DeviceChoice) -> Self {
        LoadOptions { device: DeviceOptions { choice, ..DeviceOptions::default() }, ..LoadOptions::default() }
    }
}

/// What [`Engine::open_with`] and [`Engine::load`] report while they work.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum LoadEvent {
    /// The files of the model are on their way.
    Fetching(Fetching),
    /// The device is chosen.
    Device(DeviceDescription),
    /// Weights on the device so far.
    Weights { done_bytes: u64, total_bytes: u64 },
    /// Pipelines compiled so far, after the weights. The reference has none.
    Kernels { done: u64, total: u64 },
}

impl From<LoadStep> for LoadEvent {
    fn from(step: LoadStep) -> Self {
        match step {
            LoadStep::Weights { done_bytes, total_bytes } => LoadEvent::Weights { done_bytes, total_bytes },
            LoadStep::Kernels { done, total } => LoadEvent::Kernels { done, total },
        }
    }
}

/// What runs a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceDescription {
    pub name: String,
    /// `discrete`, `integrated`, `software`, ... or `reference`.
    pub kind: String,
    pub backend: String,
    pub driver: String,
    /// Why this one.
    pub why: String,
}

impl DeviceDescription {
    pub(crate) fn of(device: &Device) -> Self {
        DeviceDescription {
            name: device.name().to_owned(),
            kind: device.caps().kind.to_string(),
            backend: device.backend().to_owned(),
            driver: device.driver(),
            why: device.why().to_owned(),
        }
    }

    fn reference() -> Self {
        DeviceDescription {
            name: "cpu".to_owned(),
            kind: "reference".to_owned(),
            backend: "Rust".to_owned(),
            driver: format!("moebius {}", env!("CARGO_PKG_VERSION")),
            why: "as asked for".to_owned(),
        }
    }
}

/// How well a model predicts a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// Tokens that were predicted.
    pub tokens: usize,
    /// Mean negative log-likelihood, in nats.
    pub mean_nll: f64,
}

impl Perplexity {
    pub fn value(&self) -> f64 {
        self.mean_nll.exp()
    }
}

/// A loaded model.
#[derive(Debug)]
pub struct Engine {
    spec: ModelSpec,
    store: Arc<WeightStore>,
    tokenizer: Tokenizer,
    decoder: Decoder,
    device: DeviceDescription,
    context: usize,
    ignored_tensors: Vec<String>,
    notes: Vec<String>,
    load_stats: LoadStats,
    /// Of one expert of each layer with a router, in the formats that were asked for.
    expert_bytes: Vec<u64>,
    /// The tokens whose keys and values the KV cache holds.
    cached: Vec<u32>,
    routing: RoutingOverride,
}

impl Engine {
    /// Loads the model in `directory`: `config.json`, `tokenizer.json` and `model.safetensors`, whole or in shards.
    ///
    /// Everything is checked before the first weight is read.
    ///
    /// # Errors
    /// What the files, the options or the device can be wrong about; see [`Error`].
    pub async fn load(directory: &Path, options: &LoadOptions, on_event: &mut Listener<'_, LoadEvent>) -> Result<Self> {
        let files = ModelFiles::open(directory).await?;
        files.spec().with_routing(&options.routing)?;
        let context = choose_context(files.spec(), options.context)?;
        let tokenizer = Tokenizer::of(&files).await?;
        let checkpoint = files.weights().await?;
        let spec = checkpoint.spec().clone();
        let (ignored_tensors, notes) = (checkpoint.ignored().to_vec(), checkpoint.notes().to_vec());

        let store: Arc<WeightStore> = checkpoint.into();
        let expert_bytes = expert_bytes(&store, &spec, options.quant)?;
        let (decoder, device, load_stats) = if options.device.choice == DeviceChoice::Cpu {
            let description = DeviceDescription::reference();
            on_event(LoadEvent::Device(description.clone()));
            let host_peak = HostPeak::start();
            let kv_cache_format = cache_format(&store, &spec, options.quant, options.kv_cache);
            let cache = CacheShape { context, format: kv_cache_format };
            let mut decoder = load_reference((&spec, &store, options.quant), cache, on_event).await?;
            if options.device.overrides.unchecked_results {
                decoder.leave_results_unchecked();
            }
            let decoder = Decoder::Reference(Box::new(decoder));
            let weight_bytes = Parameters::of(&spec).total() * 4;
            let peak_host_bytes = host_peak.bytes();
            (decoder, description, LoadStats { weight_bytes, kv_cache_format, peak_host_bytes, ..LoadStats::default() })
        } else {
            let device = Device::open(&options.device).await?;
            let description = DeviceDescription::of(&device);
            on_event(LoadEvent::Device(description.clone()));
            let (quant, cache) = (options.quant, options.kv_cache);
            let expert_memory = options.expert_memory;
            let parts = LoadParts { device, spec: &spec, store: store.clone(), quant, cache, context, expert_memory };
            let mut report = |step| on_event(LoadEvent::from(step));
            let decoder = GpuDecoder::load(parts, &mut report).await?;
            let load_stats = *decoder.load_stats();
            (Decoder::Gpu(Box::new(decoder)), description, load_stats)
        };
        let mut engine = Engine {
            spec,
            store,
            tokenizer,
            decoder,
            device,
            context,
            ignored_tensors,
            notes,
            load_stats,
            expert_bytes,
            cached: Vec::new(),
            routing: RoutingOverride::default(),
        };
        engine.set_routing(&options.routing).await?;
        Ok(engine)
    }

    /// What the user should know about the files of the model, a sentence each: what was decided where they contradict each other.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The model as it was trained, whatever [`set_routing`](Self::set_routing) changed.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// The weights as they are stored, which stay open as long as the engine lives.
    pub fn weights(&self) -> &WeightStore {
        &self.store
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub fn device(&self) -> &DeviceDescription {
        &self.device
    }

    /// The device itself; `None` for the reference.
    pub fn gpu(&self) -> Option<&Device> {
        match &self.decoder {
            Decoder::Gpu(decoder) => Some(decoder.device()),
            Decoder::Reference(_) => None,
        }
    }

    /// Positions of the KV cache: the most tokens that a prompt and its continuation may have.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Tensors of the checkpoint that the model does not use.
    pub fn ignored_tensors(&self) -> &[String] {
        &self.ignored_tensors
    }

    /// What loading took.
    pub fn load_stats(&self) -> &LoadStats {
        &self.load_stats
    }

    /// What has been loaded since; `None` where all experts are in memory.
    pub fn paging(&self) -> Option<&PagingStats> {
        match &self.decoder {
            Decoder::Gpu(decoder) => decoder.paging(),
            Decoder::Reference(_) => None,
        }
    }

    /// The layers with a router, as they route now.
    pub fn traced_layers(&self) -> Vec<TracedLayer> {
        let layers = self.spec.moe_layers().zip(&self.expert_bytes).map(|((layer, moe), &expert_bytes)| TracedLayer {
            layer,
            experts: moe.router.num_experts,
            experts_per_token: self.routing.experts_per_token.unwrap_or(moe.router.num_experts_per_tok),
            weightless: moe.router.num_experts - moe.router.num_weighted(),
            expert_bytes: Some(expert_bytes),
        });
        layers.collect()
    }

    /// How the routing differs from the model as trained.
    pub fn routing(&self) -> &RoutingOverride {
        &self.routing
    }

    /// Routes differently from now on: other numbers of experts, without some, with one forced, at another temperature. The default is the model
    /// as trained. The weights stay on the device.
    ///
    /// # Errors
    /// As [`ModelSpec::with_routing`], and what a device can fail with. Then nothing has changed.
    pub async fn set_routing(&mut self, routing: &RoutingOverride) -> Result<()> {
        if *routing == self.routing {
            return Ok(());
        }
        self.decoder.set_spec(self.spec.with_routing(routing)?).await?;
        self.cached.clear();
        self.routing = routing.clone();
        Ok(())
    }

    /// Continues a prompt. The tokens come from [`Generation::next`]; a prompt that begins as the last one did is not run twice.
    ///
    /// # Errors
    /// [`Error::Argument`] or [`Error::PromptTooLong`] for a prompt or options that cannot be run.
    pub fn generate(&mut self, prompt_ids: &[u32], options: &GenerateOptions) -> Result<Generation<'_>> {
        self.check_ids(prompt_ids)?;
        options.sampling.validate()?;
        options.stop.validate()?;
        let context = GenerationContext {
            decoder: &mut self.decoder,
            tokenizer: &self.tokenizer,
            cached: &mut self.cached,
            context: self.context,
        };
        Generation::new(context, prompt_ids, options)
    }

    /// Logits and routing at every position of `ids`.
    ///
    /// # Errors
    /// As [`generate`](Self::generate), and what a device can fail with.
    pub async fn forward(&mut self, ids: &[u32]) -> Result<Forward> {
        self.check_ids(ids)?;
        self.cached.clear();
        self.decoder.forward(ids, 0).await
    }

    /// What the blocks leave in the `wanted` scratch of the device when they run `ids`.
    ///
    /// # Errors
    /// As [`generate`](Self::generate); [`Error::Argument`] for scratch that the model does not have, and on the reference, which has none.
    pub async fn taps(&mut self, ids: &[u32], wanted: &[TapChoice]) -> Result<Vec<Tap>> {
        self.check_ids(ids)?;
        self.cached.clear();
        match &mut self.decoder {
            Decoder::Gpu(decoder) => decoder.taps(ids, wanted).await,
            Decoder::Reference(_) => Err(Error::Argument {
                what: "device",
                expected: "one of `moebius devices`: taps are buffers of a device".to_owned(),
                found: "cpu".to_owned(),
            }),
        }
    }

    /// What the routers do with `ids`, in windows of the context's length. `on_window` gets the routing of each, one entry per layer with a
    /// router, for as many tokens as the window has.
    ///
    /// Later windows begin with the beginning-of-text token, where the tokenizer puts one before a text; that one is left out.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub async fn trace(&mut self, ids: &[u32], on_window: &mut (dyn FnMut(&[u32], &[LayerRouting]) + Send)) -> Result<()> {
        let bos = self.opening();
        self.cached.clear();
        let (mut rest, mut opening) = (ids, &[][..]);
        loop {
            let (window, later) = rest.split_at(rest.len().min(self.context.saturating_sub(opening.len()).max(1)));
            let run = [opening, window].concat();
            self.check_ids(&run)?;
            self.decoder.keep_routing(true);
            self.decoder.begin(&Sampling::GREEDY, &[]).await?;
            let outcome = self.decoder.prefill(&run, 0).await;
            let mut layers = self.decoder.routing().to_vec();
            self.decoder.keep_routing(false);
            outcome?;
            if !opening.is_empty() {
                layers.iter_mut().for_each(|layer| layer.drop_first(opening.len(), run.len()));
            }
            on_window(window, &layers);
            if later.is_empty() {
                return Ok(());
            }
            (rest, opening) = (later, &bos);
        }
    }

    /// How well the model predicts `ids`, in windows of the context's length. `progress` gets the tokens done and the tokens in all.
    ///
    /// A window begins with the beginning-of-text token, where the tokenizer puts one before a text; the first token of a window is not predicted
    /// otherwise.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); [`Error::Argument`] for fewer than two tokens.
    pub async fn perplexity(&mut self, ids: &[u32], progress: &mut (dyn FnMut(usize, usize) + Send)) -> Result<Perplexity> {
        let bos = self.opening();
        let ids = ids.strip_prefix(bos.as_slice()).unwrap_or(ids);
        if ids.is_empty() || bos.len() + ids.len() < 2 {
            let (expected, found) = ("at least two tokens".to_owned(), ids.len().to_string());
            return Err(Error::Argument { what: "text", expected, found });
        }
        self.cached.clear();
        let (mut nll, mut tokens, mut done) = (0.0, 0, 0);
        for window in ids.chunks((self.context - bos.len()).max(1)) {
            let window = [&bos, window].concat();
            self.check_ids(&window)?;
            for start in (0..window.len()).step_by(LOGITS_STEP) {
                let step = &window[start..window.len().min(start + LOGITS_STEP)];
                let forward = self.decoder.forward(step, start).await?;
                let targets = &window[start + 1..window.len().min(start + 1 + LOGITS_STEP)];
                for (logits, &target) in forward.logits.chunks_exact(self.spec.vocab_size).zip(targets) {
                    nll += negative_log_likelihood(logits, target);
                    tokens += 1;
                }
                done += step.len();
                progress(done.min(ids.len()), ids.len());
            }
        }
        Ok(Perplexity { tokens, mean_nll: nll / tokens as f64 })
    }

    /// After every token of `ids`, the `count` likeliest tokens to come next.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub async fn likeliest(&mut self, ids: &[u32], count: usize) -> Result<Vec<Vec<Candidate>>> {
        self.check_ids(ids)?;
        self.cached.clear();
        let mut candidates = Vec::with_capacity(ids.len());
        for (index, step) in ids.chunks(LOGITS_STEP).enumerate() {
            let forward = self.decoder.forward(step, index * LOGITS_STEP).await?;
            let rows = forward.logits.chunks_exact(self.spec.vocab_size);
            candidates.extend(rows.map(|logits| Candidate::likeliest(logits, count)));
        }
        Ok(candidates)
    }

    /// The beginning-of-text token, where the tokenizer puts one before a text.
    fn opening(&self) -> Vec<u32> {
        self.tokenizer.bos_id().filter(|_| self.tokenizer.adds_bos()).into_iter().collect()
    }

    fn check_ids(&self, ids: &[u32]) -> Result<()> {
        if ids.is_empty() {
            let (expected, found) = ("at least one token".to_owned(), "none".to_owned());
            return Err(Error::Argument { what: "prompt", expected, found });
        }
        if ids.len() > self.context {
            return Err(Error::PromptTooLong { found: ids.len(), limit: self.context, longest: self.spec.max_positions });
        }
        match ids.iter().find(|&&id| id as usize >= self.spec.vocab_size) {
            Some(id) => {
                let expected = format!("below the vocabulary's {}", self.spec.vocab_size);
                Err(Error::Argument { what: "token id", expected, found: id.to_string() })
            }
            None => Ok(()),
        }
    }
}

/// Whether the model in `directory` can be run, as far as its `config.json` and, with `whole`, its other small files and the headers of its
/// weights tell. [`Engine::load`] asks the same; this is for whoever has to fetch the files first.
///
/// # Errors
/// As [`Engine::load`], as far as it concerns the files.
pub async fn check_files(directory: &Path, whole: bool) -> Result<()> {
    let files = ModelFiles::open(directory).await?;
    if whole {
        Tokenizer::of(&files).await?;
        files.check_weights().await?;
    }
    Ok(())
}

/// The context of a model: `wanted`, or what it was made for, but at most 4096.
///
/// # Errors
/// [`Error::Argument`] for more than the model was made for, or nothing.
pub fn choose_context(spec: &ModelSpec, wanted: Option<usize>) -> Result<usize> {
    match wanted {
        None => Ok(spec.max_positions.min(DEFAULT_CONTEXT)),
        Some(context) if context > 0 && context <= spec.max_positions => Ok(context),
        Some(context) => Err(Error::Argument {
            what: "context",
            expected: format!("1 to {} tokens, as the model was made for", spec.max_positions),
            found: context.to_string(),
        }),
    }
}

/// The reference widens every weight to f32 in host memory, as the asked-for format holds it, and keeps keys and values in f32, whatever they are
/// rounded to.
async fn load_reference(
    (spec, store, quant): (&ModelSpec, &WeightStore, QuantChoice),
    cache: CacheShape,
    on_event: &mut Listener<'_, LoadEvent>,
) -> Result<ReferenceDecoder> {
    let total_bytes = Parameters::of(spec).total() * 4;
    let needed_bytes = total_bytes + spec.memory_bytes(cache.context, CacheFormat::F32);
    let available_bytes = platform::available_memory_bytes();
    if available_bytes.is_some_and(|available| needed_bytes > available) {
        return Err(Error::OutOfMemory {
            what: "the model, widened to f32,".to_owned(),
            device: "the cpu".to_owned(),
            needed_bytes,
            available_bytes,
        });
    }
    let mut report = |done_bytes| on_event(LoadEvent::Weights { done_bytes, total_bytes });
    ReferenceDecoder::load(spec, (store, quant), cache, &mut report).await
}

/// `-log softmax(logits)[target]`
fn negative_log_likelihood(logits: &[f32], target: u32) -> f64 {
    let max = logits.iter().fold(f64::NEG_INFINITY, |max, &logit| max.max(f64::from(logit)));
    let total: f64 = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum();
    max + total.ln() - f64::from(logits[target as usize])
}
