//! One run, step by step.

use super::checkpoint::State;
use super::checkpoint::{self, Saved};
use super::config::config_of;
use super::data::Data;
use super::device::DeviceSteps;
use super::init::init;
use super::metrics::max_violation;
use super::reference::{Outcome, ReferenceSteps};
use super::settings::Settings;
use super::vocabulary::{Vocabulary, read_documents};
use crate::checkpoint::ModelFiles;
use crate::error::{Error, Result};
use crate::gpu::{Device, DeviceChoice, DeviceOptions};
use crate::platform::{Stopwatch, read_model_text};
use crate::reference::training::{Batch, Report, Weights, check};
use crate::spec::{ModelSpec, WeightKey};
use std::path::{Path, PathBuf};

/// Steps in a row whose gradients may be no numbers.
const MOST_SKIPPED: usize = 3;
/// Batches of held-out text that are looked at.
const EVALUATED: usize = 8;

/// How a run begins.
#[derive(Debug, Clone, Default)]
pub struct TrainerOptions {
    /// Where to compute; [`DeviceChoice::Cpu`] is the reference, and so is [`DeviceChoice::Auto`] where there is no adapter.
    pub device: DeviceOptions,
    /// A checkpoint to go on from.
    pub resume: Option<PathBuf>,
    /// Texts in memory to learn from, in the place of those at `data.path`: a page has no folder.
    pub documents: Option<Vec<String>>,
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Counted from 0.
    pub step: usize,
    /// Tokens that the run has trained on so far.
    pub tokens: u64,
    /// Losses of the weights before the step.
    pub report: Report,
    pub lr: f64,
    /// Of all gradients, before it was bounded.
    pub grad_norm: f64,
    /// The gradients were no numbers, and nothing was changed.
    pub skipped: bool,
    pub tokens_per_s: f64,
    /// Mean cross-entropy of held-out text after the step, where it was looked at.
    pub validation_loss: Option<f64>,
}

impl StepReport {
    /// The largest of the layers.
    pub fn max_violation(&self) -> f64 {
        self.report.layers.iter().map(|layer| max_violation(&layer.counts)).fold(0.0, f64::max)
    }
}

/// What computes the steps.
enum Steps {
    Reference(Box<ReferenceSteps>),
    Device(Box<DeviceSteps>),
}

impl Steps {
    async fn new(options: &DeviceOptions, settings: &Settings, spec: &ModelSpec, weights: Weights) -> Result<Self> {
        let device = match options.choice {
            DeviceChoice::Cpu => None,
            DeviceChoice::Auto => match Device::open(options).await {
                Err(Error::NoAdapter { .. }) => None,
                opened => Some(opened?),
            },
            _ => Some(Device::open(options).await?),
        };
        Ok(match device {
            Some(device) => Steps::Device(Box::new(DeviceSteps::new(device, settings, spec, &weights).await?)),
            None => Steps::Reference(Box::new(ReferenceSteps::new(settings, spec, weights)?)),
        })
    }

    async fn step(&mut self, batches: &[Batch], lr: f64) -> Result<Outcome> {
        match self {
            Steps::Reference(steps) => Ok(steps.step(batches, lr)),
            Steps::Device(steps) => steps.step(batches, lr).await,
        }
    }

    async fn evaluate(&self, batch: &Batch) -> Result<Report> {
        match self {
            Steps::Reference(steps) => Ok(steps.evaluate(batch)),
            Steps::Device(steps) => steps.evaluate(batch).await,
        }
    }

    async fn state(&self) -> Result<State> {
        match self {
            Steps::Reference(steps) => Ok(steps.state()),
            Steps::Device(steps) => steps.state().await,
        }
    }

    fn restore(&mut self, state: State) {
        match self {
            Steps::Reference(steps) => steps.restore(state),
            Steps::Device(steps) => steps.restore(&state),
        }
    }
}

