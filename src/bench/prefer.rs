//! Whether the reference is quicker than the only device, where that is software.

use super::test::median;
use crate::checkpoint::{ModelFiles, WeightStore};
use crate::engine::{Engine, LoadOptions};
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, SamplingOptions, StopRules};
use crate::gpu::{Device, DeviceChoice, DeviceKind, TunedFor, list_adapters};
use crate::paging::ExpertMemory;
use crate::platform::{self, Stopwatch};
use crate::quant::{CacheChoice, CacheFormat};
use crate::spec::Parameters;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::Path;

/// The reference has to be so many times as fast.
pub const MIN_GAIN: f64 = 1.3;
/// Weights and KV cache in f32 may take this part of the free memory; the rest is room to spare.
const MAX_SHARE: f64 = 0.5;
/// Where the system does not tell what is free.
const MAX_BYTES: u64 = 1 << 30;
/// Tokens of a prompt, tokens that are timed, and how often.
const TIMED: (usize, usize, usize) = (8, 24, 3);

/// Decoding with one model on the only device and on the reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    pub device: TunedFor,
    /// Family and number of parameters.
    pub model: (String, u64),
    /// Tokens per second on the device, and on the reference.
    pub tokens_per_second: [f64; 2],
}

impl Comparison {
    /// How many times as fast the reference is.
    pub fn gain(&self) -> f64 {
        self.tokens_per_second[1] / self.tokens_per_second[0]
    }

    /// Whether that is enough.
    pub fn prefers_reference(&self) -> bool {
        self.gain() >= MIN_GAIN
    }
}

/// The comparisons that were made, as a file keeps them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparisons {
    made: Vec<Comparison>,
}

impl Comparisons {
    /// None where there is no such file: what cannot be read is measured again.
    pub async fn read(path: &Path) -> Result<Self> {
        match platform::read_text(path).await {
            Ok(text) => Ok(serde_json::from_str(&text).unwrap_or_default()),
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(Comparisons::default()),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file, or leaves the old one whole.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("names and numbers are JSON");
        platform::replace_file(path, format!("{text}\n").as_bytes())
    }

    /// That of a model on a device.
    pub fn find(&self, device: &TunedFor, model: &(String, u64)) -> Option<&Comparison> {
        self.made.iter().find(|made| made.device == *device && made.model == *model)
    }

    /// Keeps one in place of an earlier one.
    pub fn set(&mut self, comparison: Comparison) {
        self.made.retain(|made| made.device != comparison.device || made.model != comparison.model);
        self.made.push(comparison);
    }
}

/// Whether the reference is a choice where nobody chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReferenceChoice {
    /// It is where it is quicker; with what the model is called in a [`Comparison`].
    IfQuicker((String, u64)),
    /// The model would take more memory in f32 than there is with room to spare, in bytes.
    TooLarge { needed_bytes: u64, room_bytes: u64 },
    /// There is a GPU, or something was asked of the device.
    Never,
}

/// Whether it may be the reference that `auto` stands for: the best adapter is software, nothing was asked of the device, and the model fits in
/// f32 with room to spare.
///
/// # Errors
/// What reading the config and opening the checkpoint can fail with.
pub async fn may_be_reference(directory: &Path, options: &LoadOptions) -> Result<ReferenceChoice> {
    let asked = !options.quant.is_as_stored() || options.kv_cache != CacheChoice::Auto;
    let asked = asked || options.expert_memory != ExpertMemory::Auto;
    if asked || options.device.choice != DeviceChoice::Auto {
        return Ok(ReferenceChoice::Never);
    }
    if list_adapters().await.first().is_none_or(|best| best.caps.kind != DeviceKind::Software) {
        return Ok(ReferenceChoice::Never);
    }
    reference_choice(directory, options).await
}

/// The same where it is known already that there is only software and that nothing was asked of it.
///
/// # Errors
/// As [`may_be_reference`].
pub async fn reference_choice(directory: &Path, options: &LoadOptions) -> Result<ReferenceChoice> {
    let files = ModelFiles::open(directory).await?;
    let spec = files.spec();
    let context = options.context.unwrap_or(spec.max_positions.min(4096));
    let parameters = Parameters::of(spec).total();
    let needed_bytes = parameters * 4 + spec.memory_bytes(context, CacheFormat::F32);
    let room_bytes = platform::available_memory_bytes().map_or(MAX_BYTES, |free| (free as f64 * MAX_SHARE) as u64);
    if needed_bytes > room_bytes {
        return Ok(ReferenceChoice::TooLarge { needed_bytes, room_bytes });
    }
    // Weights that are quantised already stay so on a device only.
    let store = WeightStore::Checkpoint(files.weights().await?);
    Ok(match crate::model::cache_format(&store, spec, options.quant, options.kv_cache) {
        CacheFormat::F32 => ReferenceChoice::IfQuicker((spec.family.to_string(), parameters)),
        CacheFormat::F16 => ReferenceChoice::Never,
    })
}

/// Loads the model on the best device and on the reference, and lets both decode in turns.
///
/// # Errors
/// What loading and running can fail with.
pub async fn compare_with_reference(directory: &Path, options: &LoadOptions, model: (String, u64)) -> Result<Comparison> {
    let mut own = Engine::load(directory, options, &mut |_| {}).await?;
    let mut on_reference = options.clone();
    on_reference.device.choice = DeviceChoice::Cpu;
    let mut reference = Engine::load(directory, &on_reference, &mut |_| {}).await?;
    let device = own.gpu().map(measured_on).ok_or_else(|| Error::Argument {
        what: "device",
        expected: "an adapter to compare the reference with".to_owned(),
        found: "the reference".to_owned(),
    })?;
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..=TIMED.2 {
        for (engine, rates) in [&mut own, &mut reference].into_iter().zip(&mut rates) {
            let rate = decode_rate(engine).await?;
            // The first warms up.
            if round > 0 {
                rates.push(rate);
            }
        }
    }
    Ok(Comparison { device, model, tokens_per_second: rates.map(|rates| median(&rates)) })
}

/// What a comparison on a device is filed under: builds for development are slower, and count by themselves.
pub fn measured_on(device: &Device) -> TunedFor {
    let mut device = device.tuned_for();
    if cfg!(debug_assertions) {
        device.moebius.push_str(", for development");
    }
    device
}

/// Tokens per second of a greedy text, its first token left out.
async fn decode_rate(engine: &mut Engine) -> Result<f64> {
    let (prompt, tokens, _) = TIMED;
    let vocab = engine.spec().vocab_size as u32;
    let prompt = prompt.min(engine.context() - 1).max(1);
    let ids: Vec<u32> = (0..prompt as u32).map(|id| id * 7 % vocab).collect();
    let stop = StopRules { eos_ids: Some(Vec::new()), max_tokens: Some(tokens + 1), stop_strings: Vec::new() };
    let mut generation = engine.generate(&ids, &GenerateOptions { sampling: SamplingOptions::default(), stop })?;
    generation.next().await?;
    let (clock, mut made) = (Stopwatch::start(), 0);
    while generation.next().await?.is_some() {
        made += 1;
    }
    Ok(f64::from(made) / clock.seconds())
}
