//! What is measured: a model on a device, with weights from a checkpoint or random ones.

use super::roofs::RoofOptions;
use super::test::Test;
use crate::checkpoint::{Checkpoint, ModelFiles, Synthetic, WeightStore};
use crate::engine::DeviceDescription;
use crate::error::{Error, Result};
use crate::generate::SamplingOptions;
use crate::gpu::{Device, DeviceChoice, DeviceOptions};
use crate::model::{GpuDecoder, LoadParts, LoadStep};
use crate::paging::ExpertMemory;
use crate::platform::{self, Listener};
use crate::quant::{CacheChoice, QuantChoice};
use crate::spec::ModelSpec;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What to measure.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A model in Hugging Face layout. Its tokenizer is not needed.
    Checkpoint(PathBuf),
    /// Random weights in the shapes of a `config.json`.
    Synthetic {
        config: PathBuf,
        /// Only the first so many layers; `None`: all.
        layers: Option<usize>,
    },
}

/// How to load a [`Subject`].
#[derive(Debug, Clone, Default)]
pub struct SubjectOptions {
    /// Formats of the weight matrices on the device; random weights count as stored in f16.
    pub quant: QuantChoice,
    /// Format of the KV cache.
    pub kv_cache: CacheChoice,
    /// Positions of the KV cache; `None`: what the longest test needs.
    pub context: Option<usize>,
    /// How to measure what the device can do at most.
    pub roofs: RoofOptions,
    /// Device memory for routed experts.
    pub expert_memory: ExpertMemory,
}

impl Subject {
    /// The spec of the model.
    ///
    /// # Errors
    /// What a `config.json` can be wrong about; [`Error::Argument`] for a number of layers that it does not have.
    pub async fn spec(&self) -> Result<ModelSpec> {
        match self {
            Subject::Checkpoint(directory) => Ok(ModelFiles::open(directory).await?.spec().clone()),
            Subject::Synthetic { config, layers } => {
                let mut spec = ModelSpec::parse(&platform::read_text(config).await?, &config.display().to_string())?;
                if let Some(layers) = *layers {
                    if layers == 0 || layers > spec.layers.len() {
                        let expected = format!("1 to {}, which the config has", spec.layers.len());
                        return Err(Error::Argument { what: "number of layers", expected, found: layers.to_string() });
                    }
                    spec.layers.truncate(layers);
                }
                Ok(spec)
            }
        }
    }

    /// How its makers want it to be sampled: greedy where they do not ask for more, and random weights.
    ///
    /// # Errors
    /// What a `generation_config.json` can be wrong about.
    pub async fn sampling(&self) -> Result<SamplingOptions> {
        match self {
            Subject::Checkpoint(directory) => SamplingOptions::of_checkpoint(directory).await,
            Subject::Synthetic { .. } => Ok(SamplingOptions::default()),
        }
    }

    /// Its spec, and the positions of the KV cache that `tests` take.
    ///
    /// # Errors
    /// As [`spec`](Self::spec); [`Error::Argument`] if there are no tests, or one does not fit in the context.
    pub async fn check(&self, tests: &[Test], options: &SubjectOptions) -> Result<(ModelSpec, usize)> {
        let mut spec = self.spec().await?;
        if matches!(self, Subject::Synthetic { .. }) {
            // Random weights are no worse beyond the length that a model was trained for.
            let longest = tests.iter().map(Test::positions).chain(options.context).max();
            spec.max_positions = spec.max_positions.max(longest.unwrap_or(0));
        }
        let context = choose_context(&spec, tests, options.context)?;
        Ok((spec, context))
    }

    /// Where it comes from.
    pub fn path(&self) -> &Path {
        match self {
            Subject::Checkpoint(path) | Subject::Synthetic { config: path, .. } => path,
        }
    }

    pub(super) async fn load(
        &self,
        device: Device,
        spec: &ModelSpec,
        (options, context): (&SubjectOptions, usize),
        progress: &mut Listener<'_, LoadStep>,
    ) -> Result<GpuDecoder> {
        let (quant, cache) = (options.quant, options.kv_cache);
        let store: Arc<WeightStore> = match self {
            Subject::Checkpoint(directory) => Checkpoint::open(directory, spec).await?.into(),
            Subject::Synthetic { .. } => Synthetic::new(spec).into(),
        };
        let spec = &store.spec().clone();
        let expert_memory = options.expert_memory;
        GpuDecoder::load(LoadParts { device, spec, store, quant, cache, context, expert_memory }, progress).await
    }
}

/// A device to measure on, never the reference.
///
/// # Errors
/// [`Error::NoAdapter`], also where the reference is asked for.
pub async fn open_device(options: &DeviceOptions) -> Result<(Device, DeviceDescription)> {
    if options.choice == DeviceChoice::Cpu {
        return Err(Error::Argument {
            what: "device",
            expected: "an adapter of `moebius devices`: the reference is there to be right, not fast".to_owned(),
            found: "cpu".to_owned(),
        });
    }
    let device = Device::open(options).await?;
    let description = DeviceDescription::of(&device);
    Ok((device, description))
}

/// Positions of the KV cache for some tests.
pub(super) fn choose_context(spec: &ModelSpec, tests: &[Test], wanted: Option<usize>) -> Result<usize> {
    let longest = tests.iter().max_by_key(|test| test.positions()).ok_or_else(|| Error::Argument {
        what: "tests",
        expected: "a prompt length or a number of tokens to generate above 0".to_owned(),
        found: "neither".to_owned(),
    })?;
    let context = wanted.unwrap_or(longest.positions());
    if longest.positions() > context || context > spec.max_positions {
        return Err(Error::Argument {
            what: "context",
            expected: format!(
                "at least {} positions for {}, at most the model's {}",
                longest.positions(),
                longest.name(),
                spec.max_positions
            ),
            found: context.to_string(),
        });
    }
    Ok(context)
}