/// A model that is being trained on a text.
pub struct Trainer {
    settings: Settings,
    spec: ModelSpec,
    config: String,
    vocabulary: Vocabulary,
    data: Data,
    steps: Steps,
    /// Steps done.
    step: usize,
    /// Windows drawn.
    drawn: u64,
    skipped: usize,
    bytes_per_token: f64,
}

impl Trainer {
    /// Reads the text, and makes or loads the model. Where `options` name a checkpoint, all but the settings comes from there.
    ///
    /// # Errors
    /// [`Error::Argument`] for settings that do not go together, [`Error::NotTrained`] for a model without gradients; what a text or a model
    /// can be wrong about.
    pub async fn new(settings: &Settings, options: &TrainerOptions) -> Result<Self> {
        let vocabulary = Vocabulary::open(&settings.data.tokenizer).await?;
        let (config, spec, weights) = match &options.resume {
            Some(_) => (String::new(), None, None),
            None => {
                let (config, spec, weights) = begin(settings, &vocabulary).await?;
                (config, Some(spec), Some(weights))
            }
        };
        let read;
        let texts = match &options.documents {
            Some(texts) => texts,
            None => {
                read = read_documents(Path::new(&settings.data.path)).await?;
                &read
            }
        };
        let bytes: usize = texts.iter().map(String::len).sum();
        let documents = texts.iter().map(|text| vocabulary.encode(text)).collect::<Result<Vec<_>>>()?;
        let bytes_per_token = bytes as f64 / documents.iter().map(Vec::len).sum::<usize>().max(1) as f64;
        let data = Data::new(&documents, settings.train.seq_len, settings.data.held_out, settings.train.seed as u32)?;
        let (settings, step, drawn) = (settings.clone(), 0, 0);
        if let (Some(spec), Some(weights)) = (spec, weights) {
            vocabulary.check(spec.vocab_size)?;
            let steps = Steps::new(&options.device, &settings, &spec, weights).await?;
            return Ok(Trainer { settings, spec, config, vocabulary, data, steps, step, drawn, skipped: 0, bytes_per_token });
        }
        let directory = options.resume.as_deref().unwrap_or(Path::new(""));
        let (saved, state, spec) = checkpoint::read(directory, |text| parse(text, "config.json")).await?;
        let mut steps = Steps::new(&options.device, &settings, &spec, state.weights.clone()).await?;
        steps.restore(state);
        let Saved { step, drawn, config, .. } = saved;
        Ok(Trainer { settings, spec, config, vocabulary, data, steps, step, drawn, skipped: 0, bytes_per_token })
    }

