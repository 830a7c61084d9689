//! What a run leaves: a model's directory that every command opens, and beside it what is needed to go on.

use super::settings::Settings;
use super::vocabulary::{Vocabulary, write_text};
use crate::checkpoint::scatter;
use crate::error::{Error, Result};
use crate::platform::{self, ByteSource, NewDirectory};
use crate::reference::training::Weights;
use crate::reference::training::adamw::Moments;
use crate::spec::{ModelSpec, WeightKey};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const MODEL: &str = "model.safetensors";
const STATE: &str = "state.safetensors";
/// Of the layout of that file.
const VERSION: &str = "1";

/// All that steps change. On a device these are the values of f32.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct State {
    pub weights: Weights,
    pub moments: Moments,
    /// More than f32 holds.
    pub exact: bool,
}

/// What is known about a run when a checkpoint is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// Steps done.
    pub step: usize,
    /// Windows drawn.
    pub drawn: u64,
    pub settings: Settings,
    /// What computed.
    pub device: String,
    /// The text of `config.json`.
    pub config: String,
}

/// Where the checkpoint after so many steps of the run in `out` lies.
pub fn step_directory(out: &Path, step: usize) -> PathBuf {
    out.join(format!("step-{step:06}"))
}

/// Writes the checkpoint; it appears when all of it is there.
///
/// # Errors
/// [`Error::Occupied`], [`Error::Io`].
pub(super) fn write(directory: &Path, spec: &ModelSpec, saved: &Saved, (state, vocabulary): (&State, &Vocabulary)) -> Result<()> {
    let new = NewDirectory::prepare(directory)?;
    write_text(&new, "config.json", &saved.config)?;
    let generation = vocabulary.end_id().map_or_else(|| json!({}), |id| json!({ "eos_token_id": id }));
    write_text(&new, "generation_config.json", &format!("{generation:#}\n"))?;
    vocabulary.write(&new)?;
    write_text(&new, "README.md", &readme(saved))?;
    write_model(&new, spec, &state.weights)?;
    write_state(&new, saved, state)?;
    new.commit()
}

fn readme(saved: &Saved) -> String {
    format!(
        "# A model trained by moebius\n\nAfter {} of {} steps on {}. `moebius run .` runs it, `moebius train --resume ..` goes on.\n\n```toml\n{}```\n",
        saved.step,
        saved.settings.train.steps,
        saved.device,
        saved.settings.to_toml()
    )
}

fn write_model(new: &NewDirectory, spec: &ModelSpec, weights: &Weights) -> Result<()> {
    let mut rounded = |key: WeightKey| weights[&key].iter().map(|value| *value as f32).collect();
    let tensors = scatter(spec, WeightKey::all(spec), &mut rounded)?;
    let views = tensors.iter().map(|(name, tensor)| {
        let bytes: &[u8] = bytemuck::cast_slice(&tensor.values);
        (name.as_str(), view(Dtype::F32, tensor.shape.clone(), bytes))
    });
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    write_tensors(new, MODEL, views, metadata)
}

/// The three parts of a state, by the prefix of their tensors.
const PARTS: [&str; 3] = ["weights", "first", "second"];

fn write_state(new: &NewDirectory, saved: &Saved, state: &State) -> Result<()> {
    let parts = [&state.weights, &state.moments.first, &state.moments.second];
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (prefix, part) in PARTS.iter().zip(parts) {
        for (key, values) in part {
            let bytes = if state.exact {
                bytemuck::cast_slice(values).to_vec()
            } else {
                values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect()
            };
            tensors.push((format!("{prefix}.{}", key.packed_name()), vec![values.len()], bytes));
        }
    }
    let dtype = if state.exact { Dtype::F64 } else { Dtype::F32 };
    let views = tensors.iter().map(|(name, shape, bytes)| (name.as_str(), view(dtype, shape.clone(), bytes)));
    let about = json!({
        "version": VERSION,
        "step": saved.step,
        "optimiser_steps": state.moments.steps,
        "drawn": saved.drawn,
        "device": saved.device,
        "settings": saved.settings.to_json(),
    });
    write_tensors(new, STATE, views, HashMap::from([("moebius.training".to_owned(), about.to_string())]))
}

fn view(dtype: Dtype, shape: Vec<usize>, bytes: &[u8]) -> TensorView<'_> {
    TensorView::new(dtype, shape, bytes).expect("the bytes are those of the shape")
}

fn write_tensors<'a>(
    new: &NewDirectory,
    name: &str,
    tensors: impl Iterator<Item = (&'a str, TensorView<'a>)>,
    metadata: HashMap<String, String>,
) -> Result<()> {
    let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|error| damaged(name, &error))?;
    let mut file = new.create(name)?;
    file.write(&bytes)?;
    file.finish()
}

/// Reads what [`write`] wrote.
///
/// # Errors
/// [`Error::MissingFile`] for a directory that is no checkpoint of a run, [`Error::Safetensors`] for a damaged one, [`Error::Io`].
pub(super) async fn read(directory: &Path, spec_of: impl Fn(&str) -> Result<ModelSpec>) -> Result<(Saved, State, ModelSpec)> {
    let path = directory.join(STATE);
    if !platform::is_file(&path).await {
        return Err(Error::MissingFile { directory: directory.to_owned(), file: STATE });
    }
    let source = ByteSource::open(&path).await?;
    let bytes = source.read(0..source.len()).await?;
    let file = path.display().to_string();
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| damaged(&file, &error))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| damaged(&file, &error))?;
    let about = header.metadata().as_ref().and_then(|metadata| metadata.get("moebius.training"));
    let about: Value = about.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    if about["version"] != VERSION {
        return Err(damaged(&file, &format!("it is in version {} of its layout, known is {VERSION}", about["version"])));
    }
    let config = platform::read_model_text(directory, "config.json").await?;
    let spec = spec_of(&config)?;
    let mut settings = Settings::default();
    settings.set_all(about["settings"].as_object().unwrap_or(&serde_json::Map::new()))?;
    let number = |key: &str| about[key].as_u64().ok_or_else(|| damaged(&file, &format!("`{key}` is missing")));
    let mut parts = PARTS.map(|_| Weights::new());
    for (prefix, part) in PARTS.iter().zip(&mut parts) {
        for key in WeightKey::all(&spec) {
            let (rows, cols) = key.shape(&spec);
            part.insert(key, values(&tensors, &format!("{prefix}.{}", key.packed_name()), rows * cols, &file)?);
        }
    }
    let [weights, first, second] = parts;
    let moments = Moments { first, second, steps: number("optimiser_steps")? };
    let device = about["device"].as_str().unwrap_or_default().to_owned();
    let saved = Saved { step: number("step")? as usize, drawn: number("drawn")?, settings, device, config };
    Ok((saved, State { weights, moments, exact: true }, spec))
}

fn values(tensors: &SafeTensors, name: &str, len: usize, file: &str) -> Result<Vec<f64>> {
    let tensor = tensors.tensor(name).map_err(|error| damaged(file, &error))?;
    let values: Vec<f64> = match tensor.dtype() {
        Dtype::F64 => tensor.data().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        Dtype::F32 => tensor.data().as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect(),
        other => return Err(damaged(file, &format!("`{name}` is in {other:?}, expected F64 or F32"))),
    };
    if values.len() != len {
        return Err(damaged(file, &format!("`{name}` has {} values, expected {len}", values.len())));
    }
    Ok(values)
}

fn damaged(file: &str, problem: &dyn std::fmt::Display) -> Error {
    Error::Safetensors { file: file.to_owned(), problem: problem.to_string() }
}