    /// The settings of the run that left a checkpoint.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub async fn saved(directory: &Path) -> Result<Saved> {
        checkpoint::read(directory, |text| parse(text, "config.json")).await.map(|(saved, ..)| saved)
    }

    /// Trains on the next windows.
    ///
    /// # Errors
    /// [`Error::Nonsense`] where the gradients of three steps in a row are no numbers.
    pub async fn step(&mut self) -> Result<StepReport> {
        let (clock, train) = (Stopwatch::start(), &self.settings.train);
        let batches: Vec<Batch> = (0..train.accumulate as u64)
            .map(|part| self.data.batch(self.drawn + part * train.windows as u64, train.windows))
            .collect();
        let lr = self.settings.lr(self.step);
        let outcome = self.steps.step(&batches, lr).await?;
        let tokens: u64 = batches.iter().map(|batch| batch.rows.len() as u64).sum();
        self.drawn += (train.accumulate * train.windows) as u64;
        let skipped = !outcome.grad_norm.is_finite();
        self.skipped = if skipped { self.skipped + 1 } else { 0 };
        if self.skipped >= MOST_SKIPPED {
            let place = format!("step {}; a smaller train.lr or a longer warm-up may help", self.step);
            return Err(Error::Nonsense { what: "the gradients of three steps in a row are no numbers", place });
        }
        let report = StepReport {
            step: self.step,
            tokens: self.drawn * train.seq_len as u64,
            report: outcome.report,
            lr,
            grad_norm: outcome.grad_norm,
            skipped,
            tokens_per_s: tokens as f64 / clock.seconds(),
            validation_loss: None,
        };
        self.step += 1;
        let every = train.evaluate_every;
        let is_due = self.is_done() || (every > 0 && self.step.is_multiple_of(every));
        let validation_loss = if is_due { self.evaluate().await? } else { None };
        Ok(StepReport { validation_loss, ..report })
    }

    /// Mean cross-entropy of held-out text; `None` where nothing is held out.
    ///
    /// # Errors
    /// [`Error::Gpu`], [`Error::DeviceLost`].
    pub async fn evaluate(&self) -> Result<Option<f64>> {
        let (mut sum, mut targets) = (0.0, 0);
        for batch in self.data.held_out(EVALUATED, self.settings.train.windows) {
            sum += self.steps.evaluate(&batch).await?.cross_entropy * batch.num_targets() as f64;
            targets += batch.num_targets();
        }
        Ok((targets > 0).then(|| sum / targets as f64))
    }

    /// Writes a checkpoint to a directory that is not there yet.
    ///
    /// # Errors
    /// [`Error::Occupied`], [`Error::Io`]; [`Error::Gpu`], [`Error::DeviceLost`].
    pub async fn save(&self, directory: &Path) -> Result<()> {
        let saved = Saved {
            step: self.step,
            drawn: self.drawn,
            settings: self.settings.clone(),
            device: self.device(),
            config: self.config.clone(),
        };
        checkpoint::write(directory, &self.spec, &saved, (&self.steps.state().await?, &self.vocabulary))
    }

    /// What computes.
    pub fn device(&self) -> String {
        match &self.steps {
            Steps::Reference(_) => "the reference".to_owned(),
            Steps::Device(steps) => steps.name(),
        }
    }

    /// Steps done.
    pub fn steps_done(&self) -> usize {
        self.step
    }

    pub fn is_done(&self) -> bool {
        self.step >= self.settings.train.steps
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Bytes of the text over its tokens.
    pub fn bytes_per_token(&self) -> f64 {
        self.bytes_per_token
    }

    /// Weights, gradients and both moments.
    pub fn state_bytes(&self) -> u64 {
        const COPIES: u64 = 4;
        COPIES
            * size_of::<f64>() as u64
            * WeightKey::all(&self.spec).map(|key| key.shape(&self.spec)).map(|(rows, cols)| (rows * cols) as u64).sum::<u64>()
    }

    /// The weights as they are now.
    ///
    /// # Errors
    /// [`Error::Gpu`], [`Error::DeviceLost`].
    pub async fn weights(&self) -> Result<Weights> {
        Ok(self.steps.state().await?.weights)
    }
}

/// A spec that can be trained.
fn parse(config: &str, name: &str) -> Result<ModelSpec> {
    let spec = ModelSpec::parse(config, name)?;
    check(&spec)?;
    Ok(spec)
}

/// The text of the config, what it means, and the weights to begin with: drawn, or those of `model.from`.
async fn begin(settings: &Settings, vocabulary: &Vocabulary) -> Result<(String, ModelSpec, Weights)> {
    if settings.model.from.is_empty() {
        let config = config_of(settings, vocabulary);
        let spec = parse(&config, "the settings")?;
        let weights = init(settings, &spec);
        return Ok((config, spec, weights));
    }
    let directory = Path::new(&settings.model.from);
    let files = ModelFiles::open(directory).await?;
    check(files.spec())?;
    let checkpoint = files.weights().await?;
    let spec = checkpoint.spec().clone();
    let mut weights = Weights::new();
    for key in WeightKey::all(&spec) {
        let values = checkpoint.read(key, 0..key.shape(&spec).0).await?.values;
        weights.insert(key, values.into_iter().map(f64::from).collect());
    }
    Ok((read_model_text(directory, "config.json").await?, spec, weights))
}
